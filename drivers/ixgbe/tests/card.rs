//! The driver on the model of the card: opening, link, module, and everything that may be wrong with a card.

mod common;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use common::functions::{TWO, beside};
use common::{Card, Running, config, eventually, fault, serve, serve_kind};
use pagewire_ethdev::{Error, Link, MacAddr, Port};
use pagewire_ixgbe::Ixgbe;
use pagewire_models::ixgbe::{Config, Kind};
use pagewire_models::wire::Open;

const UP: Link = Link::Up { mbps: 10_000, full_duplex: true };

/// Where the EEPROM's checksum is, where the address, and where the list of set-ups by module.
const CHECKSUM: usize = 0x3f;
const ADDRESS: usize = 0x51;
const SET_UP_POINTER: usize = 0x2b;

fn started(running: &Running) -> (impl Sized, Ixgbe) {
    let (space, mut port) = running.open().unwrap();
    let queues = port.start(config(&space)).unwrap();
    ((space, queues), port)
}

fn error(running: &Running) -> String {
    match running.open() {
        Ok(_) => panic!("a card that cannot be opened was"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn opens_starts_and_stops() {
    for mapped in [false, true] {
        let running = serve(mapped, |_| ());
        let before = Instant::now();
        let (space, mut port) = running.open().unwrap();
        println!("mapped {mapped}: opened in {:?}", before.elapsed());
        let info = port.info();
        assert_eq!((info.driver, info.mac), ("net_ixgbe", MacAddr([2, 0, 0, 0, 0, 1])));
        assert_eq!(port.link(), Link::Down, "a port that is not started");
        for _ in 0..3 {
            let before = Instant::now();
            let queues = port.start(config(&space)).unwrap();
            println!("mapped {mapped}: started in {:?}", before.elapsed());
            eventually("the link", || port.link() == UP);
            drop(queues);
            port.stop().unwrap();
            assert_eq!(port.link(), Link::Down, "a port that is stopped");
        }
        assert_eq!(running.logged("SFP+ module 10GBASE-SR: pagewire MODEL-10G-SR"), 1, "{:?}", running.log());
        assert_eq!(running.logged("WARN"), 0, "{:?}", running.log());
        running.assert_clean();
    }
}

#[test]
fn link_changes_are_seen_by_asking_and_by_interrupt() {
    for mapped in [false, true] {
        let running = serve(mapped, |_| ());
        let (_queues, mut port) = started(&running);
        eventually("the link", || port.link() == UP);
        let readable = |port: &mut Ixgbe, link| {
            let fd = port.event_interrupt().expect("the model has MSI-X").as_raw_fd();
            let path = format!("/proc/self/fdinfo/{fd}");
            // The count of an eventfd is in its fdinfo.
            eventually("an interrupt", || {
                let info = std::fs::read_to_string(&path).unwrap();
                info.lines().any(|line| line.starts_with("eventfd-count:") && !line.ends_with(" 0"))
            });
            assert_eq!(port.link(), link);
        };
        for _ in 0..3 {
            running.control.set_cable(false);
            readable(&mut port, Link::Down);
            running.control.set_cable(true);
            readable(&mut port, UP);
        }
        running.assert_clean();
    }
}

#[test]
fn a_module_may_come_and_go() {
    let running = serve(false, |card| card.model.control().set_module(false));
    let (_queues, mut port) = started(&running);
    assert_eq!(port.link(), Link::Down);
    assert_eq!(running.logged("no SFP+ module in the cage"), 1, "said at open, and not again");
    for round in 1..3 {
        running.control.set_module(true);
        eventually("the link", || port.link() == UP);
        assert_eq!(running.logged("SFP+ module 10GBASE-SR"), round);
        running.control.set_module(false);
        eventually("no link", || port.link() == Link::Down);
        assert_eq!(running.logged("no SFP+ module"), round + 1);
    }
    running.assert_clean();
}

/// A new module is read when the link is asked for, which may take half a second; who waits for answers does not wait for that.
#[test]
fn functions_are_served_without_a_look_at_the_module() {
    let running = common::serve_as(Config { functions: 1, ..Config::default() }, Box::new(Open), |card| {
        card.model.control().set_module(false);
    });
    let (space, mut port) = running.open().unwrap();
    let queues = port.start(beside(&space, &TWO[..1])).unwrap();
    running.control.set_module(true);
    for _ in 0..3 {
        port.serve_functions().unwrap();
    }
    assert_eq!(running.logged("SFP+ module 10GBASE-SR"), 0, "{:?}", running.log());
    eventually("the link", || port.link() == UP);
    assert_eq!(running.logged("SFP+ module 10GBASE-SR"), 1);
    port.serve_functions().unwrap();
    drop(queues);
    port.stop().unwrap();
    running.assert_clean();
}

#[test]
fn no_module_is_refused() {
    type Change = &'static [(u8, u8)];
    let cases: [(Change, &str, usize); 5] = [
        // Nothing it could be; the checksum still holds.
        (&[(3, 0x00), (6, 0x00), (7, 0x11)], "WARN", 1),
        // QSFP+.
        (&[(0, 0x0d), (7, 0xf6)], "identifier 0x0d", 1),
        (&[(63, 0x00)], "wrong checksum", 1),
        (&[(3, 0x00), (8, 0x04), (7, 0x0c)], "passive direct-attach copper", 1),
        (&[(3, 0x20), (7, 0xf0)], "10GBASE-LR", 1),
    ];
    for (changes, said, times) in cases {
        let running = serve(false, |card| {
            changes.iter().for_each(|(at, value)| card.model.set_module_byte(*at, *value));
        });
        let (_queues, mut port) = started(&running);
        eventually("the link", || port.link() == UP);
        assert_eq!(running.logged(said), times, "{changes:?}: {:?}", running.log());
        running.assert_clean();
    }
}

#[test]
fn a_module_without_set_up_is_tried_and_a_list_without_end_is_not() {
    // The checksum covers word 0x2b and not the list.
    let list = 0x140;
    let running = serve(false, |card| card.model.set_eeprom_word(list + 1, 0xffff));
    let (_queues, mut port) = started(&running);
    eventually("the link", || port.link() == UP);
    assert_eq!(running.logged("no set-up number 5"), 1, "{:?}", running.log());
    running.assert_clean();

    // All of it is set-up number 5.
    let running = serve(false, |card| {
        (list..0x4000).for_each(|word| card.model.set_eeprom_word(word, 5));
        card.model.set_eeprom_word(list + 2, list as u16);
    });
    let (space, mut port) = running.open().unwrap();
    let error = port.start(config(&space)).err().expect("no set-up is that long").to_string();
    assert!(error.contains("without end"), "{error}");

    // Pointing to the end of the EEPROM.
    let running = serve(false, |card| mend(card, &[(SET_UP_POINTER, 0x3fff)]));
    let (space, mut port) = running.open().unwrap();
    let error = port.start(config(&space)).err().expect("there is no such word").to_string();
    assert!(error.contains("an address in the EEPROM is 0x4000"), "{error}");
}

/// Change words of the EEPROM, and mend its checksum. The words were `before`.
fn mend(card: &mut Card, changes: &[(usize, u16)]) {
    // What the model's EEPROM has at first: see its own tests. The address is that of card 1.
    let before = |word| match word {
        ADDRESS => 0x0002,
        SET_UP_POINTER => 0x0140,
        _ => panic!("word {word:#x} is not known"),
    };
    let mut shift = 0u16;
    for &(word, value) in changes {
        shift = shift.wrapping_add(value).wrapping_sub(before(word));
        card.model.set_eeprom_word(word, value);
    }
    let sum = checksum(card);
    card.model.set_eeprom_word(CHECKSUM, sum.wrapping_sub(shift));
}

/// What the EEPROM's checksum word is.
fn checksum(card: &mut Card) -> u16 {
    struct Nobody;
    impl pagewire_models::Host for Nobody {
        fn dma_read(&mut self, iova: u64, data: &mut [u8]) -> Result<(), pagewire_models::DmaError> {
            Err(pagewire_models::DmaError { iova, len: data.len(), write: false })
        }
        fn dma_write(&mut self, iova: u64, data: &[u8]) -> Result<(), pagewire_models::DmaError> {
            Err(pagewire_models::DmaError { iova, len: data.len(), write: true })
        }
        fn interrupt(&mut self, _: u16) {}
        fn shared_read(&mut self, _: pagewire_models::Region, _: u64) -> u32 {
            0
        }
        fn shared_write(&mut self, _: pagewire_models::Region, _: u64, _: u32) {}
    }
    use pagewire_models::{Function, Region};
    let mut word = [0; 4];
    let start = (CHECKSUM as u32) << 2 | 1;
    card.model.write(Region::Bar(0), 0x10014, &start.to_le_bytes(), &mut Nobody);
    card.model.read(Region::Bar(0), 0x10014, &mut word, &mut Nobody);
    u16::from_le_bytes([word[2], word[3]])
}

#[test]
fn what_the_eeprom_holds_is_checked() {
    let running = serve(false, |card| card.model.set_eeprom_word(0x10, 0x1234));
    let found = error(&running);
    assert!(found.contains("the sum of the EEPROM's words is 0xccef, expected 0xbaba"), "{found}");

    // Section 3 has more words than the EEPROM.
    let running = serve(false, |card| card.model.set_eeprom_word(0x58, 0xfffe));
    assert!(error(&running).contains("word 0x03 points to 65534 words"), "{}", error(&running));
    let running = serve(false, |card| card.model.set_eeprom_word(0x03, 0xfffe));
    assert!(error(&running).contains("an address in the EEPROM is 0xfffe"), "{}", error(&running));

    // A group's address.
    let running = serve(false, |card| mend(card, &[(ADDRESS, 0x0003)]));
    let found = error(&running);
    assert!(found.contains("RAL0/RAH0 is 03:00:00:00:00:01"), "{found}");
}

#[test]
fn other_kinds_of_82599_are_refused_before_anything_is_written() {
    for device_id in [0x10f7, 0x1517, 0x151c, 0x1558, 0x10ed] {
        let running = serve(false, |card| card.device_id = device_id);
        let found = error(&running);
        assert!(found.contains(&format!("8086:{device_id:04x}")), "{found}");
        assert!(found.contains("10GBASE-T"), "{found}");
    }
    let running = serve(false, |card| card.device_id = 0x1557);
    running.open().unwrap();
}

#[test]
fn a_card_that_does_not_come_out_of_reset_is_an_error() {
    for (faults, expected) in [
        (fault::STAYS_IN_RESET, "reset did not end within 100 ms (register CTRL reads"),
        (fault::RESETS_NOTHING, "reset of the receive ring did not end"),
        (fault::NO_DMA, "register RDRXCTL"),
        (fault::NO_EEPROM, "register EEC"),
        (fault::EEPROM_SILENT, "register EERD"),
        (fault::GONE, "register CTRL reads 0xffffffff"),
    ] {
        let running = serve(false, |_| ());
        running.set_faults(faults);
        let before = Instant::now();
        let found = error(&running);
        assert!(found.contains(expected), "{found}");
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    }
}

#[test]
fn dma_that_never_ends_takes_two_resets() {
    let running = serve(false, |_| ());
    running.set_faults(fault::DMA_NEVER_ENDS);
    running.open().unwrap();
    assert!(running.logged("resetting the card twice") > 0, "{:?}", running.log());
    running.assert_clean();
}

#[test]
fn semaphores_that_nobody_gives_back_are_taken() {
    let take = |kind, faults, said| {
        let running = serve_kind(kind, false, 1, Box::new(Open), |_| ());
        running.set_faults(faults);
        let before = Instant::now();
        let (_queues, mut port) = started(&running);
        println!("{kind}: {said}: opened and started in {:?}", before.elapsed());
        assert!(before.elapsed() < Duration::from_secs(10));
        eventually("the link", || port.link() == UP);
        assert!(running.logged(said) > 0, "{:?}", running.log());
        running.assert_clean();
    };
    // At once: it is waiting that takes the time.
    std::thread::scope(|scope| {
        for kind in Kind::ALL {
            scope.spawn(move || take(kind, fault::SMBI_HELD, "SWSM.SMBI was never given back"));
            scope.spawn(move || take(kind, fault::FIRMWARE_OWNS, "firmware or another driver owns"));
        }
    });
}

#[test]
fn what_cannot_be_started_says_why() {
    for (faults, expected) in [
        (fault::SWESMBI_HELD, "taking SWSM.SWESMBI did not end"),
        (fault::LINK_STUCK, "restarting the link did not end"),
        (fault::QUEUES_STUCK, "enabling a receive queue did not end"),
        (fault::GONE, "register CTRL reads 0xffffffff"),
    ] {
        let running = serve(false, |_| ());
        let (space, mut port) = running.open().unwrap();
        running.set_faults(faults);
        let before = Instant::now();
        let found = port.start(config(&space)).err().expect("a start that fails");
        assert!(matches!(found, Error::Timeout { .. }), "{found}");
        assert!(found.to_string().contains(expected), "{found}");
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
        // And works again once the card does.
        running.set_faults(0);
        let _queues = port.start(config(&space)).unwrap();
        eventually("the link", || port.link() == UP);
    }
}

#[test]
fn a_receive_path_that_never_runs_dry_is_opened_all_the_same() {
    let running = serve(false, |_| ());
    running.set_faults(fault::NEVER_DRY);
    let (_queues, mut port) = started(&running);
    eventually("the link", || port.link() == UP);
    assert_eq!(running.logged("emptying the receive path"), 1);
}

#[test]
fn the_firmwares_veto_leaves_the_link_alone() {
    let running = serve(false, |_| ());
    running.set_faults(fault::VETO);
    let (queues, mut port) = started(&running);
    eventually("the link", || port.link() == UP);
    assert_eq!(running.logged("management firmware"), 1);
    drop(queues);
    port.stop().unwrap();
    running.assert_clean();
}

#[test]
fn a_card_that_is_pulled_out_ends_in_errors_and_not_in_nonsense() {
    let running = serve(false, |_| ());
    let (queues, mut port) = started(&running);
    eventually("the link", || port.link() == UP);
    running.set_faults(fault::GONE);
    assert_eq!(port.link(), Link::Down);
    let stats = port.stats();
    assert_eq!((stats.rx_missed, stats.rx_errors, stats.tx_errors), (0, 0, 0));
    drop(queues);
    let before = Instant::now();
    assert!(matches!(port.stop(), Err(Error::Timeout { .. })));
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}
