//! Flow rules: the card's L3/L4 five-tuple filters (section 7.1.2.5), of which it has 128 for IPv4.
//!
//! They lead to a queue; for a drop it is one that is never enabled, whose frames the card drops and counts (8.2.3.23, QPRDC).

use std::net::IpAddr;

use pagewire_ethdev::nic::{Device, Filters, Register};
use pagewire_ethdev::{FlowAction, FlowLimits, FlowProtocol, FlowRule};

use crate::registers::*;

/// What rules the card can follow.
pub(crate) const FLOWS: FlowLimits = FlowLimits { rules: FTQF.count, priorities: 7, ipv6: false, drop: true };
/// The queue that nobody enables: beyond all that can be started.
const DROP_QUEUE: u32 = 127;
/// The registers of a filter, that which makes it valid last.
const FILTER: [Register; 5] = [SAQF, DAQF, SDPQF, L34TIMIR, FTQF];

/// Write the filters. Those that are as they should be are left alone: frames may be coming in.
pub(crate) fn write(device: &Device, filters: &Filters) {
    let registers = &device.registers;
    let mut rules = filters.flows.iter().map(words);
    for index in 0..FTQF.count {
        let words = rules.next().unwrap_or_default();
        if FILTER.map(|register| registers.read_at(register, index)) == words {
            continue;
        }
        registers.write_at(FTQF, index, 0);
        FILTER.into_iter().zip(words).for_each(|(register, word)| registers.write_at(register, index, word));
    }
}

/// What the queue drops is counted in a set of its own.
pub(crate) fn count_drops(device: &Device) {
    let (word, shift) = (DROP_QUEUE as usize / 4, DROP_QUEUE % 4 * 8);
    device.registers.modify_at(RQSMR, word, 0xf << shift, DROP_SET << shift);
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
}
