//! The X540, the X550 and the X552: what they differ in from the 82599, driven on models that have those differences. `matrix.rs` has their features.

mod common;

use std::time::Duration;

use common::bench::{Bench, bytes, frame, receive, send};
use common::features::rss;
use common::functions::{OUTSIDE, Physical, Virtual, addressed, packet, serve_kind as serve_functions};
use common::liar::{Liar, Record};
use common::packets::{Flow, KEY, payload, uncut};
use common::{Running, config, eventually, fault, pool, serve, serve_kind, serve_on, space};
use pagewire_ethdev::{
    Error, FunctionConfig, Link, MacAddr, PacketType, Port, RssConfig, RxOffloads, RxQueueConfig,
    TxQueueConfig,
};
use pagewire_models::ixgbe::{Config, Kind};
use pagewire_models::wire::{Open, pair};

const LATER: [Kind; 3] = [Kind::X540, Kind::X550, Kind::X552];

fn card(kind: Kind, spoil: impl FnOnce(&mut common::Card)) -> Running {
    serve_kind(kind, false, 1, Box::new(Open), spoil)
}

/// Who it is, its flash and PHY by their semaphores, its smaller packet buffer: the model complains of what is not as it is to be.
#[test]
fn each_talks_to_an_82599() {
    for kind in LATER {
        let (one, two) = pair();
        let first = serve_kind(kind, false, 1, Box::new(one), |card| {
            // A cage it has none.
            card.model.control().set_module(false);
        });
        let second = serve_on(false, 2, Box::new(two), |_| ());
        let space = space();
        let (mut a, mut b) = (first.open_in(&space).unwrap(), second.open_in(&space).unwrap());
        assert_eq!(a.info().mac, MacAddr([2, 0, 0, 0, 0, 1]));
        let (mut a_rx, mut a_tx) = a.start(config(&space)).unwrap();
        let (mut b_rx, mut b_tx) = b.start(config(&space)).unwrap();
        eventually("both links", || a.link().is_up() && b.link().is_up());
        let mut pool = pool(&space, 256);
        let coalesces = a.info().capabilities.rx_offloads.contains(RxOffloads::LRO);
        assert_eq!(coalesces, kind != Kind::X552);
        for len in [60, 61, 777, 1514] {
            for (tx, rx) in [(&mut a_tx, &mut b_rx), (&mut b_tx, &mut a_rx)] {
                let data = frame(MacAddr::BROADCAST, len);
                let one = packet(&mut pool, &data);
                send(&mut tx[0], vec![one]);
                assert_eq!(bytes(&receive(rx, 1)[0][0]), data);
            }
        }
        // A start anew resets the MAC, and leaves the PHY awake.
        drop((a_rx, a_tx));
        a.stop().unwrap();
        let queues = a.start(config(&space)).unwrap();
        eventually("the link", || a.link().is_up());
        drop((queues, b_rx, b_tx));
        a.stop().unwrap();
        b.stop().unwrap();
        first.assert_clean();
        second.assert_clean();
    }
}

/// The sections of PHY and option ROM are none of the checksum's business, though the 82599's are.
#[test]
fn the_checksum_leaves_out_what_is_not_the_macs() {
    let spoil = |card: &mut common::Card| {
        // Pointers to a section of one word, and what makes up for them and not for it.
        card.model.set_eeprom_word(0x200, 1);
        card.model.set_eeprom_word(0x201, 0x1111);
        card.model.set_eeprom_word(4, 0x200);
        card.model.set_eeprom_word(5, 0x200);
        let sum: u16 = 0xffffu16.wrapping_mul(2).wrapping_sub(0x400);
        card.model.add_to_eeprom_word(0x3f, sum);
    };
    for kind in LATER {
        let card = card(kind, spoil);
        card.open().unwrap();
        card.assert_clean();
    }
    let other = serve(false, spoil);
    let error = other.open().err().expect("a wrong sum");
    assert!(error.to_string().contains("the sum of the EEPROM's words"), "{error}");
}

/// The X550's takes in two more words, another pointer, and the last word of a section that does not say how long it is.
#[test]
fn the_checksum_of_the_x550_covers_more() {
    for (kind, word, counts) in [
        (Kind::X540, 0x41, false),
        (Kind::X550, 0x41, true),
        (Kind::X550, 0x42, false),
        (Kind::X550, 0x60, true),
        (Kind::X550, 0x60 + 0x23, true),
        (Kind::X550, 0x60 + 0x24, false),
        (Kind::X552, 0x60 + 0x23, true),
    ] {
        let card = card(kind, |card| card.model.add_to_eeprom_word(word, 1));
        let error = card.open().err().map(|error| error.to_string());
        assert_eq!(error.is_some(), counts, "{kind:?}, word {word:#x}: {error:?}");
        assert!(error.is_none_or(|error| error.contains("the sum of the EEPROM's words is 0xbabb")));
    }
}

/// Nor a section that does not lie within the EEPROM, by its pointer or its length: the 82599 is refused with one.
#[test]
fn the_checksum_leaves_out_sections_that_lie_outside() {
    for pointer in [0x3fff, 0x4000, 0xfffe, 0x3f00, 0x3ffe] {
        let spoil = |card: &mut common::Card| {
            // It would end right behind the last word.
            card.model.set_eeprom_word(0x3f00, 0x100);
            card.model.set_eeprom_word(0x3ffe, 2);
            card.model.set_eeprom_word(0x3fff, 2);
            card.model.set_eeprom_word(0x0c, pointer);
            // There was none.
            card.model.add_to_eeprom_word(0x3f, 0xffffu16.wrapping_sub(pointer));
        };
        for kind in LATER {
            let card = card(kind, spoil);
            card.open().unwrap();
            card.assert_clean();
        }
        assert!(serve(false, spoil).open().is_err(), "{pointer:#06x}");
    }
    // One word less, and it counts.
    for kind in LATER {
        let card = card(kind, |card| {
            card.model.set_eeprom_word(0x3f00, 0xff);
            card.model.set_eeprom_word(0x0c, 0x3f00);
            card.model.add_to_eeprom_word(0x3f, 0xffff - 0x3f00);
        });
        let error = card.open().err().expect("a wrong sum").to_string();
        assert!(error.contains("the sum of the EEPROM's words"), "{error}");
    }
}

#[test]
fn a_semaphore_or_a_phy_that_does_not_answer_is_an_error() {
    for kind in LATER {
        let card = card(kind, |_| ());
        card.set_faults(fault::REGSMP_HELD);
        let error = common::within(10, || card.open().err().expect("no semaphore"));
        assert!(matches!(error, Error::Timeout { what: "taking SW_FW_SYNC.REGSMP", .. }), "{error}");
        card.set_faults(0);
        let (space, mut port) = card.open().unwrap();
        card.set_faults(fault::PHY_SILENT);
        let error = common::within(10, || port.start(config(&space)).err().expect("no PHY"));
        assert!(
            matches!(error, Error::Timeout { .. }) && error.to_string().contains("talking to the PHY"),
            "{error}"
        );
        card.set_faults(0);
        let queues = port.start(config(&space)).unwrap();
        drop(queues);
        port.stop().unwrap();
        card.assert_clean();
    }
}

/// Without it there is no EEPROM to be read, and a port that runs can be stopped all the same.
#[test]
fn a_firmware_that_does_not_answer_is_an_error() {
    for (fault, expected) in [
        (fault::HOST_CLOSED, "the firmware's host interface is closed"),
        (fault::HOST_SILENT, "asking the firmware did not end"),
        (fault::HOST_REFUSES, "the firmware's answer is none to command 0x31"),
        (fault::HOST_BUSY, "waiting for the firmware to take commands did not end"),
        (fault::HOST_ANSWERS_ANOTHER, "to command 0x0a and not 0x31"),
    ] {
        let card = card(Kind::X550, |_| ());
        card.set_faults(fault);
        let error = common::within(10, || card.open().err().expect("no firmware")).to_string();
        assert!(error.contains(expected), "{error}");
        card.set_faults(0);
        let (space, mut port) = card.open().unwrap();
        let queues = port.start(config(&space)).unwrap();
        drop(queues);
        card.set_faults(fault);
        common::within(10, || port.stop().unwrap());
        assert_eq!(card.logged("the receive path is closed without its firmware"), 1, "{:?}", card.log());
    }
}

/// However long its firmware takes for all the words, nobody has reason to take their owner for dead.
#[test]
fn the_flash_is_given_back_in_between() {
    /// A firmware that takes its time, and what becomes of SW_FW_SYNC.
    struct Slow(Record);
    impl Liar for Slow {
        fn read(&mut self, offset: u64, value: u32) -> u32 {
            if offset == 0x15f00 {
                std::thread::sleep(Duration::from_millis(60));
            }
            value
        }
        fn written(&mut self, offset: u64, value: &mut u32) -> bool {
            offset != 0x10160 || self.0.written(offset, value)
        }
    }
    let record = Record::default();
    let card = card(Kind::X550, |card| card.liar = Box::new(Slow(record.clone())));
    card.lie(true);
    card.open().unwrap();
    let (mut since, mut longest, mut all) = (None, Duration::ZERO, Duration::ZERO);
    for (_, value, when) in record.take() {
        match since {
            None if value & 1 != 0 => since = Some(when),
            Some(start) if value & 1 == 0 => {
                (longest, all) = (longest.max(when - start), all + (when - start));
                since = None;
            }
            _ => {}
        }
    }
    println!("owned for {all:?}, {longest:?} at once");
    assert!(since.is_none() && all > Duration::from_secs(1) && longest < Duration::from_secs(1));
    card.lie(false);
    card.assert_clean();
}

/// The sideband is the processor's, and may say no.
#[test]
fn a_sideband_that_refuses_is_an_error() {
    let card = card(Kind::X552, |_| ());
    let (space, mut port) = card.open().unwrap();
    card.set_faults(fault::SIDEBAND_REFUSES);
    let error = port.start(config(&space)).err().expect("no PHY").to_string();
    assert!(error.contains("the sideband's answer is a refusal of register 0x420c"), "{error}");
    card.set_faults(0);
    drop(port.start(config(&space)).unwrap());
    port.stop().unwrap();
}

/// Speeds of a twisted pair, of which the X550 has two more, and of a backplane.
#[test]
fn the_link_has_the_speed_that_the_phy_agreed_on() {
    for (kind, speeds) in [
        (Kind::X540, &[100, 1000, 10_000][..]),
        (Kind::X550, &[100, 1000, 2500, 5000, 10_000]),
        (Kind::X552, &[1000, 10_000]),
    ] {
        let card = card(kind, |_| ());
        let (space, mut port) = card.open().unwrap();
        let queues = port.start(config(&space)).unwrap();
        for &mbps in speeds {
            card.control.set_cable(false);
            eventually("no link", || !port.link().is_up());
            card.control.set_speed(mbps);
            card.control.set_cable(true);
            eventually("the link", || port.link().is_up());
            assert_eq!(port.link(), Link::Up { mbps, full_duplex: true }, "{kind:?}");
        }
        drop(queues);
        port.stop().unwrap();
    }
}

/// 512 entries, and 64 queues that they lead to.
#[test]
fn the_x550_spreads_over_64_queues() {
    let table: Vec<u16> = (0..512).map(|entry| (entry * 7 / 3 % 64) as u16).collect();
    let card = Config { kind: Kind::X550, ..Config::default() };
    let (mut bench, _) = Bench::watched(
        card,
        |space, config| {
            config.rx = (0..64).map(|_| RxQueueConfig::new(pool(space, 70), 32)).collect();
            config.tx = vec![TxQueueConfig { descriptors: 32 }; 2];
            config.rss = RssConfig { key: Some(KEY.into()), table: Some(table.clone()), types: None };
        },
        |_| (),
    );
    let capabilities = &bench.b.port.info().capabilities;
    assert_eq!((capabilities.rx_queues, capabilities.rss.table), (64, 512));
    let mut reached = std::collections::BTreeSet::new();
    for port in 0..600 {
        let flow = Flow { ports: (1000 + port, 80), ..Flow::new(port % 2 == 0) };
        let data = uncut(flow, &payload(40));
        let packet = bench.packet(&data, &[data.len()]);
        let got = bench.pass(vec![packet], 1);
        let hash = rss(&KEY, &data, flow, PacketType::TCP);
        let queue = table[hash as usize % 512];
        assert_eq!(got[usize::from(queue)].first().and_then(|packet| packet.rss_hash()), Some(hash));
        reached.insert(queue);
    }
    assert!(reached.len() > 60, "{reached:?}");
    bench.finish();
}

/// Interrupts there are of 16 queues, and an 82599 has no more queues than that.
#[test]
fn more_queues_than_there_are_is_an_error() {
    let start = |kind, queues: usize, interrupts: bool| {
        let card = card(kind, |_| ());
        let (space, mut port) = card.open().unwrap();
        let mut config = config(&space);
        config.rx = (0..queues).map(|_| RxQueueConfig::new(pool(&space, 70), 32)).collect();
        config.rx_interrupts = interrupts.then(|| Duration::from_micros(50));
        port.start(config).err().map(|error| error.to_string())
    };
    assert_eq!(start(Kind::X550, 17, false), None);
    let error = start(Kind::X550, 17, true).expect("no vector for the last");
    assert!(error.contains("number of receive queues 17") && error.contains("16 queues with"), "{error}");
    let error = start(Kind::X540, 17, false).expect("no such queue");
    assert!(error.contains("receive queues 17"), "{error}");
}

#[test]
fn functions_of_each_are_driven_as_well() {
    for kind in LATER {
        let mut served = serve_functions(kind, 1);
        let physical = Physical::start(&served, &[FunctionConfig::default()], |_, _| ());
        let mut vf = Virtual::start(&served, 0);
        let sent = vf.send(OUTSIDE, b"out");
        assert_eq!(served.take(), sent);
        let came = addressed(vf.mac, OUTSIDE, b"in");
        served.give(&came);
        assert_eq!(bytes(&vf.receive()), came);
        vf.stop();
        served.assert_clean();
        physical.stop();
    }
}

/// What nobody here has seen work is not taken for what it is like.
#[test]
fn cards_of_the_family_that_are_not_known_are_refused() {
    for id in [0x15aa, 0x15ac, 0x15ad, 0x15c8, 0x10f8, 0x151c] {
        let card = serve(false, |card| card.device_id = id);
        let error = card.open().err().expect("not known").to_string();
        assert!(error.contains(&format!("8086:{id:04x}")) && error.contains("X552"), "{error}");
    }
}
