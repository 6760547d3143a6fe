//! Virtual functions: frames between them, the wire and the physical function, each with memory of its own.

mod common;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::bench::{assert_nothing, bytes, count, receive, send};
use common::functions::*;
use common::liar::Liar;
use common::packets::{Flow, payload};
use common::{eventually, pool, space};
use pagewire_ethdev::{
    Error, FunctionConfig, MacAddr, Packet, PacketFlags, Port, PortConfig, RxOffloads, RxQueue,
    RxQueueConfig, TxOffloads, TxQueue, TxQueueConfig,
};
use pagewire_ixgbe::IxgbeRx;
use pagewire_models::ixgbe::Kind;
use pagewire_pci::wait_any;

#[test]
fn frames_go_where_their_address_is() {
    let mut served = serve(2);
    let mut physical = Physical::start(&served, &TWO, |_, _| ());
    let (mut a, mut b) = (Virtual::start(&served, 0), Virtual::start(&served, 1));
    assert!(a.mac != b.mac && a.mac != OWN && b.mac != OWN);
    assert_eq!(a.port.info().capabilities.rx_queues, 4, "as its physical function grants");

    // Within the card: nothing of it is seen outside.
    let sent = a.send(b.mac, b"from one to the other");
    assert_eq!(bytes(&b.receive()), sent);
    let sent = b.send(OWN, b"to the physical function");
    assert_eq!(bytes(&receive(&mut physical.rx, 1)[0][0]), sent);
    let sent = addressed(a.mac, OWN, b"and from it");
    let one = packet(&mut physical.pool, &sent);
    send(&mut physical.tx[0], vec![one]);
    assert_eq!(bytes(&a.receive()), sent);
    served.assert_nothing();

    // Out, and in.
    let sent = a.send(OUTSIDE, b"out");
    assert_eq!(served.take(), sent);
    for to in [a.mac, b.mac, OWN] {
        served.give(&addressed(to, OUTSIDE, b"in"));
    }
    for got in [a.receive(), b.receive(), receive(&mut physical.rx, 1).remove(0).remove(0)] {
        assert_eq!(got.len(), 60);
    }
    // What is for nobody is dropped.
    served.give(&addressed(MacAddr([2, 9, 9, 9, 9, 9]), OUTSIDE, b"for nobody"));

    // Everybody, but not who says it.
    let sent = a.send(MacAddr::BROADCAST, b"everybody");
    assert_eq!(bytes(&b.receive()), sent);
    assert_eq!(bytes(&receive(&mut physical.rx, 1)[0][0]), sent);
    assert_eq!(served.take(), sent);
    assert_nothing(&mut a.rx[0]);
    let came = addressed(MacAddr::BROADCAST, OUTSIDE, b"everybody here");
    served.give(&came);
    assert_eq!(bytes(&a.receive()), came);
    assert_eq!(bytes(&b.receive()), came);
    assert_eq!(bytes(&receive(&mut physical.rx, 1)[0][0]), came);

    // In another's name nobody gets anywhere.
    let forged = addressed(OUTSIDE, b.mac, b"not mine");
    let one = packet(&mut a.pool, &forged);
    send(&mut a.tx[0], vec![one]);
    served.assert_nothing();
    for queue in [&mut a.rx[0], &mut b.rx[0], &mut physical.rx[0]] {
        assert_nothing(queue);
    }
    a.stop();
    b.stop();
    served.assert_clean();
    physical.stop();
}

/// Plain packets rely on the context that says so, whatever others ask for meanwhile: the model complains if not.
#[test]
fn what_others_ask_for_does_not_move_plain_headers() {
    let mut served = serve(1);
    let physical = Physical::start(&served, &[FunctionConfig::default()], |_, _| ());
    let space = space();
    let mut port = open_vf(&served, 0, &space).unwrap();
    let config = PortConfig { tx_offloads: TxOffloads::UDP_CSUM, ..vf_config(&space, 1) };
    let (rx, tx) = port.start(config).unwrap();
    eventually("the function's link", || port.link().is_up());
    let mut vf = Virtual { mac: port.info().mac, port, rx, tx, pool: pool(&space, 64), space };
    let mut untagged = Flow::new(false).udp(&payload(64));
    untagged[..6].copy_from_slice(&OUTSIDE.0);
    untagged[6..12].copy_from_slice(&vf.mac.0);
    let mut tagged = untagged.clone();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    for round in 0..3 {
        for (frame, l2) in [(&untagged, 14), (&tagged, 18)] {
            let mut packet = packet(&mut vf.pool, frame);
            packet.set_flags(PacketFlags::TX_UDP_CSUM);
            packet.set_header_lens(l2, 20);
            send(&mut vf.tx[0], vec![packet]);
            assert_eq!(&served.take(), frame, "round {round}");
            let sent = vf.send(OUTSIDE, b"plain");
            assert_eq!(served.take(), sent, "round {round}");
        }
    }
    vf.stop();
    served.assert_clean();
    physical.stop();
}

#[test]
fn groups_and_vlans_are_asked_for() {
    let mut served = serve(2);
    let functions = [FunctionConfig { mac: None, trusted: true }, TWO[1]];
    let mut physical = Physical::start(&served, &functions, |_, _| ());
    let (mut a, mut b) = (Virtual::start(&served, 0), Virtual::start(&served, 1));
    let groups: [MacAddr; 2] = [MacAddr([1, 0, 0x5e, 1, 2, 3]), MacAddr([1, 0, 0x5e, 4, 5, 6])];
    served.give(&addressed(groups[0], OUTSIDE, b"to no one yet"));
    b.port.set_multicast(&groups[..1]).unwrap();
    let one = addressed(groups[0], OUTSIDE, b"to a group");
    served.give(&one);
    assert_eq!(bytes(&b.receive()), one);
    // One that is trusted may have all; one that is not is told so.
    a.port.set_all_multicast(true).unwrap();
    let error = b.port.set_all_multicast(true).unwrap_err();
    assert!(matches!(error, Error::Refused { what: "receiving", .. }), "{error}");
    let other = addressed(groups[1], OUTSIDE, b"to another group");
    served.give(&other);
    assert_eq!(bytes(&a.receive()), other);
    assert_nothing(&mut b.rx[0]);
    assert!(matches!(a.port.set_promiscuous(true), Err(Error::Unsupported { .. })));

    // VLANs: those that were asked for, and what has no tag.
    b.port.set_vlan_filter(Some(&[5, 100])).unwrap();
    let own = b.mac;
    let in_vlan = |vlan| tagged(own, OUTSIDE, vlan, b"in a VLAN");
    served.give(&in_vlan(7));
    served.give(&in_vlan(100));
    assert_eq!(bytes(&b.receive()), in_vlan(100));
    b.port.set_vlan_filter(Some(&[7])).unwrap();
    served.give(&in_vlan(100));
    served.give(&in_vlan(7));
    assert_eq!(bytes(&b.receive()), in_vlan(7));
    // What is in no function's VLAN is the port's, as what is for nobody: it gets it if it takes everything.
    let strays = receive(&mut physical.rx, 2).remove(0);
    assert_eq!(strays.iter().map(bytes).collect::<Vec<_>>(), [in_vlan(7), in_vlan(100)]);
    drop(strays);

    // Addresses: its own to choose, unless another has it.
    let mac = MacAddr([2, 7, 7, 7, 7, 7]);
    assert!(matches!(b.port.set_mac(a.mac), Err(Error::Refused { .. })));
    assert!(matches!(b.port.set_mac(OWN), Err(Error::Refused { .. })));
    assert_eq!(b.port.info().mac, b.mac, "as it was");
    b.port.set_mac(mac).unwrap();
    let one = addressed(mac, OUTSIDE, b"to the new address");
    served.give(&addressed(b.mac, OUTSIDE, b"to the old one"));
    served.give(&one);
    assert_eq!(bytes(&b.receive()), one);
    // And back to the one that it was given at first.
    b.port.set_mac(b.mac).unwrap();
    let one = addressed(b.mac, OUTSIDE, b"to the first address again");
    served.give(&addressed(mac, OUTSIDE, b"to the one between"));
    served.give(&one);
    assert_eq!(bytes(&b.receive()), one);
    drop(physical.port());
    a.stop();
    b.stop();
    served.assert_clean();
    physical.stop();
}

/// A VLAN that functions are in is the port's as well, which has them all; and nobody's who has not asked for it.
#[test]
fn vlans_of_functions_stay_the_ports() {
    let mut served = serve(2);
    let mut physical = Physical::start(&served, &TWO, |_, _| ());
    let (mut a, mut b) = (Virtual::start(&served, 0), Virtual::start(&served, 1));
    let group = MacAddr([1, 0, 0x5e, 1, 2, 3]);
    physical.port().set_multicast(&[group]).unwrap();
    for function in [&mut a, &mut b] {
        function.port.set_multicast(&[group]).unwrap();
    }
    // Whoever of a and b is in VLAN 100; the numbers below it come and go, and take no entry from it.
    type Vlans = &'static [u16];
    let steps: [(Vlans, Vlans); 6] = [
        (&[100], &[]),
        (&[100], &[5, 6]),
        (&[100], &[6, 100]),
        (&[7], &[100]),
        (&[7, 100], &[5]),
        (&[], &[]),
    ];
    for (of_a, of_b) in steps {
        a.port.set_vlan_filter(Some(of_a)).unwrap();
        b.port.set_vlan_filter(Some(of_b)).unwrap();
        for to in [MacAddr::BROADCAST, group] {
            let frame = tagged(to, OUTSIDE, 100, b"to all of VLAN 100");
            served.give(&frame);
            assert_eq!(bytes(&receive(&mut physical.rx, 1)[0][0]), frame, "{of_a:?}, {of_b:?}");
            for (function, vlans) in [(&mut a, of_a), (&mut b, of_b)] {
                match vlans.contains(&100) {
                    true => assert_eq!(bytes(&function.receive()), frame),
                    false => assert_nothing(&mut function.rx[0]),
                }
            }
        }
    }
    a.stop();
    b.stop();
    served.assert_clean();
    physical.stop();
}

/// With more pools than there are bits in a word, whose other word held anything before the start.
#[test]
fn what_is_for_one_function_of_many_is_for_no_other() {
    let mut served = serve(40);
    let all = vec![FunctionConfig::default(); 40];
    let mut physical = Physical::start(&served, &all, |_, _| ());
    let (mut a, mut b) = (Virtual::start(&served, 0), Virtual::start(&served, 39));
    for round in 0..2 {
        let (to, other) = if round == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let frame = addressed(to.mac, OUTSIDE, b"to one");
        served.give(&frame);
        assert_eq!(bytes(&to.receive()), frame);
        assert_nothing(&mut other.rx[0]);
        assert_nothing(&mut physical.rx[0]);
    }
    a.stop();
    b.stop();
    served.assert_clean();
    physical.stop();
}

/// RSS is the card's, and what it leads to a function's queues only those get that run.
#[test]
fn a_functions_queue_stops_while_others_run() {
    let mut served = serve(1);
    let physical = Physical::start(&served, &TWO[..1], |_, _| ());
    let space = space();
    let mut three = open_vf(&served, 0, &space).unwrap();
    let error = three.start(vf_config(&space, 3)).err().expect("a queue that would get nothing").to_string();
    assert!(
        error.contains("receive queues 3") && error.contains("a power of two of them, 4 at most"),
        "{error}"
    );
    drop(three);
    let mut vf = Virtual::start_in(&served, 0, &space, 4);
    let frames: Vec<Vec<u8>> = (0..40)
        .map(|port| {
            let mut frame = Flow { ports: (3000 + port * 7, 53), ..Flow::new(false) }.udp(&payload(64));
            frame[..6].copy_from_slice(&vf.mac.0);
            frame
        })
        .collect();
    let mut spread = |vf: &mut Virtual| -> Vec<bool> {
        frames.iter().for_each(|frame| served.give(frame));
        receive(&mut vf.rx, frames.len()).iter().map(|queue| !queue.is_empty()).collect()
    };
    assert_eq!(spread(&mut vf), [true; 4]);
    for (queue, expected) in [(3, [true, true, false].as_slice()), (2, &[true; 2]), (1, &[true])] {
        drop(vf.rx.remove(queue));
        vf.port.stop_rx_queue(queue as u16).unwrap();
        assert_eq!(spread(&mut vf), expected, "without queue {queue}");
    }
    for (queue, expected) in [(1, [true, true].as_slice()), (2, &[true, true, false]), (3, &[true; 4])] {
        let again = RxQueueConfig::new(wide_pool(&vf.space, 512), 64);
        vf.rx.push(vf.port.start_rx_queue(queue, again).unwrap());
        assert_eq!(spread(&mut vf), expected, "with queue {queue}");
    }
    vf.stop();
    served.assert_clean();
    physical.stop();
}

/// What a function is too slow for it has missed, not the port.
#[test]
fn functions_miss_on_their_own_account() {
    let mut served = serve(1);
    let physical = Physical::start(&served, &TWO[..1], |_, _| ());
    let mut vf = Virtual::start(&served, 0);
    let frame = addressed(vf.mac, OUTSIDE, b"to one who does not look");
    (0..200).for_each(|_| served.give(&frame));
    eventually("drops", || count(&mut *physical.port(), "rx_functions_no_descriptor_packets") == 200 - 63);
    assert_eq!(physical.port().stats().rx_missed, 0);
    assert_eq!(receive(&mut vf.rx, 63).remove(0).len(), 63);
    vf.stop();
    served.assert_clean();
    physical.stop();
}

/// A function's driver that has the card's driver believe it will not send long frames.
#[derive(Default)]
struct Modest {
    asked: u32,
}

impl Liar for Modest {
    fn written(&mut self, offset: u64, value: &mut u32) -> bool {
        const MAILBOX: u64 = 0x200;
        const SET_FRAME: u32 = 5;
        match offset {
            MAILBOX => self.asked = *value & 0xffff,
            _ if offset == MAILBOX + 4 && self.asked == SET_FRAME => *value = 1518,
            _ => {}
        }
        true
    }
}

/// Frames of a function's come to the port through the card's switch, which stops none for its length: the card writes no byte of a
/// fragment beside the one that it was given.
#[test]
fn long_frames_of_a_function_stay_in_their_fragments() {
    let served = serve_lied(Kind::I82599, 1, |_| Box::<Modest>::default());
    served.lying[0].store(true, Relaxed);
    let mut witnesses: Vec<Packet> = Vec::new();
    let mut physical = Physical::start(&served, &TWO[..1], |space, config| {
        let mut pool = pool(space, 512);
        // Of each page the card gets the first fragment; the second is held, headroom and all.
        witnesses = std::iter::from_fn(|| pool.alloc_packet()).collect();
        assert_eq!(witnesses.len(), 512);
        witnesses.retain(|packet| packet.iova() % 4096 >= 2048);
        assert_eq!(witnesses.len(), 256);
        for packet in &mut witnesses {
            packet.prepend(packet.headroom()).unwrap();
            packet.extend_from_slice(&vec![0; packet.tailroom()]).unwrap();
            packet.as_mut_slice().unwrap().fill(0xc5);
        }
        config.rx[0] = RxQueueConfig::new(pool, 64);
        config.rx_offloads = RxOffloads::SCATTER;
    });
    let space = space();
    let mut port = open_vf(&served, 0, &space).unwrap();
    let config = PortConfig { mtu: 3000, rx_offloads: RxOffloads::SCATTER, ..vf_config(&space, 1) };
    let (rx, tx) = port.start(config).unwrap();
    eventually("the function's link", || port.link().is_up());
    let mut vf = Virtual { mac: port.info().mac, port, rx, tx, pool: wide_pool(&space, 64), space };
    for round in 0..40 {
        for to in [OWN, MacAddr::BROADCAST] {
            vf.send(to, &vec![round; 2986]);
            let sent = vf.send(to, &vec![round; 1486]);
            let got = receive(&mut physical.rx, 1).remove(0);
            assert_eq!(got.iter().map(bytes).collect::<Vec<_>>(), [sent], "the longer one is dropped");
        }
    }
    let intact = |packet: &Packet| packet.as_slice().unwrap().iter().all(|byte| *byte == 0xc5);
    assert!(witnesses.iter().all(intact), "a fragment was written to that the card was not given");
    drop(witnesses);
    vf.stop();
    served.assert_clean();
    physical.stop();
}

/// Two functions of one space, as an application has them: what comes to one leaves through the other.
#[test]
fn two_functions_forward() {
    let mut served = serve(2);
    let physical = Physical::start(&served, &TWO, |_, _| ());
    let shared = space();
    let mut a = Virtual::start_in(&served, 0, &shared, 1);
    let mut b = Virtual::start_in(&served, 1, &shared, 1);
    for round in 0..20u8 {
        for n in 0..16u8 {
            served.give(&addressed(a.mac, OUTSIDE, &vec![round ^ n; 46 + usize::from(n) * 90]));
        }
        let mut packets = receive(&mut a.rx, 16).remove(0);
        for packet in &mut packets {
            let data = packet.as_mut_slice().unwrap();
            data[..6].copy_from_slice(&OUTSIDE.0);
            data[6..12].copy_from_slice(&b.mac.0);
        }
        send(&mut b.tx[0], packets);
        for n in 0..16u8 {
            let expected = addressed(OUTSIDE, b.mac, &vec![round ^ n; 46 + usize::from(n) * 90]);
            assert_eq!(served.take(), expected, "round {round}, frame {n}");
        }
    }
    // By the cards' own count, check sequences included.
    let bytes: u64 = (0..16u64).map(|n| (60 + n * 90) + 4).sum();
    assert_eq!(
        [count(&mut a.port, "rx_good_packets"), count(&mut a.port, "rx_good_bytes")],
        [320, 20 * bytes]
    );
    assert_eq!(
        [count(&mut b.port, "tx_good_packets"), count(&mut b.port, "tx_good_bytes")],
        [320, 20 * bytes]
    );
    assert_eq!(count(&mut b.port, "rx_good_packets"), 0);
    b.stop();
    a.stop();
    served.assert_clean();
    physical.stop();
}

/// Several queues each: a function's flows are spread over its own, the port's over the port's.
#[test]
fn flows_are_spread_within_a_pool() {
    for (functions, granted) in [(2, 4), (31, 2), (62, 2)] {
        let mut served = serve(functions);
        let all = vec![FunctionConfig::default(); functions.into()];
        let mut physical = Physical::start(&served, &all, |space, config| {
            config.rx.push(RxQueueConfig::new(wide_pool(space, 512), 64));
            config.tx.push(TxQueueConfig { descriptors: 64 });
        });
        let last = usize::from(functions) - 1;
        let mut vf = Virtual::start_in(&served, last, &space(), granted);
        let error = vf_with_too_many_queues(&served, granted + 1);
        assert!(error.contains(&format!("the port has {granted}")), "{error}");
        let mut frames = Vec::new();
        for port in 0..40 {
            let flow = Flow { ports: (3000 + port * 7, 53), ..Flow::new(false) };
            let mut frame = flow.udp(&payload(64));
            frame[..6].copy_from_slice(&vf.mac.0);
            frames.push(frame);
        }
        frames.iter().for_each(|frame| served.give(frame));
        let got = receive(&mut vf.rx, frames.len());
        assert!(
            got.iter().all(|queue| queue.len() > 2),
            "{:?}",
            got.iter().map(Vec::len).collect::<Vec<_>>()
        );
        drop(got);
        for frame in &mut frames {
            frame[..6].copy_from_slice(&OWN.0);
            served.give(frame);
        }
        let got = receive(&mut physical.rx, frames.len());
        assert!(
            got.iter().all(|queue| queue.len() > 2),
            "{:?}",
            got.iter().map(Vec::len).collect::<Vec<_>>()
        );
        drop(got);
        vf.stop();
        served.assert_clean();
        physical.stop();
    }
}

/// The port's queues, whatever the card's numbers of them are, have the port's vectors.
#[test]
fn the_queues_behind_functions_interrupt() {
    for functions in [2, 62] {
        let mut served = serve(functions);
        let all = vec![FunctionConfig::default(); functions.into()];
        let mut physical = Physical::start(&served, &all, |space, config| {
            config.rx.push(RxQueueConfig::new(wide_pool(space, 512), 64));
            config.rx_interrupts = Some(Duration::ZERO);
        });
        let fired = |queue: &IxgbeRx, limit| {
            wait_any(&[queue.interrupt().unwrap().as_fd()], Some(Duration::from_secs(limit))).unwrap()
        };
        let mut seen = [0; 2];
        for port in 0..20 {
            for queue in &physical.rx {
                queue.interrupt().unwrap().arm().unwrap();
                assert!(!fired(queue, 0));
            }
            let mut frame = Flow { ports: (3000 + port * 7, 53), ..Flow::new(false) }.udp(&payload(64));
            frame[..6].copy_from_slice(&OWN.0);
            served.give(&frame);
            let got = receive(&mut physical.rx, 1);
            for ((queue, got), seen) in physical.rx.iter().zip(&got).zip(&mut seen) {
                assert_eq!(fired(queue, 10 * got.len() as u64), !got.is_empty());
                *seen += got.len();
            }
        }
        assert!(seen[0] > 2 && seen[1] > 2, "{seen:?}");
        served.assert_clean();
        physical.stop();
    }
}

fn vf_with_too_many_queues(served: &Served, queues: usize) -> String {
    let space = space();
    let mut port = open_vf(served, 0, &space).unwrap();
    port.start(vf_config(&space, queues)).err().expect("more than there are").to_string()
}

/// Memory of one function is none of another's: the card reads a function's packets on the function's own bus.
#[test]
fn a_function_reaches_no_memory_but_its_own() {
    let mut served = serve(2);
    let mut physical = Physical::start(&served, &TWO, |_, _| ());
    let (mut a, mut b) = (Virtual::start(&served, 0), Virtual::start(&served, 1));
    let refused = |served: &Served| -> Vec<u64> {
        served.counters.iter().map(|counters| counters.refused_dma.load(Relaxed)).collect()
    };
    assert_eq!(refused(&served), [0, 0, 0]);
    // Made in the space of one, sent by another: it is to be read by whoever sends it, and is not mapped there.
    for (sender, counts) in [(0, [1, 0, 0]), (1, [1, 1, 0]), (2, [1, 1, 1])] {
        let from = [&mut a.pool, &mut b.pool, &mut physical.pool];
        let one = packet(from.into_iter().nth(sender).unwrap(), &addressed(OUTSIDE, OWN, b"not yours"));
        match sender {
            0 => send(&mut physical.tx[0], vec![one]),
            1 => send(&mut a.tx[0], vec![one]),
            _ => send(&mut b.tx[0], vec![one]),
        }
        eventually("the refusal", || refused(&served) == counts);
        served.assert_nothing();
    }
    eventually("what could not be sent comes home", || {
        physical.tx[0].reclaim();
        for queue in [&mut a.tx[0], &mut b.tx[0]] {
            queue.reclaim();
        }
        physical.tx[0].pending() + a.tx[0].pending() + b.tx[0].pending() == 0
    });
    // They go on.
    let sent = a.send(b.mac, b"mine");
    assert_eq!(bytes(&b.receive()), sent);
    a.stop();
    b.stop();
    physical.stop();
}
