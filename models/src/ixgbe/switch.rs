//! Virtualisation, the card's side: pools and who is in them, the switch between them (82599 datasheet 7.10), the virtual functions'
//! mailboxes and resets (8.2.3.27).
//!
//! Pool n is virtual function n's; all that is for another pool comes to the card itself, to the queues of its default one. A frame for
//! a function that has no room for it is dropped: none keeps the others waiting, as with PFQDE set for all.

use super::filters::in_table;
use super::interrupts::{Interrupts, MAILBOX};
use super::packet::Packet;
use super::receive::parse;
use super::registers::{Register, Registers};
use super::statistics::{self, Cast};
use super::table::*;
use super::vf::WORDS;
use super::vf::lane::Shared;
use crate::wire::Frames;

const POOLS: u32 = 64;
const VT_ENABLE: u32 = 1 << 0;
const NO_DEFAULT: u32 = 1 << 29;
const REPLICATE: u32 = 1 << 30;
/// PFVML2FLT: what comes to a pool besides what is for its addresses.
const UNTAGGED: u32 = 1 << 24;
const GROUPS: u32 = 1 << 25;
const UNICAST_TABLE: u32 = 1 << 26;
const BROADCAST: u32 = 1 << 27;
const ALL_GROUPS: u32 = 1 << 28;
const VLAN_FILTER: u32 = 1 << 30;
const VALID: u32 = 1 << 31;
const LOOPBACK: u32 = 1 << 0;
const RESET_DONE: u32 = 1 << 14;
/// PFVMVIR: insert the tag.
const INSERT: u32 = 1 << 30;

/// The card's registers that virtual functions work by as well.
const COMMON: [u32; 11] =
    [HLREG0, RXCSUM, RFCTL, RDRXCTL, VLNCTRL, EXVET, CTRL_EXT, MCSTCTRL, MRQC, DTXTCPFLGL, DTXTCPFLGH];

/// The switch.
#[derive(Debug)]
pub(super) struct Switch {
    lanes: Vec<Shared>,
    /// For the card itself, from its functions.
    own: Frames,
    /// Whose turn it is to send.
    next: usize,
    changed: bool,
}

impl Switch {
    /// A switch for so many virtual functions.
    pub(super) fn new(functions: u16) -> Self {
        let lanes = (0..functions).map(|_| Shared::default()).collect();
        Self { lanes, own: Frames::new(), next: 0, changed: true }
    }

    /// The functions' ends.
    pub(super) fn lanes(&self) -> impl Iterator<Item = Shared> {
        self.lanes.iter().cloned()
    }

    /// Whether there are pools.
    #[inline]
    pub(super) fn is_on(registers: &Registers) -> bool {
        registers.has(PFVTCTL, VT_ENABLE)
    }

    /// A register that functions could work by has changed.
    #[inline]
    pub(super) fn changed(&mut self) {
        self.changed = true;
    }

    /// The card was reset: its functions stop, and are told.
    pub(super) fn reset(&mut self) {
        self.own.clear();
        self.changed = true;
        for lane in &self.lanes {
            let mut lane = lane.lock();
            lane.stop();
            lane.stop = true;
            lane.mailbox.card_reset();
        }
    }

    /// Take in what the functions have done, and let them know what there is to know.
    pub(super) fn attend(&mut self, registers: &mut Registers, interrupts: &mut Interrupts) {
        if self.lanes.is_empty() {
            return;
        }
        let ready = registers.has(CTRL_EXT, RESET_DONE);
        registers.set(CTRL_EXT, registers.get(CTRL_EXT) & !RESET_DONE);
        let on = Self::is_on(registers);
        for (n, lane) in (0u32..).zip(&self.lanes) {
            let mut lane = lane.lock();
            let mut raise = false;
            if std::mem::take(&mut lane.was_reset) {
                for enable in [PFVFRE, PFVFTE] {
                    let at = enable + 4 * (n / 32);
                    registers.set(at, registers.get(at) & !(1 << (n % 32)));
                }
                let at = 4 * (n / 32);
                registers.set(PFVFLRE + at, registers.get(PFVFLRE + at) | 1 << (n % 32));
                registers.set(PFVFLREC + at, registers.get(PFVFLRE + at));
                raise = true;
            }
            let wanted = registers.get(PFMBIMR + 4 * (n / 32)) >> (n % 32) & 1 != 0;
            for (happened, shift) in [
                (std::mem::take(&mut lane.mailbox.request), n % 16),
                (std::mem::take(&mut lane.mailbox.acknowledged), 16 + n % 16),
            ] {
                if happened {
                    let at = PFMBICR + 4 * (n / 16);
                    registers.set(at, registers.get(at) | 1 << shift);
                    raise |= wanted;
                }
            }
            if raise {
                interrupts.raise(MAILBOX);
            }
            for _ in 0..std::mem::take(&mut lane.dropped) {
                statistics::queue_dropped(registers, first_queue(registers, n));
            }
            if ready {
                lane.mailbox.card_ready();
            }
            lane.receives = on && enabled(registers, PFVFRE, n);
            lane.sends = on && enabled(registers, PFVFTE, n);
            lane.links = registers.get(LINKS);
            // GCR_EXT.VT_Mode and GPIE.VT_Mode.
            lane.interrupts = !on || registers.get(GCR_EXT) & 3 == registers.get(GPIE) >> 14 & 3;
            if self.changed {
                lane.changes += 1;
                let tables = [(RETA, 32), (ERETA, 96), (RSSRK, 10)];
                let tables =
                    tables.into_iter().flat_map(|(first, count)| (0..count).map(move |n| first + 4 * n));
                let all = COMMON.into_iter().chain(tables).map(|offset| (offset, registers.get(offset)));
                lane.common.clear();
                lane.common.extend(all);
            }
        }
        self.changed = false;
    }

    /// A read of a register of [`Unit::Function`](super::registers::Unit::Function).
    pub(super) fn read(
        &mut self,
        registers: &mut Registers,
        interrupts: &mut Interrupts,
        register: &Register,
        offset: u32,
    ) -> u32 {
        self.attend(registers, interrupts);
        match self.mailbox(offset) {
            Some((lane, None)) => lane.lock().mailbox.card_read(),
            Some((lane, Some(word))) => lane.lock().mailbox.words[word],
            None => registers.read(register, offset),
        }
    }

    /// A write of one.
    pub(super) fn write(
        &mut self,
        registers: &mut Registers,
        interrupts: &mut Interrupts,
        register: &Register,
        offset: u32,
        value: u32,
    ) {
        self.attend(registers, interrupts);
        match self.mailbox(offset) {
            Some((lane, None)) => lane.lock().mailbox.card_write(value),
            Some((lane, Some(word))) => lane.lock().mailbox.words[word] = value,
            None => {
                registers.write(register, offset, value);
                if (PFVFLREC..PFVFLREC + 8).contains(&offset) {
                    registers.set(offset - PFVFLREC + PFVFLRE, registers.get(offset));
                }
                self.attend(registers, interrupts);
            }
        }
    }

    /// The function whose mailbox's control register or word an offset is.
    fn mailbox(&self, offset: u32) -> Option<(&Shared, Option<usize>)> {
        let (function, word) = match offset {
            PFMAILBOX.. if offset < PFMAILBOX + 4 * POOLS => ((offset - PFMAILBOX) / 4, None),
            PFMBMEM.. if offset < PFMBMEM + 64 * POOLS => {
                let word = (offset - PFMBMEM) as usize / 4;
                (word as u32 / WORDS as u32, Some(word % WORDS))
            }
            _ => return None,
        };
        self.lanes.get(function as usize).map(|lane| (lane, word))
    }

    /// A frame from the wire that the filters have let in (7.10.3). Gives whether the card itself is to have it.
    pub(super) fn arrive(&mut self, registers: &mut Registers, frame: &[u8]) -> bool {
        let packet = parse(registers, frame);
        let (mut pools, _) = members(registers, frame, &packet);
        let control = registers.get(PFVTCTL);
        let default = 1 << (control >> 7 & 0x3f);
        let alone = control & REPLICATE == 0 && pools.count_ones() > 1;
        if alone || pools == 0 {
            pools = if control & NO_DEFAULT == 0 { default } else { 0 };
        }
        self.give(registers, pools, frame)
    }

    /// A frame for the card itself that came from a function.
    pub(super) fn take_own(&mut self, frame: &mut Vec<u8>) -> bool {
        take(&mut self.own, frame)
    }

    /// The next frame that a function sends, and the pool that it is from.
    pub(super) fn take_sent(&mut self, frame: &mut Vec<u8>) -> Option<u32> {
        let count = self.lanes.len();
        let pool = (0..count).map(|n| (self.next + n) % count).find(|pool| {
            let mut lane = self.lanes[*pool].lock();
            take(&mut lane.outbound, frame)
        })?;
        self.next = pool + 1;
        Some(pool as u32)
    }

    /// A frame that a pool sends (7.10.3): to the other pools that it is for. Gives whether it goes out as well.
    pub(super) fn send(&mut self, registers: &mut Registers, frame: &mut Vec<u8>, pool: u32) -> bool {
        if !enabled(registers, PFVFTE, pool) {
            return false;
        }
        let insert = registers.get(PFVMVIR + 4 * pool);
        if insert & (INSERT | VALID) == INSERT {
            let kind = (registers.get(VLNCTRL) as u16).to_be_bytes();
            let [high, low] = (insert as u16).to_be_bytes();
            frame.splice(12..12, [kind[0], kind[1], high, low]);
        }
        let packet = parse(registers, frame);
        if is_spoofed(registers, frame, &packet, pool) {
            registers.count(SSVPC, 1);
            return false;
        }
        if !registers.has(PFDTXGSWC, LOOPBACK) {
            return true;
        }
        let (pools, exact) = members(registers, frame, &packet);
        if self.give(registers, pools & !(1 << pool), frame) {
            self.own.push(frame);
        }
        // What is for an address of this card goes nowhere else.
        !(exact && Cast::of(frame) == Cast::Unicast)
    }

    /// To the functions among these pools. Gives whether there are others.
    fn give(&mut self, registers: &mut Registers, pools: u64, frame: &[u8]) -> bool {
        let receiving = u64::from(registers.get(PFVFRE)) | u64::from(registers.get(PFVFRE + 4)) << 32;
        let mut left = pools & receiving;
        while left != 0 {
            let pool = left.trailing_zeros();
            let Some(lane) = self.lanes.get(pool as usize) else { return true };
            left &= left - 1;
            if !lane.lock().give(frame) {
                statistics::queue_dropped(registers, first_queue(registers, pool));
            }
        }
        false
    }
}

fn take(from: &mut Frames, frame: &mut Vec<u8>) -> bool {
    let Some(first) = from.front() else { return false };
    frame.clear();
    frame.extend_from_slice(first);
    from.pop();
    true
}

/// The card's number of a pool's first queue, in whose place all of them count.
fn first_queue(registers: &Registers, pool: u32) -> usize {
    let each = if registers.get(MRQC) & 0xf == 0xa { 4 } else { 2 };
    (pool * each) as usize
}

fn enabled(registers: &Registers, enable: u32, pool: u32) -> bool {
    registers.get(enable + 4 * (pool / 32)) >> (pool % 32) & 1 != 0
}

/// The pools that a frame is for, by address and VLAN; and whether one has exactly that address.
fn members(registers: &Registers, frame: &[u8], packet: &Packet) -> (u64, bool) {
    let mut exact = false;
    let mut pools = 0;
    for n in stations(registers, &frame[..6]) {
        exact = true;
        pools |= u64::from(registers.get(MPSAR + 8 * n)) | u64::from(registers.get(MPSAR + 8 * n + 4)) << 32;
    }
    pools |= match Cast::of(frame) {
        Cast::Broadcast => having(registers, BROADCAST),
        Cast::Multicast if in_table(registers, MTA, frame) => having(registers, GROUPS | ALL_GROUPS),
        Cast::Multicast => having(registers, ALL_GROUPS),
        Cast::Unicast if in_table(registers, PFUTA, frame) => having(registers, UNICAST_TABLE),
        Cast::Unicast => 0,
    };
    if registers.has(VLNCTRL, VLAN_FILTER) {
        pools &= in_vlan(registers, packet);
    }
    (pools, exact)
}

/// The address registers that hold an address.
fn stations<'r>(registers: &'r Registers, address: &'r [u8]) -> impl Iterator<Item = u32> + 'r {
    let word = |at: usize, n: usize| (0..n).fold(0, |word, i| word | u32::from(address[at + i]) << (8 * i));
    let (low, high) = (word(0, 4), word(4, 2) | VALID);
    (0..128).filter(move |n| {
        registers.get(RAL + 8 * n) == low && registers.get(RAH + 8 * n) & (VALID | 0xffff) == high
    })
}

/// The pools with any of these bits in PFVML2FLT.
fn having(registers: &Registers, bits: u32) -> u64 {
    let has = |pool: &u32| registers.has(PFVML2FLT + 4 * pool, bits);
    (0..POOLS).filter(has).fold(0, |pools, pool| pools | 1 << pool)
}

/// The pools in a frame's VLAN.
fn in_vlan(registers: &Registers, packet: &Packet) -> u64 {
    let Some((_, tag)) = packet.vlan else { return having(registers, UNTAGGED) };
    let entry = VALID | u32::from(tag) & 0xfff;
    let matching = (0..64).filter(|n| registers.get(PFVLVF + 4 * n) & (VALID | 0xfff) == entry);
    matching.fold(0, |pools, n| {
        let word = |half: u32| u64::from(registers.get(PFVLVFB + 8 * n + 4 * half));
        pools | word(0) | word(1) << 32
    })
}

/// PFVFSPOOF (7.10.3): a frame whose source is not its sender's.
fn is_spoofed(registers: &Registers, frame: &[u8], packet: &Packet, pool: u32) -> bool {
    let checks = registers.get(PFVFSPOOF + 4 * (pool / 8)) >> (pool % 8);
    let own = |n: u32| {
        let word = registers.get(MPSAR + 8 * n + 4 * (pool / 32));
        word >> (pool % 32) & 1 != 0
    };
    let address = checks & 1 != 0 && !stations(registers, &frame[6..12]).any(own);
    let vlan = checks >> 8 & 1 != 0 && in_vlan(registers, packet) >> pool & 1 == 0;
    address || vlan
}
