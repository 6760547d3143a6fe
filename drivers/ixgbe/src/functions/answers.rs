//! What virtual functions ask, and what they are told. Whatever stands in a mailbox is checked: a function belongs to somebody else.

use pagewire_ethdev::MacAddr;
use pagewire_ethdev::nic::{Device, Filters};

use super::Functions;
use crate::filters;
use crate::messages::*;
use crate::registers::*;

/// Highest VLAN identifier.
const MAX_VLAN: u32 = 4094;
/// Shortest frame with its check sequence.
const SHORTEST: u32 = 64;

impl Functions {
    /// Read what a function asks, and answer it.
    pub(super) fn answer(&mut self, device: &Device, filters: &Filters, number: usize) {
        let registers = &device.registers;
        // Who has asked waits for the answer; one that takes the mailbox back meanwhile loses it.
        registers.write_at(PFMAILBOX, number, pfmailbox::RVFU | pfmailbox::PFU);
        let question: Message = std::array::from_fn(|word| registers.read_at(PFMBMEM, number * WORDS + word));
        registers.write_at(PFMAILBOX, number, pfmailbox::ACK | pfmailbox::PFU);
        let mut answer = question;
        let granted = self.decide(device, filters, number, &question, &mut answer);
        let verdict = if granted { GRANTED } else { REFUSED };
        let known = self.all[number].greeted && question[0] & KIND != RESET;
        answer[0] =
            question[0] & (KIND | INFO << INFO_SHIFT) | verdict | if known { CLEAR_TO_SEND } else { 0 };
        if !granted {
            let name = &device.name;
            log::debug!("{name}: virtual function {number} asked for {question:#x?}, and was refused");
        }
        for (word, value) in answer.into_iter().enumerate() {
            registers.write_at(PFMBMEM, number * WORDS + word, value);
        }
        self.all[number].unread = true;
        registers.write_at(PFMAILBOX, number, pfmailbox::STS);
    }

    /// Whether a function gets what it asks for, which it then has.
    fn decide(
        &mut self,
        device: &Device,
        filters: &Filters,
        number: usize,
        question: &Message,
        answer: &mut Message,
    ) -> bool {
        let (kind, info) = (question[0] & KIND, question[0] >> INFO_SHIFT & INFO);
        if kind == RESET {
            // The reset that came before it may not have been seen yet: the function is not to be forgotten for it after this.
            device.registers.write_at(PFVFLREC, number / 32, 1 << (number % 32));
            self.forget(device, filters, number);
            self.all[number].greeted = true;
            self.write_function(device, number);
            let (low, high) = Filters::words(self.all[number].mac);
            // Which bits of a group's address are hashed: MCSTCTRL's lowest, 0.
            answer[1..4].copy_from_slice(&[low, high, 0]);
            return true;
        }
        let each = self.each() as u32;
        let longest = self.longest as u32;
        let function = &mut self.all[number];
        if !function.greeted {
            return false;
        }
        match kind {
            NEGOTIATE => {
                let known = VERSIONS.iter().any(|(_, version)| *version == question[1]);
                if known {
                    function.version = question[1];
                    self.write_function(device, number);
                }
                known
            }
            GET_QUEUES if function.version >= VERSION_1_1 => {
                // Transmit, receive, no tags inserted, the first is the default.
                answer[1..5].copy_from_slice(&[each, each, 0, 0]);
                true
            }
            SET_MAC => self.set_mac(device, filters, number, Filters::address(question[1], question[2])),
            SET_MULTICAST if info as usize <= MOST_GROUPS => {
                let hash = |index: usize| question[1 + index / 2] >> (16 * (index % 2)) & 0xfff;
                function.hashes = (0..info as usize).map(hash).collect();
                self.write_multicast(device, filters);
                self.write_function(device, number);
                true
            }
            SET_VLAN => self.set_vlan(device, number, question[1], info != 0),
            SET_FRAME => (SHORTEST..=longest).contains(&question[1]),
            // None is there, which is all that can be had.
            SET_EXTRA_MAC => info == 0,
            SET_MODE if function.version >= VERSION_1_2 => {
                function.mode = match question[1] {
                    mode::NONE => 0,
                    mode::GROUPS => super::MODE,
                    mode::ALL_GROUPS if function.config.trusted => super::MODE | pfvml2flt::MPE,
                    _ => return false,
                };
                self.write_function(device, number);
                filters::write_modes(device, filters, self);
                true
            }
            _ => false,
        }
    }

    fn set_mac(&mut self, device: &Device, filters: &Filters, number: usize, mac: MacAddr) -> bool {
        let taken = |(other, function): (usize, &super::Function)| other != number && function.mac == mac;
        let function = &self.all[number];
        let may = function.config.mac.is_none_or(|given| given == mac) || function.config.trusted;
        if !may
            || !mac.is_valid_unicast()
            || filters.addresses().any(|own| own == mac)
            || self.all.iter().enumerate().any(taken)
        {
            return false;
        }
        self.all[number].mac = mac;
        self.write_function(device, number);
        true
    }

    fn set_vlan(&mut self, device: &Device, number: usize, vlan: u32, add: bool) -> bool {
        if vlan > MAX_VLAN {
            return false;
        }
        let (vlan, vlans) = (vlan as u16, &mut self.all[number].vlans);
        vlans.retain(|other| *other != vlan);
        if add {
            vlans.push(vlan);
        }
        let fits = self.write_vlans(device);
        if !fits {
            // As it was: it cannot have been in it.
            self.all[number].vlans.pop();
        }
        fits
    }
}
