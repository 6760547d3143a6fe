//! The card's virtual functions, as the driver of its physical function looks after them (sections 4.6.10 and 7.10): pools, the switch
//! between them, and who may receive and send. `answers.rs` has what they ask.
//!
//! Function n has pool n; the port itself has the first pool behind them, which gets what is for nobody.

mod answers;
mod pools;

use std::collections::BTreeMap;

use pagewire_ethdev::nic::{Device, Filters};
use pagewire_ethdev::{Error, FunctionConfig, Link, MacAddr, PortConfig};

use crate::family::Family;
use crate::filters;
use crate::messages::{CLEAR_TO_SEND, CONTROL, VERSION_1_1, WORDS};
use crate::registers::*;

/// The most: of 64 pools the port has one, and the last one's last queue is where flow rules drop.
pub(crate) const FUNCTIONS: u16 = 62;
/// Longest frame with its check sequence that comes in one buffer of whoever knows of no other.
const LONGEST_STANDARD: usize = 1518;

/// All of them, if there are any.
#[derive(Default)]
pub(crate) struct Functions {
    all: Vec<Function>,
    /// The longest frame that the card takes, with its check sequence.
    longest: usize,
    /// The entries of PFVLVF: a VLAN and the functions in it, by bit.
    vlans: Vec<Option<(u16, u64)>>,
}

struct Function {
    config: FunctionConfig,
    mac: MacAddr,
    /// It has been reset since we were, and is listened to.
    greeted: bool,
    version: u32,
    /// Bits of the multicast table.
    hashes: Vec<u32>,
    vlans: Vec<u16>,
    /// Bits of PFVML2FLT.
    mode: u32,
    /// The link as it was told of it.
    told: Option<bool>,
    /// What it was told or answered last is in the mailbox still.
    unread: bool,
}

/// What a function's pool gets besides what is for its addresses, until it says otherwise.
const MODE: u32 = pfvml2flt::BAM | pfvml2flt::ROMPE;

impl Functions {
    /// Those that a start asks for.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the port asks for more than one pool has.
    pub(crate) fn new(device: &Device, config: &PortConfig, own: MacAddr) -> Result<Functions, Error> {
        let function = |(number, config): (u8, &FunctionConfig)| Function {
            config: *config,
            mac: config.mac.unwrap_or_else(|| derived(own, number)),
            greeted: false,
            version: 0,
            hashes: Vec::new(),
            vlans: Vec::new(),
            mode: MODE,
            told: None,
            unread: false,
        };
        let all: Vec<Function> = (0..).zip(&config.functions).map(function).collect();
        let longest = (usize::from(config.mtu) + 14 + 4).max(LONGEST_STANDARD);
        let functions = Functions { all, longest, vlans: vec![None; PFVLVF.count] };
        if functions.is_empty() {
            return Ok(functions);
        }
        let each = functions.each();
        for (what, asked) in
            [("number of receive queues", config.rx.len()), ("number of transmit queues", config.tx.len())]
        {
            if asked > each || !asked.max(1).is_power_of_two() {
                let limit =
                    format!("1, 2 or {each} of its own beside {} virtual functions", functions.count());
                return Err(device.unsupported(what, asked, limit));
            }
        }
        if config.rss.table.is_some() {
            let limit = "one table, which virtual functions share";
            return Err(device.unsupported("RSS redirection", "as asked for", limit));
        }
        for (number, function) in functions.all.iter().enumerate() {
            let taken = functions.all[..number].iter().map(|other| other.mac).chain([own]);
            if !function.mac.is_valid_unicast() || taken.into_iter().any(|mac| mac == function.mac) {
                let limit = "an address of its own for each virtual function";
                return Err(device.unsupported("address", function.mac, limit));
            }
        }
        Ok(functions)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether an address is one of theirs.
    pub(crate) fn have(&self, mac: MacAddr) -> bool {
        self.all.iter().any(|function| function.mac == mac)
    }

    /// Answer what was asked since the last time.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the card is.
    pub(crate) fn serve(&mut self, device: &Device, filters: &Filters, link: Link) -> Result<(), Error> {
        let registers = &device.registers;
        if self.is_empty() {
            return Ok(());
        }
        if registers.read(STATUS) == u32::MAX {
            return Err(device.gone());
        }
        let resets = Family::of(device).function_resets;
        for number in 0..self.count() {
            let (word, bit) = (number / 32, 1 << (number % 32));
            if registers.read_at(resets, word) & bit != 0 {
                registers.write_at(PFVFLREC, word, bit);
                self.forget(device, filters, number);
            }
            let (word, bit) = (number / 16, 1 << (number % 16));
            let asked = registers.read_at(PFMBICR, word) & (bit | bit << 16);
            if asked != 0 {
                // Before it is read: what is asked after that raises it again.
                registers.write_at(PFMBICR, word, asked);
            }
            if asked & bit << 16 != 0 {
                self.all[number].unread = false;
            }
            if asked & bit != 0 {
                self.answer(device, filters, number);
            }
        }
        for number in 0..self.count() {
            self.tell(device, number, link.is_up());
        }
        Ok(())
    }

    /// Have a function look at the link, if that has changed and the mailbox is free.
    fn tell(&mut self, device: &Device, number: usize, up: bool) {
        let (registers, function) = (&device.registers, &mut self.all[number]);
        if !function.greeted || function.unread || function.told == Some(up) {
            return;
        }
        registers.write_at(PFMAILBOX, number, pfmailbox::PFU);
        let owned = registers.read_at(PFMAILBOX, number) & pfmailbox::PFU != 0;
        // It may have asked just before that: its question is not to be written over.
        let asked = registers.read_at(PFMBICR, number / 16) >> (number % 16) & 1 != 0;
        if !owned || asked {
            registers.write_at(PFMAILBOX, number, 0);
            return;
        }
        registers.write_at(PFMBMEM, number * WORDS, CONTROL | CLEAR_TO_SEND);
        registers.write_at(PFMAILBOX, number, pfmailbox::STS);
        (function.told, function.unread) = (Some(up), true);
    }

    /// A function was reset: it neither receives nor sends until it asks.
    fn forget(&mut self, device: &Device, filters: &Filters, number: usize) {
        let Some(function) = self.all.get_mut(number) else { return };
        let (hashes, vlans) = (!function.hashes.is_empty(), !function.vlans.is_empty());
        (function.greeted, function.version, function.mode, function.told) = (false, 0, MODE, None);
        function.hashes.clear();
        function.vlans.clear();
        for enable in [PFVFRE, PFVFTE] {
            device.registers.modify_at(enable, number / 32, 1 << (number % 32), 0);
        }
        self.write_function(device, number);
        if hashes {
            self.write_multicast(device, filters);
        }
        if vlans {
            self.write_vlans(device);
        }
        filters::write_modes(device, filters, self);
    }

    /// Whether any receives all groups.
    pub(crate) fn take_all_groups(&self) -> bool {
        self.all.iter().any(|function| function.mode & pfvml2flt::MPE != 0)
    }

    /// Whether a function may receive: with long frames about, only one that knows that they come in several buffers.
    fn may_receive(&self, number: usize) -> bool {
        let function = &self.all[number];
        function.greeted && (self.longest <= LONGEST_STANDARD || function.version >= VERSION_1_1)
    }

    /// A function's address, what its pool gets, and whether it is let in and out.
    fn write_function(&self, device: &Device, number: usize) {
        let (registers, function) = (&device.registers, &self.all[number]);
        let (word, bit) = (number / 32, 1 << (number % 32));
        let set = |allowed| if allowed { bit } else { 0 };
        // Hashed groups are anybody's: who has asked for none gets none.
        let groups = if function.hashes.is_empty() { pfvml2flt::ROMPE } else { 0 };
        registers.write_at(PFVML2FLT, number, pfvml2flt::AUPE | function.mode & !groups);
        let index = RAL.count - 1 - number;
        let (low, high) = Filters::words(function.mac);
        registers.write_at(RAH, index, 0);
        if function.greeted {
            registers.write_at(MPSAR, 2 * index + word, bit);
            registers.write_at(RAL, index, low);
            registers.write_at(RAH, index, high | Filters::VALID);
        }
        registers.modify_at(PFVFTE, word, bit, set(function.greeted));
        registers.modify_at(PFVFRE, word, bit, set(self.may_receive(number)));
    }

    /// The multicast table, which is one for all: whoever takes hashed groups gets everybody's.
    pub(crate) fn write_multicast(&self, device: &Device, filters: &Filters) {
        let mut table = filters.multicast_table();
        for hash in self.all.iter().flat_map(|function| &function.hashes) {
            table[*hash as usize / 32 % table.len()] |= 1 << (hash % 32);
        }
        for (index, word) in table.into_iter().enumerate() {
            device.registers.write_at(MTA, index, word);
        }
    }

    /// VLANs and the pools in them. False if there are more than the card has room for.
    ///
    /// Frames are coming in: a VLAN keeps its entry for as long as anybody is in it, an entry that is to be another's is taken away first,
    /// and only what differs is written. Without an entry a VLAN is the port's.
    fn write_vlans(&mut self, device: &Device) -> bool {
        let mut wanted: BTreeMap<u16, u64> = BTreeMap::new();
        for (number, function) in self.all.iter().enumerate() {
            for vlan in &function.vlans {
                *wanted.entry(*vlan).or_default() |= 1 << number;
            }
        }
        if wanted.len() > self.vlans.len() {
            return false;
        }
        let own = 1 << self.own_pool();
        for (index, entry) in self.vlans.iter_mut().enumerate() {
            let Some((vlan, before)) = *entry else { continue };
            let members = wanted.remove(&vlan);
            if members.is_none() {
                device.registers.write_at(PFVLVF, index, 0);
            }
            write_members(device, index, before | own, members.map_or(0, |members| members | own));
            *entry = members.map(|members| (vlan, members));
        }
        let free = self.vlans.iter_mut().enumerate().filter(|(_, entry)| entry.is_none());
        for ((index, entry), (vlan, members)) in free.zip(wanted) {
            // The port filters no VLANs beside functions: it is in all of them.
            write_members(device, index, 0, members | own);
            device.registers.write_at(PFVLVF, index, u32::from(vlan) | PFVLVF_VI_EN);
            *entry = Some((vlan, members));
        }
        true
    }
}

/// The pools of an entry of PFVLVF, which are others now.
fn write_members(device: &Device, index: usize, before: u64, now: u64) {
    for (half, shift) in [(0, 0), (1, 32)] {
        let word = |members: u64| (members >> shift) as u32;
        if word(before) != word(now) {
            device.registers.write_at(PFVLVFB, 2 * index + half, word(now));
        }
    }
}

/// An address for function `number`, made of the port's own: local, and another for each.
fn derived(own: MacAddr, number: u8) -> MacAddr {
    let [first, rest @ ..] = own.0;
    let [b, c, d, e, f] = rest;
    MacAddr([(first | 2) ^ (number + 1) << 2, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_addresses_are_local_and_all_different() {
        let own: MacAddr = "00:1b:21:82:59:09".parse().unwrap();
        let mut all: Vec<MacAddr> = (0..FUNCTIONS as u8).map(|number| derived(own, number)).collect();
        assert!(all.iter().all(|mac| mac.is_valid_unicast() && mac.0[0] & 2 != 0));
        all.push(own);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), usize::from(FUNCTIONS) + 1);
    }
}
