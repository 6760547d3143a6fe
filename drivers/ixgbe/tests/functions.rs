//! Virtual functions: frames between them, the wire and the physical function, each with memory of its own; what they may ask; and what
//! becomes of them when either side is reset.

mod common;

use common::bench::{assert_nothing, bytes, receive, send};
use common::functions::*;
use common::packets::{Flow, payload};
use common::{config, eventually, pool, space};
use pagewire_ethdev::{
    Error, FunctionConfig, Link, MacAddr, Port, PortConfig, RxQueue, RxQueueConfig, TxQueue, TxQueueConfig,
};
use pagewire_ixgbe::{Ixgbe, IxgbeVf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const TWO: [FunctionConfig; 2] = [FunctionConfig { mac: None, trusted: false }; 2];

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
    drop(physical.port());
    a.stop();
    b.stop();
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
    let count = |port: &mut IxgbeVf, name: &str| {
        port.xstats().into_iter().find(|stat| stat.name == name).expect(name).value
    };
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
            config.rx.push(RxQueueConfig::new(pool(space, 512), 64));
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
        let (from, tx) = match sender {
            0 => (&mut a.pool, &mut physical.tx[0]),
            1 => (&mut b.pool, &mut a.tx[0]),
            _ => (&mut physical.pool, &mut b.tx[0]),
        };
        let one = packet(from, &addressed(OUTSIDE, OWN, b"not yours"));
        send(tx, vec![one]);
        eventually("the refusal", || refused(&served) == counts);
        served.assert_nothing();
    }
    let queues = [&mut physical.tx[0], &mut a.tx[0], &mut b.tx[0]];
    for queue in queues {
        eventually("what could not be sent comes home", || {
            queue.reclaim();
            queue.pending() == 0
        });
    }
    // They go on.
    let sent = a.send(b.mac, b"mine");
    assert_eq!(bytes(&b.receive()), sent);
    a.stop();
    b.stop();
    physical.stop();
}

#[test]
fn without_a_driver_for_the_card_a_function_says_so() {
    let served = serve(1);
    let error = common::within(5, || open_vf(&served, 0, &space()).err().expect("no answer")).to_string();
    assert!(
        error.contains("physical function") && error.contains("started with virtual functions"),
        "{error}"
    );
    // One that is there and has none to look after is no better.
    let space = space();
    let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&served.paths[0]).unwrap()).unwrap();
    let (rx, tx) = port.start(config(&space)).unwrap();
    let error = common::within(5, || open_vf(&served, 0, &common::space()).err().expect("no answer"));
    assert!(matches!(error, Error::Device { .. }), "{error}");
    drop((rx, tx));
    // And one that does not answer.
    port.stop().unwrap();
    let asked = PortConfig { functions: TWO[..1].to_vec(), ..config(&space) };
    let queues = port.start(asked).unwrap();
    let error = common::within(5, || open_vf(&served, 0, &common::space()).err().expect("no answer"));
    assert!(error.to_string().contains("has not answered within 1 s"), "{error}");
    drop(queues);
    port.stop().unwrap();
}

/// The physical function goes and comes: its functions notice, stop, and start again when it is back.
#[test]
fn the_physical_function_goes_and_comes_back() {
    let mut served = serve(2);
    let mut physical = Physical::start(&served, &TWO, |_, _| ());
    let mut a = Virtual::start(&served, 0);
    for _ in 0..3 {
        assert!(a.port.check().is_ok());
        physical.stop();
        eventually("a notice", || a.port.check().is_err());
        assert!(matches!(a.port.check(), Err(Error::WasReset { .. })), "until it is started again");
        assert_eq!(a.port.link(), Link::Down);
        // Its queues are dead and harmless.
        a.send(OUTSIDE, b"to nobody");
        served.assert_nothing();
        drop((std::mem::take(&mut a.rx), std::mem::take(&mut a.tx)));
        a.port.stop().unwrap();
        let error = a.port.start(vf_config(&a.space, 1)).err().expect("nobody to talk to");
        assert!(matches!(error, Error::Device { .. }), "{error}");
        physical = Physical::start(&served, &TWO, |_, _| ());
        (a.rx, a.tx) = a.port.start(vf_config(&a.space, 1)).unwrap();
        assert_eq!(a.port.info().mac, a.mac, "its address is its own");
        eventually("the link", || a.port.link().is_up());
        let sent = a.send(OUTSIDE, b"there again");
        assert_eq!(served.take(), sent);
    }
    a.stop();
    served.assert_clean();
    physical.stop();
}

/// A function that is reset, or whose process dies, is forgotten by the card: what was for it is for nobody.
#[test]
fn a_function_goes_and_comes_back() {
    let mut served = serve(2);
    let physical = Physical::start(&served, &TWO, |_, _| ());
    let mut b = Virtual::start(&served, 1);
    for _ in 0..3 {
        let mut a = Virtual::start(&served, 0);
        a.port.set_vlan_filter(Some(&[9])).unwrap();
        a.port.set_multicast(&[MacAddr([1, 0, 0x5e, 9, 9, 9])]).unwrap();
        let sent = b.send(a.mac, b"there");
        assert_eq!(bytes(&a.receive()), sent);
        let mac = a.mac;
        // As when its process dies: nothing is said to anybody.
        drop(a);
        eventually("the card has forgotten it", || {
            b.send(mac, b"gone");
            let mut frame = Vec::new();
            std::thread::sleep(std::time::Duration::from_millis(5));
            // What is for no address here goes out.
            pagewire_models::wire::Wire::receive(&mut served.wire, &mut frame).is_some()
        });
        while pagewire_models::wire::Wire::receive(&mut served.wire, &mut Vec::new()).is_some() {}
    }
    b.stop();
    served.assert_clean();
    physical.stop();
}

/// Whatever stands in the mailbox, the answer is no, and the card and the others go on.
#[test]
fn garbage_in_the_mailbox_is_refused() {
    const VFMAILBOX: usize = 0x2fc;
    const VFMBMEM: usize = 0x200;
    let mut served = serve(2);
    let mut physical = Physical::start(&served, &TWO, |_, _| ());
    let mut b = Virtual::start(&served, 1);
    let space = space();
    let function = space.open_vfio_user(&served.paths[1]).unwrap();
    let bar = function.bar(0).unwrap();
    let ask = |question: &[u32]| {
        let mut seen = 0;
        let mut status = |bit: u32| {
            seen |= bar.read32(VFMAILBOX);
            seen & bit != 0
        };
        // Ours, and what was said before is not the answer.
        eventually("the mailbox", || {
            bar.write32(VFMAILBOX, 1 << 2);
            bar.read32(VFMAILBOX) & 1 << 2 != 0
        });
        (0..16).for_each(|n| bar.write32(VFMBMEM + 4 * n, question.get(n).copied().unwrap_or(0)));
        bar.write32(VFMAILBOX, 1);
        eventually("an answer", || status(1 << 4));
        let answer: [u32; 4] = std::array::from_fn(|n| bar.read32(VFMBMEM + 4 * n));
        bar.write32(VFMAILBOX, 1 << 1);
        answer
    };
    let no = |question: u32, answer: u32| {
        assert_eq!(answer & 0xc000_0000, 0x4000_0000, "{question:#x} was answered by {answer:#x}");
    };
    // Before it has said that it is there nothing is granted, whatever it says.
    eventually("the card is ready", || bar.read32(VFMAILBOX) & 0x40 == 0);
    for kind in (0..0x20).filter(|kind| *kind != 1) {
        no(kind, ask(&[kind, 3])[0]);
    }
    assert_eq!(ask(&[1])[0], 0x8000_0001, "its reset is answered");
    assert_eq!(ask(&[8, 3])[0], 0xa000_0008, "version 1.2 is known");
    let broken: &[&[u32]] = &[
        &[0],
        &[7],
        &[8, 1],
        &[8, 77],
        &[10],
        &[11],
        &[0xffff_ffff, 1, 2, 3],
        &[2, 0, 0],
        &[2, 0x0100_5e01, 0],
        &[2, 0x0000_0002, 0x0100],
        &[3 | 31 << 16, u32::MAX],
        &[3 | 255 << 16],
        &[4 | 1 << 16, 4095],
        &[4 | 1 << 16, u32::MAX],
        &[5, 0],
        &[5, 63],
        &[5, 1519],
        &[5, u32::MAX],
        &[6 | 1 << 16, 2, 3],
        &[12, 2],
        &[12, 3],
        &[12, u32::MAX],
        &[0x100],
    ];
    for question in broken {
        no(question[0], ask(question)[0]);
    }
    // More VLANs than there is room for.
    let granted = (0..100).filter(|vlan| ask(&[4 | 1 << 16, *vlan])[0] & 1 << 31 != 0).count();
    assert_eq!(granted, 64);
    // At random, with a seed that is told.
    let mut state = 0x1234_5678_9abc_def1u64;
    for round in 0..300 {
        let question: Vec<u32> = (0..16)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 16) as u32
            })
            .collect();
        // A kind that there is, every other time.
        let first = if round % 2 == 0 { question[0] & 0xff_000f } else { question[0] };
        let answer = ask(&[&[first], &question[1..]].concat())[0];
        assert!(answer & 0xc000_0000 != 0 && answer & 0xffff == first & 0xffff, "round {round}: {answer:#x}");
    }
    // Asking without waiting, or keeping the mailbox, holds nobody up.
    (0..50).for_each(|_| bar.write32(VFMAILBOX, 0xf));
    bar.write32(VFMAILBOX, 1 << 2);
    let sent = b.send(OWN, b"meanwhile");
    assert_eq!(bytes(&receive(&mut physical.rx, 1)[0][0]), sent);
    b.port.set_multicast(&[MacAddr([1, 2, 3, 4, 5, 6])]).unwrap();
    b.stop();
    drop((bar, function));
    let a = Virtual::start(&served, 0);
    a.stop();
    let _ = &mut served;
    served.assert_clean();
    physical.stop();
}

/// The card is pulled out: with it all its functions, which end in errors and give everything back.
#[test]
fn a_card_that_is_pulled_out_takes_its_functions_along() {
    let served = serve(1);
    let space = space();
    let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&served.paths[0]).unwrap()).unwrap();
    let queues = port.start(PortConfig { functions: TWO[..1].to_vec(), ..config(&space) }).unwrap();
    let port = Arc::new(Mutex::new(port));
    let (answering, stop) = (port.clone(), Arc::new(AtomicBool::new(false)));
    let told = stop.clone();
    let answers = std::thread::spawn(move || {
        let mut last = Ok(());
        while !told.load(Relaxed) && last.is_ok() {
            last = answering.lock().unwrap().serve_functions();
            std::thread::sleep(Duration::from_micros(500));
        }
        last
    });
    let mut vf = Virtual::start(&served, 0);
    drop(served);
    eventually("a notice", || vf.port.check().is_err());
    assert!(matches!(vf.port.check(), Err(Error::Gone { .. })));
    assert_eq!(vf.port.link(), Link::Down);
    let error = common::within(10, || vf.port.set_mac(MacAddr([2; 6])).unwrap_err());
    assert!(matches!(error, Error::Device { .. }), "{error}");
    vf.send(OUTSIDE, b"to nobody");
    common::within(10, || drop(vf));
    let answered = common::within(10, || answers.join().unwrap());
    assert!(matches!(answered, Err(Error::Gone { .. })), "{answered:?}");
    stop.store(true, Relaxed);
    drop(queues);
}

/// What happens to a function's link, or to its physical function, raises its interrupt.
#[test]
fn a_function_is_told_by_interrupt() {
    let served = serve(1);
    let physical = Physical::start(&served, &TWO[..1], |_, _| ());
    let mut vf = Virtual::start(&served, 0);
    let has_fired = |vf: &Virtual| {
        let interrupt = vf.port.link_interrupt().expect("MSI-X");
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(&interrupt, rustix::event::PollFlags::IN)],
            Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
        )
        .unwrap()
            == 1
    };
    // That of its start.
    eventually("quiet", || {
        vf.port.link();
        std::thread::sleep(Duration::from_millis(5));
        !has_fired(&vf)
    });
    for up in [false, true] {
        served.controls[0].set_cable(up);
        eventually("an interrupt", || has_fired(&vf));
        eventually("the link", || vf.port.link().is_up() == up);
        std::thread::sleep(Duration::from_millis(20));
        vf.port.link();
        assert!(!has_fired(&vf));
    }
    physical.stop();
    eventually("an interrupt", || has_fired(&vf));
    assert!(matches!(vf.port.check(), Err(Error::WasReset { .. })));
    drop((std::mem::take(&mut vf.rx), std::mem::take(&mut vf.tx)));
    vf.port.stop().unwrap();
    served.assert_clean();
}

/// A physical function that says what none says: an error in bounded time, or bounded to what there can be.
#[test]
fn nonsense_from_the_physical_function_is_bounded() {
    const PFMAILBOX: usize = 0x4b00;
    const PFMBMEM: usize = 0x13000;
    type Answers = fn(u32) -> [u32; 5];
    let cases: [(Answers, &str); 6] = [
        (|_| [0; 5], "0x00000000"),
        (|_| [u32::MAX; 5], "0xffffffff"),
        (|kind| [(kind + 1) | 1 << 31, 2, 0, 0, 0], "granted or refused"),
        (|kind| [kind | 3 << 30, 2, 0, 0, 0], "granted or refused"),
        // A group's address, and queues without end: it makes an address up, and has eight.
        (|kind| [kind | 1 << 31, u32::MAX, u32::MAX, u32::MAX, u32::MAX], ""),
        // Everything but its reset is refused: version 1.0, one queue.
        (|kind| [kind | if kind == 1 { 1 << 31 } else { 1 << 30 }, 2, 7 << 8, 0, 0], ""),
    ];
    for (number, (answers, expected)) in cases.into_iter().enumerate() {
        let served = serve(1);
        let space = space();
        let card = space.open_vfio_user(&served.paths[0]).unwrap();
        let bar = card.bar(0).unwrap();
        bar.write32(0x18, 1 << 14);
        let done = std::sync::atomic::AtomicBool::new(false);
        let opened = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    let asked = bar.read32(0x710);
                    bar.write32(0x710, asked);
                    if asked & 1 != 0 {
                        let kind = bar.read32(PFMBMEM) & 0xffff;
                        for (word, value) in answers(kind).into_iter().enumerate() {
                            bar.write32(PFMBMEM + 4 * word, value);
                        }
                        bar.write32(PFMAILBOX, 3);
                    }
                }
            });
            let opened = common::within(10, || open_vf(&served, 0, &common::space()));
            done.store(true, Relaxed);
            opened
        });
        match (opened, expected) {
            (Ok(port), "") => {
                let info = port.info();
                let queues = if number == 4 { 8 } else { 1 };
                assert_eq!(info.capabilities.rx_queues, queues);
                assert!(info.mac.is_valid_unicast());
                assert_eq!(info.mac.0 == [2, 0, 0, 0, 0, 7], number == 5, "{}", info.mac);
            }
            (Err(error), expected) => {
                assert!(
                    !expected.is_empty() && error.to_string().contains(expected),
                    "case {number}: {error}"
                );
            }
            (Ok(_), expected) => panic!("case {number}: {expected}"),
        }
    }
}

#[test]
fn what_cannot_be_beside_functions_is_refused() {
    let served = serve(2);
    let space = space();
    let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&served.paths[0]).unwrap()).unwrap();
    let mac = |last| Some(MacAddr([2, 0, 0, 0, 0, last]));
    let functions = |macs: &[Option<MacAddr>]| -> Vec<FunctionConfig> {
        macs.iter().map(|mac| FunctionConfig { mac: *mac, trusted: false }).collect()
    };
    for (asked, expected) in [
        (functions(&[None; 63]), "virtual functions 63 is not possible; the port has 62"),
        (functions(&[mac(5), mac(5)]), "an address of its own"),
        (functions(&[mac(1)]), "an address of its own"),
        (functions(&[Some(MacAddr::BROADCAST)]), "an address of its own"),
    ] {
        let config = PortConfig { functions: asked, ..config(&space) };
        let error = port.start(config).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut several = PortConfig { functions: TWO.to_vec(), ..config(&space) };
    for _ in 0..2 {
        several.rx.push(RxQueueConfig::new(pool(&space, 512), 64));
    }
    let error = port.start(several).err().expect("three queues").to_string();
    assert!(error.contains("1, 2 or 4 of its own beside 2 virtual functions"), "{error}");
    let (rx, tx) = port.start(PortConfig { functions: TWO.to_vec(), ..config(&space) }).unwrap();
    assert!(matches!(port.set_vlan_filter(Some(&[5])), Err(Error::Unsupported { .. })));
    port.set_vlan_filter(None).unwrap();
    let rule = pagewire_ethdev::FlowRule::new(pagewire_ethdev::FlowAction::Drop);
    assert!(matches!(port.set_flows(&[rule]), Err(Error::Unsupported { .. })));
    let many: Vec<MacAddr> = (0..126).map(|n| MacAddr([2, 1, 0, 0, 0, n])).collect();
    assert!(matches!(port.set_extra_unicast(&many), Err(Error::Unsupported { .. })));
    port.set_extra_unicast(&many[..125]).unwrap();
    drop((rx, tx));
    port.stop().unwrap();
    served.assert_clean();
}

/// A function may have no more than is its physical function's to give.
#[test]
fn a_longer_mtu_than_the_cards_is_refused() {
    let mut served = serve(1);
    let physical = Physical::start(&served, &TWO[..1], |_, config| config.mtu = 1600);
    let space = space();
    let mut port = open_vf(&served, 0, &space).unwrap();
    let refused = PortConfig { mtu: 1601, ..vf_config(&space, 1) };
    let error = port.start(refused).err().expect("too long");
    assert!(error.to_string().contains("refuses an MTU of 1601"), "{error}");
    let (mut rx, tx) = port.start(PortConfig { mtu: 1600, ..vf_config(&space, 1) }).unwrap();
    let mac = port.info().mac;
    let long = addressed(mac, OUTSIDE, &vec![7; 1600]);
    served.give(&long);
    assert_eq!(bytes(&receive(&mut rx, 1)[0][0]), long);
    let mut tx = tx;
    tx[0].reclaim();
    assert_eq!(rx[0].posted(), 64);
    drop((rx, tx));
    port.stop().unwrap();
    served.assert_clean();
    physical.stop();
}
