//! What drivers find while they start.

use super::*;
use crate::wire::Open;

fn rig() -> Rig {
    Rig::new(Box::new(Open))
}

/// What Linux's and DPDK's drivers read before they have changed anything that matters, and get from a card in order.
#[test]
fn first_reads() {
    let mut rig = rig();
    let rows = [
        (EEC, 0x0300, 0x0300),
        (FWSM, 0x8000, 0x8000),
        (SECTXSTAT, 0x3, 0x3),
        (SECRXSTAT, 0x3, 0x3),
        (RXPBSIZE, u32::MAX, 0x8_0000),
        (FACTPS, u32::MAX, 0),
        (AUTOC, u32::MAX, 0xc09c_6004),
        (AUTOC2, u32::MAX, 0x000a_0000),
        (ANLP1, 0x000f_0000, 0x0001_0000),
        (RDRXCTL, 0x8, 0x8),
        (HICR, 1, 0),
        (MMNGC, u32::MAX, 0),
        (ESDP, 0x4, 0x4),
        (STATUS, 0x8_0080, 0x8_0080),
        (RAL, u32::MAX, 0x8221_1b02),
        (RAH, u32::MAX, 0x8000_0959),
    ];
    for (offset, mask, expected) in rows {
        assert_eq!(rig.get(offset) & mask, expected, "{offset:#x}");
    }
    rig.get(LINKS);
    assert_eq!(rig.get(LINKS), 0x7b80_0080);
    assert_eq!(rig.card.control().unknown(), 0);
}

#[test]
fn eeprom_by_register() {
    let mut rig = rig();
    let mut read = |word: u32| {
        rig.set(EERD, word << 2 | 1);
        let value = rig.get(EERD);
        assert_eq!(value & 2, 2);
        value >> 16
    };
    let sum = (0..0x40).map(&mut read).sum::<u32>();
    let sections = (3..0x0f)
        .map(&mut read)
        .filter(|&p| p != 0 && p != 0xffff)
        .collect::<Vec<_>>()
        .into_iter()
        .map(|at| (1..=read(at)).map(|n| read(at + n)).sum::<u32>())
        .sum::<u32>();
    assert_eq!((sum + sections) & 0xffff, 0xbaba);
}

#[test]
fn reset_clears_itself_and_the_registers_but_not_the_semaphores() {
    let mut rig = rig();
    rig.set(FCTRL, 0x3400);
    rig.set(SW_FW_SYNC, 0x5);
    rig.set(RAL, 0x1234_5678);
    rig.set(EIMS, 0xffff_0000);
    for bit in [26, 3] {
        rig.set(CTRL, 1 << bit);
        assert_eq!(rig.get(CTRL), 0);
    }
    assert_eq!((rig.get(FCTRL), rig.get(EIMS), rig.get(SW_FW_SYNC)), (0, 0, 5));
    assert_eq!(rig.get(RAL), 0x8221_1b02);
}

#[test]
fn semaphore_is_taken_by_reading() {
    let mut rig = rig();
    assert_eq!(rig.get(SWSM) & 1, 0);
    assert_eq!(rig.get(SWSM) & 1, 1);
    rig.set(SWSM, 3);
    assert_eq!(rig.get(SWSM) & 2, 2);
    rig.set(SWSM, 0);
    assert_eq!(rig.get(SWSM) & 3, 0);
}

#[test]
fn who_changes_sw_fw_sync_has_its_semaphores() {
    for kind in Kind::ALL {
        let mut rig = Rig::with(Box::new(Open), Config { kind, ..Config::default() });
        let control = rig.card.control();
        rig.set(SW_FW_SYNC, 1);
        assert_eq!(control.malformed(), 1, "{kind}: none");
        rig.get(SWSM);
        rig.set(SW_FW_SYNC, 0);
        assert_eq!(control.malformed(), 2, "{kind}: one");
        match kind {
            Kind::I82599 => rig.set(SWSM, 3),
            _ => assert_eq!(rig.get(SW_FW_SYNC) >> 31, 0),
        }
        rig.set(SW_FW_SYNC, 2);
        assert_eq!(control.malformed(), 2, "{kind}: both");
    }
}

#[test]
fn master_disable_is_acknowledged() {
    let mut rig = rig();
    rig.set(CTRL, 4);
    assert_eq!(rig.get(STATUS) & 1 << 19, 0);
    assert!(!rig.card.bus_master());
    // Drivers reset the card next, that bit still set in what they write.
    rig.set(CTRL, 1 << 26 | 4);
    assert_eq!((rig.get(CTRL), rig.get(STATUS) & 1 << 19), (0, 1 << 19));
    assert!(rig.card.bus_master());
}

#[test]
fn second_names_are_the_same_registers() {
    let mut rig = rig();
    let rows = [
        (0x5408, RAL + 8),
        (0x547c, RAH + 8 * 15),
        (0x2104, SRRCTL + 0x40),
        (0x2200, DCA_RXCTRL),
        (0x5818, MRQC),
        (0x5c04, RETA + 4),
        (0x5ca4, RSSRK + 36),
        (0x5480, PSRTYPE),
    ];
    for (second, first) in rows {
        rig.set(second, 0x8765_4321);
        assert_eq!(rig.get(first), 0x8765_4321, "{second:#x}");
        rig.set(first, 0x0000_0402);
        assert_eq!(rig.get(second), 0x0000_0402, "{second:#x}");
    }
}

#[test]
fn commands_and_handshakes_are_done_when_read() {
    let mut rig = rig();
    rig.set(AUTOC, 0xc09c_7004);
    assert_eq!(rig.get(AUTOC), 0xc09c_6004);
    rig.set(MSCA, 1 << 30);
    assert_eq!(rig.get(MSCA) >> 30, 0);
    rig.set(FDIRCTRL, 0x4a06_0001);
    assert_eq!(rig.get(FDIRCTRL), 0x4a06_0009);
    for n in [0, 63] {
        rig.set(TXDCTL + 0x40 * n, 0x0208_0120);
        assert_eq!(rig.get(TXDCTL + 0x40 * n), 0x0208_0120);
        rig.set(RXDCTL_64 + 0x40 * n, 0x4200_0000);
        assert_eq!(rig.get(RXDCTL_64 + 0x40 * n), 0x4200_0000);
    }
}

#[test]
fn storage_that_drivers_fill_and_read_back() {
    let mut rig = rig();
    let arrays = [
        (RAH, 8, 128),
        (MPSAR, 4, 256),
        (MTA, 4, 128),
        (PFUTA, 4, 128),
        (VFTA, 4, 128),
        (PFVLVF, 4, 64),
        (PFVLVFB, 4, 128),
        (RXPBSIZE, 4, 8),
        (TXPBSIZE, 4, 8),
        (TXPBTHRESH, 4, 8),
        (FCRTL, 4, 8),
        (FCRTH, 4, 8),
        (FCTTV, 4, 4),
        (ETQF, 4, 8),
        (ETQS, 4, 8),
        (IVAR, 4, 64),
        (RQSMR, 4, 32),
        (TQSM, 4, 32),
        (RTTPT2C, 4, 8),
        (PFVML2FLT, 4, 64),
        (DCA_TXCTRL, 0x40, 128),
    ];
    for (first, stride, count) in arrays {
        for n in 0..count {
            rig.set(first + n * stride, 0x0101_0000 + n);
        }
        for n in 0..count {
            assert_eq!(rig.get(first + n * stride), 0x0101_0000 + n, "{first:#x}[{n}]");
        }
    }
    assert_eq!(rig.card.control().unknown(), 0);
}

#[test]
fn narrow_and_wide_accesses() {
    let mut rig = rig();
    let mut wide = [0; 8];
    rig.card.read(Region::Bar(0), RAL as u64, &mut wide, &mut rig.machine);
    assert_eq!(wide[..6], Config::default().mac);
    let mut narrow = [0; 1];
    rig.card.read(Region::Bar(0), RAL as u64 + 2, &mut narrow, &mut rig.machine);
    assert_eq!(narrow, [0x21]);
    rig.card.read(Region::Bar(0), BAR_SIZE as u64 - 4, &mut wide, &mut rig.machine);
    assert_eq!(wide, [0xff; 8]);
    rig.card.write(Region::Bar(4), 0, &[1, 2, 3, 4], &mut rig.machine);
    rig.card.read(Region::Bar(4), 0, &mut wide, &mut rig.machine);
    assert_eq!(wide, [1, 2, 3, 4, 0, 0, 0, 0]);
    rig.card.read(Region::Bar(4), u64::MAX, &mut wide, &mut rig.machine);
    assert_eq!(wide, [0xff; 8]);
    rig.get(0x1_fff0);
    assert_eq!(rig.card.unknown(), [UnknownAccess { offset: 0x1_fff0, reads: 1, writes: 0 }]);
}

#[test]
fn function_level_reset_turns_everything_off() {
    let mut rig = rig();
    rig.set(SW_FW_SYNC, 5);
    rig.config(0xa8, 0xa810);
    assert!(!rig.card.bus_master());
    assert_eq!(rig.get(SW_FW_SYNC), 0);
    assert_eq!(rig.get(RAL), 0x8221_1b02);
}

#[test]
fn cable_and_module_come_and_go() {
    let mut rig = rig();
    let control = rig.card.control();
    let up = |rig: &mut Rig| {
        rig.poll();
        rig.get(LINKS) >> 30 & 1 != 0
    };
    rig.set(GPIE, 1 << 2);
    assert!(up(&mut rig));
    rig.get(EICR);
    control.set_cable(false);
    assert!(!up(&mut rig));
    assert_eq!(rig.get(EICR), 1 << 20);
    control.set_cable(true);
    control.set_module(false);
    assert!(!up(&mut rig));
    assert_eq!(rig.get(ESDP) & 4, 0);
    assert_eq!(rig.get(EICR), 1 << 26);
    control.set_module(true);
    assert!(up(&mut rig));
}
