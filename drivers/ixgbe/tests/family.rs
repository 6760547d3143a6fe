//! The X540: what it differs in from the 82599, driven on a model that has those differences.

mod common;

use common::bench::{bytes, frame, receive, send};
use common::functions::{OUTSIDE, Physical, Virtual, addressed, packet, serve_kind as serve_functions};
use common::{Running, config, eventually, fault, pool, serve, serve_kind, serve_on, space};
use pagewire_ethdev::{Error, FunctionConfig, MacAddr, Port};
use pagewire_models::ixgbe::Kind;
use pagewire_models::wire::{Open, pair};

fn x540(spoil: impl FnOnce(&mut common::Card)) -> Running {
    serve_kind(Kind::X540, false, 1, Box::new(Open), spoil)
}

/// Who it is, its flash and PHY by their semaphores, its smaller packet buffer: the model complains of what is not as it is to be.
#[test]
fn an_x540_talks_to_an_82599() {
    let (one, two) = pair();
    let first = serve_kind(Kind::X540, false, 1, Box::new(one), |card| {
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
    let card = x540(spoil);
    card.open().unwrap();
    card.assert_clean();
    let other = serve(false, spoil);
    let error = other.open().err().expect("a wrong sum");
    assert!(error.to_string().contains("the sum of the EEPROM's words"), "{error}");
}

#[test]
fn a_semaphore_or_a_phy_that_does_not_answer_is_an_error() {
    let card = x540(|_| ());
    card.set_faults(fault::REGSMP_HELD);
    let error = common::within(10, || card.open().err().expect("no semaphore"));
    assert!(matches!(error, Error::Timeout { what: "taking SW_FW_SYNC.REGSMP", .. }), "{error}");
    card.set_faults(0);
    let (space, mut port) = card.open().unwrap();
    card.set_faults(fault::MDIO_SILENT);
    let error = common::within(10, || port.start(config(&space)).err().expect("no PHY"));
    assert!(matches!(error, Error::Timeout { what: "talking to the PHY", .. }), "{error}");
    card.set_faults(0);
    let queues = port.start(config(&space)).unwrap();
    drop(queues);
    port.stop().unwrap();
    card.assert_clean();
}

#[test]
fn functions_of_an_x540_are_driven_as_well() {
    let mut served = serve_functions(Kind::X540, 1);
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

/// What nobody here has seen work is not taken for what it is like.
#[test]
fn cards_of_the_family_that_are_not_known_are_refused() {
    for id in [0x1563, 0x15ab, 0x15ad, 0x10f8, 0x151c] {
        let card = serve(false, |card| card.device_id = id);
        let error = card.open().err().expect("not known").to_string();
        assert!(error.contains(&format!("8086:{id:04x}")) && error.contains("X550"), "{error}");
    }
}
