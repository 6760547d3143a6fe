//! A frame of one length as it is sent again and again, and what of it is to be filled in each time.

mod build;

use std::sync::atomic::{AtomicU64, Ordering};

use pagewire_ethdev::{MacAddr, PacketFlags};

use super::field::Field;
use super::frame::Protocol;
use super::sum;

/// Bytes before a frame in its fragment: which template it has been painted with.
pub(super) const TAG: usize = 8;
/// Bytes of the frame check sequence, which cards add.
pub(super) const FCS: usize = 4;
/// The shortest frame without it.
const SHORTEST: usize = 60;

/// A checksum to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) at: usize,
    /// Of all that counts and stays as it is.
    pub(super) base: u64,
    /// 0 stands for none, and is written as its equal.
    pub(super) never_zero: bool,
}

/// What the card is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offload {
    pub(super) flags: PacketFlags,
    pub(super) l2: u16,
    pub(super) l3: u16,
}

/// A frame of one length.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// The tag, which no other template has, and the frame.
    pub(super) image: Box<[u8]>,
    /// Where the signature is in the frame.
    pub(super) signature_at: Option<usize>,
    /// Of the payload behind it.
    pub(super) payload_check: u16,
    pub(super) ip: Option<Sum>,
    pub(super) l4: Option<Sum>,
    pub(super) offload: Option<Offload>,
    /// Parts of ticks until the next frame is due.
    pub(super) interval: u128,
}

/// A frame in all its lengths, with check sequence, and its fields.
pub(super) struct Templates {
    pub(super) by_size: Vec<(u16, Template)>,
    pub(super) fields: Vec<Field>,
}

/// Addresses of a frame for which the scenario has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) source: MacAddr,
    pub(super) destination: MacAddr,
}

/// Where things are.
struct Layout {
    l3: usize,
    l4: usize,
    payload: usize,
    v4: bool,
}

/// The low half of a CRC-32.
pub(super) fn payload_check(payload: &[u8]) -> u16 {
    if payload.is_empty() { 0 } else { crc32fast::hash(payload) as u16 }
}

impl Template {
    fn new(frame: Vec<u8>) -> Template {
        // Memory that was never painted is zero.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut image = NEXT.fetch_add(1, Ordering::Relaxed).to_ne_bytes().to_vec();
        image.extend(frame);
        Template {
            image: image.into(),
            signature_at: None,
            payload_check: 0,
            ip: None,
            l4: None,
            offload: None,
            interval: 0,
        }
    }

    /// The frame, without tag.
    pub(super) fn frame(&self) -> &[u8] {
        &self.image[TAG..]
    }

    /// Fill in the checksums, and remember what they are of if they will change. A signature adds nothing to them.
    fn sum_up(&mut self, layout: &Layout, l4_at: usize, protocol: Protocol, fields: &[Field]) {
        let Layout { l3, l4, v4, .. } = *layout;
        let frame = &mut self.image[TAG..];
        let mut still = frame.to_vec();
        still[l4_at..l4_at + 2].fill(0);
        if v4 {
            still[l3 + 10..l3 + 12].fill(0);
        }
        let addresses = if v4 { l3 + 12..l3 + 20 } else { l3 + 8..l3 + 40 };
        let of_l4 = |frame: &[u8]| {
            let number = if protocol == Protocol::Udp { 17 } else { 6 };
            sum::of(&frame[addresses.clone()]) + sum::of(&frame[l4..]) + number + (frame.len() - l4) as u64
        };
        let never_zero = protocol == Protocol::Udp;
        // As it is, for what is sent without a field that varies.
        if v4 {
            let ip = sum::checksum(sum::of(&still[l3..l4]));
            frame[l3 + 10..l3 + 12].copy_from_slice(&ip.to_be_bytes());
        }
        let checksum = match sum::checksum(of_l4(&still)) {
            0 if never_zero => 0xffff,
            checksum => checksum,
        };
        frame[l4_at..l4_at + 2].copy_from_slice(&checksum.to_be_bytes());
        for field in fields {
            still[field.at..field.at + field.width].fill(0);
        }
        if v4 && fields.iter().any(|field| field.in_ip) {
            self.ip = Some(Sum { at: l3 + 10, base: sum::of(&still[l3..l4]), never_zero: false });
        }
        if fields.iter().any(|field| field.in_l4) {
            self.l4 = Some(Sum { at: l4_at, base: of_l4(&still), never_zero });
        }
    }
}

impl Sum {
    /// Write it, with what the fields add.
    #[inline]
    pub(super) fn write(&self, frame: &mut [u8], fields: u64) {
        let checksum = match sum::checksum(self.base + fields) {
            0 if self.never_zero => 0xffff,
            checksum => checksum,
        };
        if let Some(to) = frame.get_mut(self.at..self.at + 2) {
            to.copy_from_slice(&checksum.to_be_bytes());
        }
    }
}
