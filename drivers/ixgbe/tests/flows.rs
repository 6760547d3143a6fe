//! Flow rules: to a queue, or nowhere, whatever RSS says.

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;

use common::bench::{Bench, assert_nothing, count, receive, send};
use common::liar::Record;
use common::packets::{Flow, payload, tcp_header};
use common::{config, pool, serve};
use pagewire_ethdev::nic::testing::Random;
use pagewire_ethdev::{
    Error, FlowAction, FlowProtocol, FlowRule, Port, PortConfig, RssConfig, RxQueueConfig,
};
use pagewire_pci::AddressSpace;

/// A card whose RSS leads everything to queue 1 of 4.
fn bench() -> Bench {
    Bench::new(false, four_queues)
}

fn four_queues(space: &AddressSpace, config: &mut PortConfig) {
    for _ in 1..4 {
        config.rx.push(RxQueueConfig::new(pool(space, 512), 64));
    }
    config.rss = RssConfig { table: Some(vec![1; 128]), ..RssConfig::default() };
}

fn ip(last: u8) -> Option<IpAddr> {
    Some([10, 0, 0, last].into())
}

/// Where a frame goes.
fn goes(bench: &mut Bench, data: &[u8]) -> Option<usize> {
    let dropped = count(&mut bench.b.port, "rx_flow_dropped_packets");
    let good = count(&mut bench.b.port, "rx_good_packets");
    let packets = bench.packets([&data.to_vec()]);
    send(&mut bench.a.tx[0], packets);
    common::eventually("the frame", || count(&mut bench.b.port, "rx_good_packets") == good + 1);
    if count(&mut bench.b.port, "rx_flow_dropped_packets") > dropped {
        bench.b.rx.iter_mut().for_each(assert_nothing);
        return None;
    }
    receive(&mut bench.b.rx, 1).iter().position(|packets| !packets.is_empty())
}

#[test]
fn every_field_is_looked_at_if_given_and_only_then() {
    let mut bench = bench();
    let whole = FlowRule {
        source: ip(1),
        destination: ip(2),
        protocol: Some(FlowProtocol::Udp),
        source_port: Some(0x1234),
        destination_port: Some(53),
        ..FlowRule::new(FlowAction::Queue(3))
    };
    let flow = Flow { ports: (0x1234, 53), hosts: (1, 2), ..Flow::new(false) };
    let data = payload(80);
    let other = [
        Flow { hosts: (3, 2), ..flow }.udp(&data),
        Flow { hosts: (1, 3), ..flow }.udp(&data),
        flow.tcp(&tcp_header(1), &data),
        Flow { ports: (0x3412, 53), ..flow }.udp(&data),
        Flow { ports: (0x1234, 54), ..flow }.udp(&data),
    ];
    let ignoring = [
        FlowRule { source: None, ..whole },
        FlowRule { destination: None, ..whole },
        FlowRule { protocol: None, ..whole },
        FlowRule { source_port: None, ..whole },
        FlowRule { destination_port: None, ..whole },
    ];
    bench.b.port.set_flows(&[whole]).unwrap();
    assert_eq!(goes(&mut bench, &flow.udp(&data)), Some(3));
    for (field, other) in other.iter().enumerate() {
        assert_eq!(goes(&mut bench, other), Some(1), "field {field}");
    }
    for (field, rule) in ignoring.into_iter().enumerate() {
        bench.b.port.set_flows(&[rule]).unwrap();
        for (number, other) in other.iter().enumerate() {
            let expected = if number == field { 3 } else { 1 };
            assert_eq!(goes(&mut bench, other), Some(expected), "field {number} without {field}");
        }
    }
    // Neither the other version of IP, nor the rest of a datagram, whatever looks like ports in it.
    bench.b.port.set_flows(&[FlowRule { source: None, destination: None, ..whole }]).unwrap();
    assert_eq!(goes(&mut bench, &flow.udp(&data)), Some(3));
    assert_eq!(goes(&mut bench, &Flow { v6: true, ..flow }.udp(&data)), Some(1));
    assert_eq!(goes(&mut bench, &flow.fragment(&data)), Some(1));
    bench.b.port.set_flows(&[]).unwrap();
    assert_eq!(goes(&mut bench, &flow.udp(&data)), Some(1));
    bench.finish();
}

#[test]
fn the_higher_priority_wins_and_drops_are_counted_apart() {
    for mapped in [false, true] {
        the_higher_priority_wins(Bench::new(mapped, four_queues));
    }
}

fn the_higher_priority_wins(mut bench: Bench) {
    let sctp = FlowRule { protocol: Some(FlowProtocol::Sctp), ..FlowRule::new(FlowAction::Queue(2)) };
    let rules = [
        FlowRule { priority: 0, ..FlowRule::new(FlowAction::Drop) },
        FlowRule { priority: 4, ..sctp },
        FlowRule { priority: 6, source: ip(9), action: FlowAction::Queue(0), ..sctp },
        FlowRule { priority: 5, source: ip(9), action: FlowAction::Drop, ..sctp },
    ];
    let data = payload(80);
    let packets = [1, 9].map(|host| Flow { hosts: (host, 2), ..Flow::new(false) }.sctp(&data));
    // In every order.
    for turn in 0..rules.len() {
        let mut turned = rules;
        turned.rotate_left(turn);
        bench.b.port.set_flows(&turned).unwrap();
        assert_eq!([goes(&mut bench, &packets[0]), goes(&mut bench, &packets[1])], [Some(2), Some(0)]);
        assert_eq!(goes(&mut bench, &Flow::new(false).udp(&data)), None);
    }
    bench.b.port.set_flows(&[rules[3], rules[1]]).unwrap();
    assert_eq!([goes(&mut bench, &packets[0]), goes(&mut bench, &packets[1])], [Some(2), None]);
    // What rules drop is not missed.
    let stats = bench.b.port.stats();
    assert_eq!((stats.rx_missed, stats.rx_errors), (0, 0));
    assert_eq!(count(&mut bench.b.port, "rx_flow_dropped_packets"), 5);
    bench.finish();
}

#[test]
fn all_128_rules_are_followed() {
    let mut bench = bench();
    let rule = |number: u16| FlowRule {
        protocol: Some(FlowProtocol::Udp),
        source_port: Some(1000 + number),
        ..FlowRule::new(FlowAction::Queue(number % 4))
    };
    let rules: Vec<FlowRule> = (0..128).map(rule).collect();
    bench.b.port.set_flows(&rules).unwrap();
    for number in [0, 1, 63, 66, 127] {
        let flow = Flow { ports: (1000 + number, 7), ..Flow::new(false) };
        assert_eq!(goes(&mut bench, &flow.udp(&payload(64))), Some(usize::from(number % 4)), "rule {number}");
    }
    let error = bench.b.port.set_flows(&[rules, vec![rule(128)]].concat()).unwrap_err().to_string();
    assert!(error.contains("number of flow rules 129 is not possible; the port has 128"), "{error}");
    bench.finish();
}

#[test]
fn what_the_card_cannot_follow_is_refused_and_a_stop_forgets() {
    let mut bench = bench();
    let rule = FlowRule::new(FlowAction::Queue(3));
    let whole_of_ipv4 = FlowRule { source: ip(1), ..rule };
    bench.b.port.set_flows(&[rule]).unwrap();
    for (bad, expected) in [
        (
            FlowRule { source: Some("fd01::1".parse().unwrap()), ..rule },
            "address fd01::1 is not possible; the port has rules for IPv4",
        ),
        (
            FlowRule { destination: Some("fd01::1".parse().unwrap()), ..whole_of_ipv4 },
            "address fd01::1 is not possible; the port has rules for IPv4",
        ),
        (FlowRule { priority: 7, ..rule }, "priority 7 is not possible; the port has priorities 0 to 6"),
        (FlowRule::new(FlowAction::Queue(4)), "queue 4 is not possible; the port has 4 receive queues"),
    ] {
        let error = bench.b.port.set_flows(&[FlowRule::new(FlowAction::Drop), bad]).unwrap_err();
        assert!(
            matches!(error, Error::Unsupported { .. }) && error.to_string().contains(expected),
            "{error}"
        );
    }
    // None of those counted.
    let data = Flow::new(false).udp(&payload(64));
    assert_eq!(goes(&mut bench, &data), Some(3));
    bench.b.rx.clear();
    bench.b.tx.clear();
    bench.b.port.stop().unwrap();
    assert!(matches!(bench.b.port.set_flows(&[]), Err(Error::State { .. })));
    (bench.b.rx, bench.b.tx) = bench.b.port.start(config(&bench.space)).unwrap();
    common::eventually("the link", || bench.b.port.link().is_up());
    assert_eq!(goes(&mut bench, &data), Some(0));
    bench.finish();

    let running = serve(false, |_| ());
    let (_space, mut port) = running.open().unwrap();
    assert!(matches!(port.set_flows(&[rule]), Err(Error::State { .. })));
    running.assert_clean();
}

/// Rules are changed while packets come in: whatever the card has between two writes is a rule of before or after, and one of both is never
/// missing.
#[test]
fn at_no_moment_has_the_card_a_rule_that_nobody_set() {
    /// Offsets of SAQF, DAQF, SDPQF, L34TIMIR and FTQF.
    const FILTER: [u64; 5] = [0xe000, 0xe200, 0xe400, 0xe800, 0xe600];
    const VALID: u32 = 1 << 31;
    let mut random = Random::new();
    let record = Record::default();
    let mut bench = Bench::spoiled(false, four_queues, |card| card.liar = Box::new(record.clone()));
    bench.b.running.lie(true);
    record.take();
    let mut registers = BTreeMap::<u64, u32>::new();
    let valid = |registers: &BTreeMap<u64, u32>| -> Vec<[u32; 5]> {
        let word = |offset| registers.get(&offset).copied().unwrap_or(0);
        let filters = (0..128).map(|index| FILTER.map(|first| word(first + 4 * index)));
        filters.filter(|words| words[4] & VALID != 0).collect()
    };
    let mut changes = 0;
    for most in [3, 10, 60, 128, 128, 5] {
        let rules: Vec<FlowRule> = (0..most)
            .map(|_| FlowRule {
                source: ip(random.below(150) as u8),
                protocol: Some(FlowProtocol::Udp),
                priority: random.below(7) as u8,
                ..FlowRule::new(FlowAction::Queue(random.below(4) as u16))
            })
            .collect();
        bench.b.port.set_flows(&rules).unwrap();
        let before = valid(&registers);
        let written = record.take();
        let mut all = registers.clone();
        all.extend(written.iter().map(|(offset, value, _)| (*offset, *value)));
        let after = valid(&all);
        assert_eq!(after.len(), most);
        for (offset, value, _) in written {
            registers.insert(offset, value);
            let now = valid(&registers);
            assert!(now.iter().all(|words| before.contains(words) || after.contains(words)), "{offset:#x}");
            assert!(before.iter().all(|words| !after.contains(words) || now.contains(words)), "{offset:#x}");
            changes += 1;
        }
    }
    println!("{changes} writes");
    assert!(changes > 1000, "{changes} writes");
    bench.b.running.lie(false);
    bench.finish();
}
