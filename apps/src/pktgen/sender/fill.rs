//! The hot half of a sender: packets, made or replayed, put into a burst.

use pagewire_ethdev::{Burst, Packet, PacketFlags, Pool};
use pagewire_pool::{PoolConfig, Posted};

use super::super::signature::{LEN, Signature};
use super::super::template::{TAG, Template};
use super::{Content, START, Sender};

impl Sender {
    /// One template, which all fragments are painted with, and of which nothing but the signature changes.
    #[inline(always)]
    pub(super) fn fill_plain<const PACED: bool>(
        &mut self,
        pool: &mut Pool,
        burst: &mut Burst,
        room: usize,
        now: u64,
    ) -> (usize, u64) {
        let signature = self.signature(now);
        let Sender { content: Content::Made(pattern), schedule, .. } = self else { return (0, 0) };
        let Some(template) = pattern.plain() else { return (0, 0) };
        // Values of its own, which what is written to packets cannot change.
        let (length, at) = (template.frame().len() as u16, template.signature_at.unwrap_or(0));
        let (interval, limit) = (template.interval, schedule.limit());
        let mut writer = Signature { payload: template.payload_check, ..signature }.writer();
        let packets = burst.fill(pool, room, |_, fragment| {
            if PACED && !schedule.take(now, limit, interval) {
                return None;
            }
            let fragment = fragment.take();
            let mut packet = fragment.complete(PoolConfig::HEADROOM, length, PacketFlags::empty()).ok()?;
            writer.write(packet.as_mut_slice()?.get_mut(at..at + LEN)?.first_chunk_mut()?);
            Some(packet)
        });
        (packets, packets as u64 * u64::from(length))
    }

    /// Whatever it is.
    pub(super) fn fill_any(
        &mut self,
        pool: &mut Pool,
        burst: &mut Burst,
        room: usize,
        now: u64,
    ) -> (usize, u64) {
        let signature = self.signature(now);
        let Sender { content: Content::Made(pattern), schedule, .. } = self else { return (0, 0) };
        let (limit, paced, mut bytes) = (schedule.limit(), schedule.paced, 0);
        let packets = burst.fill(pool, room, |number, fragment| {
            if paced && !schedule.take(now, limit, 0) {
                return None;
            }
            let (template, fields, random) = pattern.next();
            schedule.due.advance(template.interval);
            let mut packet = painted(fragment.take(), template)?;
            let frame = &mut packet.as_mut_slice()?[TAG..];
            let (mut of_ip, mut of_l4) = (0, 0);
            for field in fields {
                let added = field.write(frame, random);
                of_ip += if field.in_ip { added } else { 0 };
                of_l4 += if field.in_l4 { added } else { 0 };
            }
            template.ip.as_ref().inspect(|sum| sum.write(frame, of_ip));
            template.l4.as_ref().inspect(|sum| sum.write(frame, of_l4));
            if let Some(at) = template.signature_at {
                let number = signature.number + number as u64;
                let signature = Signature { number, payload: template.payload_check, ..signature };
                signature.writer().write(frame.get_mut(at..)?.first_chunk_mut()?);
            }
            bytes += frame.len() as u64;
            packet.trim_front(TAG).ok()?;
            if let Some(offload) = &template.offload {
                packet.set_header_lens(offload.l2, offload.l3);
                packet.set_flags(offload.flags);
            }
            Some(packet)
        });
        (packets, bytes)
    }

    /// A capture's frames, as they are.
    pub(super) fn fill_replayed(
        &mut self,
        pool: &mut Pool,
        burst: &mut Burst,
        room: usize,
        now: u64,
    ) -> (usize, u64) {
        let Sender { content: Content::Replayed(replay), schedule, gaps, .. } = self else { return (0, 0) };
        let (limit, paced, mut bytes) = (schedule.limit(), schedule.paced, 0);
        let packets = burst.fill(pool, room, |_, fragment| {
            let due = schedule.due.tick();
            if paced && !schedule.take(now, limit, 0) {
                return None;
            }
            let packet = replay.packet(fragment.take())?;
            bytes += packet.len() as u64;
            if let Some(gaps) = gaps {
                gaps.made(due);
            }
            replay.advance(&mut schedule.due);
            Some(packet)
        });
        (packets, bytes)
    }

    /// Of its next packet; the payload is a template's.
    #[inline(always)]
    fn signature(&self, now: u64) -> Signature {
        let Sender { run, id: sender, number, .. } = *self;
        Signature { run, phase: self.schedule.phase, sender, number, payload: 0, time: now }
    }
}

/// A packet with tag and frame, painted unless it is already.
#[inline(always)]
fn painted(fragment: Posted, template: &Template) -> Option<Packet> {
    let image = &template.image;
    let mut packet = fragment.complete(START, image.len() as u16, PacketFlags::empty()).ok()?;
    let data = packet.as_mut_slice()?;
    if data.first_chunk::<TAG>() != image.first_chunk() {
        paint(data, image);
    }
    Some(packet)
}

#[cold]
#[inline(never)]
fn paint(data: &mut [u8], image: &[u8]) {
    data.copy_from_slice(image);
}
