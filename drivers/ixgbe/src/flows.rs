//! Flow rules: the card's L3/L4 five-tuple filters (section 7.1.2.5), of which it has 128 for IPv4.
//!
//! They lead to a queue; for a drop it is one that is never enabled, whose frames the card drops and counts (8.2.3.23, QPRDC).

use std::cmp::Reverse;
use std::net::IpAddr;

use pagewire_ethdev::nic::{Device, Filters, Register};
use pagewire_ethdev::{FlowAction, FlowLimits, FlowProtocol, FlowRule};

use crate::registers::*;
use crate::statistics;

/// What rules the card can follow.
pub(crate) const FLOWS: FlowLimits = FlowLimits { rules: FTQF.count, priorities: 7, ipv6: false, drop: true };
/// The queue that nobody enables: beyond all that can be started.
const DROP_QUEUE: u32 = 127;
/// The registers of a filter, that which makes it valid last.
const FILTER: [Register; 5] = [SAQF, DAQF, SDPQF, L34TIMIR, FTQF];

/// Write the filters. Frames may be coming in: see [`steps`].
pub(crate) fn write(device: &Device, filters: &Filters) {
    let registers = &device.registers;
    let held = (0..FTQF.count).map(|index| FILTER.map(|register| registers.read_at(register, index)));
    for (index, words) in steps(&held.collect::<Vec<_>>(), filters.flows.iter().map(words).collect()) {
        match words {
            Some(words) => FILTER
                .into_iter()
                .zip(words)
                .for_each(|(register, word)| registers.write_at(register, index, word)),
            None => registers.write_at(FTQF, index, 0),
        }
    }
}

/// What to write where, in this order, `None` to make a filter invalid.
///
/// What is there and is wanted stays, and no filter is changed that is valid. New ones come before old ones go, the highest priority
/// first, and the lowest goes first: in between a packet goes where it went before, or where it is to go. Only if there is not room
/// for all of both do some old ones go before the new ones come.
fn steps(held: &[[u32; 5]], mut wanted: Vec<[u32; 5]>) -> Vec<(usize, Option<[u32; 5]>)> {
    let priority = |words: &[u32; 5]| words[4] >> ftqf::PRIORITY_SHIFT & ftqf::PRIORITY;
    let (mut old, mut free, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for (index, words) in held.iter().enumerate() {
        if words[4] & ftqf::ENABLE == 0 {
            free.push(index);
        } else if let Some(at) = wanted.iter().position(|wanted| wanted == words) {
            wanted.swap_remove(at);
        } else {
            old.push(index);
        }
    }
    old.sort_by_key(|index| priority(&held[*index]));
    wanted.sort_by_key(|words| Reverse(priority(words)));
    let mut old = old.into_iter();
    for words in wanted {
        let Some(index) = free.pop().or_else(|| {
            let index = old.next()?;
            steps.push((index, None));
            Some(index)
        }) else {
            break;
        };
        steps.push((index, Some(words)));
    }
    steps.extend(old.map(|index| (index, None)));
    steps
}

/// What the queue drops is counted in a set of its own.
pub(crate) fn count_drops(device: &Device) {
    statistics::count_in(device, DROP_QUEUE as usize, DROP_SET);
}

/// A rule as the registers have it: addresses and ports as on the wire, and a bit for each field that is not looked at.
fn words(rule: &FlowRule) -> [u32; 5] {
    let address = |address: Option<IpAddr>| match address {
        Some(IpAddr::V4(address)) => u32::from_le_bytes(address.octets()),
        // Of IPv6 there are no rules.
        _ => 0,
    };
    let port = |port: Option<u16>| u32::from(port.unwrap_or(0).swap_bytes());
    // The card's lowest is 1; 0 is reserved.
    let priority = u32::from(rule.priority) + 1;
    let mut filter = ftqf::ENABLE | ftqf::ANY_POOL | priority << ftqf::PRIORITY_SHIFT;
    filter |= match rule.protocol {
        Some(FlowProtocol::Tcp) => ftqf::TCP,
        Some(FlowProtocol::Udp) => ftqf::UDP,
        Some(FlowProtocol::Sctp) => ftqf::SCTP,
        None => ftqf::ANY_PROTOCOL,
    };
    for (given, any) in [
        (rule.source.is_some(), ftqf::ANY_SOURCE),
        (rule.destination.is_some(), ftqf::ANY_DESTINATION),
        (rule.source_port.is_some(), ftqf::ANY_SOURCE_PORT),
        (rule.destination_port.is_some(), ftqf::ANY_DESTINATION_PORT),
    ] {
        filter |= if given { 0 } else { any };
    }
    let queue = match rule.action {
        FlowAction::Queue(queue) => queue.into(),
        FlowAction::Drop => DROP_QUEUE,
    };
    [
        address(rule.source),
        address(rule.destination),
        port(rule.source_port) | port(rule.destination_port) << 16,
        L34TIMIR_RESERVED | queue << L34TIMIR_QUEUE_SHIFT,
        filter,
    ]
}

#[cfg(test)]
mod tests {
    use pagewire_ethdev::nic::testing::Random;

    use super::*;

    #[test]
    fn a_rule_is_what_the_datasheet_has() {
        let mut rule = FlowRule::new(FlowAction::Queue(5));
        assert_eq!(words(&rule), [0, 0, 0, 5 << 21 | 1 << 19, 0xfe00_0000 | 1 << 2]);
        rule.source = Some("10.1.2.3".parse().unwrap());
        rule.destination_port = Some(0x1234);
        (rule.protocol, rule.priority, rule.action) = (Some(FlowProtocol::Sctp), 6, FlowAction::Drop);
        // Bits 25 to 29: source, destination, source port, destination port, protocol.
        let filter = 1 << 31 | 1 << 30 | 1 << 27 | 1 << 26 | 7 << 2 | 2;
        assert_eq!(words(&rule), [0x0302_010a, 0, 0x3412_0000, 127 << 21 | 1 << 19, filter]);
    }

    /// Those of the valid filters in `all` that a packet satisfies and of which none has a higher priority. `packet` decides by a filter's
    /// addresses, which are numbers here.
    fn winners(all: &[[u32; 5]], packet: u64) -> Vec<[u32; 5]> {
        let matching = all.iter().filter(|words| words[4] & ftqf::ENABLE != 0 && packet >> words[0] & 1 != 0);
        let mut matching: Vec<_> = matching.copied().collect();
        let highest = matching.iter().map(|words| words[4]).max();
        matching.retain(|words| Some(words[4]) == highest);
        matching
    }

    #[test]
    fn at_no_moment_does_a_packet_go_where_it_neither_went_nor_is_to_go() {
        let mut random = Random::new();
        for round in 0..2000 {
            // Filters of which each is one of 40, whatever its priority.
            let rules: Vec<[u32; 5]> = (0..40)
                .map(|number| {
                    let priority = 1 + random.below(7) as u32;
                    [number, 0, 0, 0, ftqf::ENABLE | priority << ftqf::PRIORITY_SHIFT]
                })
                .collect();
            let mut pick = || -> Vec<[u32; 5]> {
                let (of, all) = (random.next() & random.next(), random.next());
                rules.iter().filter(|words| (of & all) >> words[0] & 1 != 0).copied().collect()
            };
            let (old, new) = (pick(), pick());
            let mut held = vec![[0; 5]; 40];
            for words in &old {
                let free = (0..).map(|_| random.below(40) as usize).find(|index| held[*index][4] == 0);
                held[free.unwrap()] = *words;
            }
            let room = old.len() + new.len() <= held.len();
            for (index, words) in steps(&held.clone(), new.clone()) {
                assert!(words.is_none() || held[index][4] & ftqf::ENABLE == 0, "round {round}");
                held[index] = words.unwrap_or_default();
                let packet = random.next();
                let (before, after) = (winners(&old, packet), winners(&new, packet));
                let now = winners(&held, packet);
                assert!(now.iter().all(|words| old.contains(words) || new.contains(words)));
                let possible = now.iter().all(|words| before.contains(words) || after.contains(words));
                let somewhere = !now.is_empty() || before.is_empty() || after.is_empty();
                assert!(!room || possible && somewhere, "round {round}: {now:?} of {before:?}, {after:?}");
            }
            held.retain(|words| words[4] & ftqf::ENABLE != 0);
            held.sort();
            assert_eq!(held, new, "round {round}");
        }
    }
}
