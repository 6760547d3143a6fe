//! Causes, masks, vectors and moderation.

use super::*;

const RX_VECTOR: u16 = 3;
const OTHER_VECTOR: u16 = 5;

/// A card with receive queue 1 on vector 3 and other causes on vector 5, as drivers set it up.
fn msix() -> (Rig, Bench) {
    let (mut rig, wire) = bench(2);
    rig.set(IVAR, 0x0083_0000);
    rig.set(IVAR_MISC, 0x8500);
    rig.set(GPIE, 0xc000_0030);
    rig.set(EIAM_EX, u32::MAX);
    rig.set(EIAC, 0x4000_ffff);
    rig.set(EICR, u32::MAX);
    rig.poll();
    rig.machine.sent.clear();
    (rig, wire)
}

fn receive(rig: &mut Rig, wire: &Bench) -> Vec<u16> {
    rig.set(ETQF, 1 << 31 | 0x1234);
    rig.set(ETQS, 1 << 31 | 1 << 16);
    wire.give(&frame(60));
    rig.poll();
    std::mem::take(&mut rig.machine.sent)
}

#[test]
fn a_vector_fires_once_and_masks_itself() {
    let (mut rig, wire) = msix();
    assert!(receive(&mut rig, &wire).is_empty());
    rig.set(EIMS_EX, 1 << RX_VECTOR);
    rig.poll();
    assert_eq!(rig.machine.sent, [RX_VECTOR], "it was pending");
    rig.machine.sent.clear();
    assert_eq!(rig.get(EIMS_EX), 0, "auto-masked");
    assert_eq!(rig.get(EICS) & 0xffff, 0, "auto-cleared");
    assert!(receive(&mut rig, &wire).is_empty());
    rig.set(EIMS, 1 << RX_VECTOR);
    rig.poll();
    assert_eq!(rig.machine.sent, [RX_VECTOR]);
}

#[test]
fn transmit_has_vectors_too() {
    let (mut rig, _wire) = msix();
    rig.set(IVAR, 0x0000_8700);
    rig.set(EIMS_EX, u32::MAX);
    rig.send(&frame(60));
    assert_eq!(rig.machine.sent, [7]);
    rig.set(EIMS_EX, u32::MAX);
    let at = TX_BUFFERS;
    rig.submit(0, &[[at, 0x2330_0000 | 60 | 60 << 46]]);
    rig.poll();
    assert_eq!(rig.machine.sent, [7], "no report was asked for");
}

#[test]
fn other_causes_are_told_until_they_are_cleared() {
    let (mut rig, _wire) = msix();
    rig.set(EIMS, 1 << 20);
    rig.card.control().set_cable(false);
    rig.poll();
    assert_eq!(rig.machine.sent, [OTHER_VECTOR]);
    rig.poll();
    assert_eq!(rig.machine.sent.len(), 1, "an edge is sent once");
    assert_eq!(rig.get(EICS), 1 << 20);
    rig.set(EICR, 1 << 20);
    assert_eq!(rig.get(EICS), 0);
    rig.set(EIMC, 1 << 20);
    rig.set(EICS, 1 << 20);
    rig.poll();
    assert_eq!(rig.machine.sent.len(), 1);
    rig.set(EIMS, 1 << 20);
    rig.poll();
    assert_eq!(rig.machine.sent.len(), 2);
    assert_eq!(rig.get(EICR), 1 << 20);
    assert_eq!(rig.get(EICR), 0, "cleared by reading");
}

#[test]
fn software_raises_any_vector() {
    let (mut rig, _wire) = msix();
    rig.set(EIMS_EX, u32::MAX);
    rig.set(EIMS_EX + 4, u32::MAX);
    rig.set(EICS_EX, 0x1_0001);
    rig.set(EICS_EX + 4, 1 << 31);
    rig.poll();
    assert_eq!(rig.machine.sent, [0, 16, 63]);
    assert_eq!((rig.get(EIMS_EX), rig.get(EIMS_EX + 4)), (0xfffe_fffe, u32::MAX), "EIAM_EX(0) only");
}

#[test]
fn moderation_spaces_them_out() {
    let (mut rig, wire) = msix();
    rig.set(EITR + 4 * RX_VECTOR as u32, 0x8000_0028);
    assert_eq!(rig.get(EITR + 4 * RX_VECTOR as u32), 0x28);
    rig.set(EIAM_EX, 0);
    rig.set(EIMS_EX, 1 << RX_VECTOR);
    rig.pass(1_000_000);
    assert_eq!(receive(&mut rig, &wire), [RX_VECTOR]);
    rig.pass(10_000);
    assert!(receive(&mut rig, &wire).is_empty());
    assert!(receive(&mut rig, &wire).is_empty());
    rig.pass(240);
    rig.poll();
    assert_eq!(rig.machine.sent, [RX_VECTOR], "one for both");
}

#[test]
fn without_msix_everything_is_vector_0() {
    let (mut rig, wire) = msix();
    rig.set(GPIE, 0);
    rig.set(EIMS, 0xffff_ffff);
    rig.set(EIAM, 0xffff_ffff);
    assert_eq!(receive(&mut rig, &wire), [0]);
    rig.poll();
    assert!(rig.machine.sent.is_empty());
    assert_eq!(rig.get(EICR), 1 << RX_VECTOR);
    assert_eq!(rig.get(EIMS), !(1 << RX_VECTOR), "auto-masked by reading");
    rig.set(EIMS, 1 << RX_VECTOR);
    assert_eq!(receive(&mut rig, &wire), [0]);
}

#[test]
fn no_message_without_bus_mastering() {
    let (mut rig, _wire) = msix();
    rig.set(EIMS_EX, 1);
    rig.config(0x04, 2);
    rig.set(EICS, 1);
    rig.poll();
    assert!(rig.machine.sent.is_empty());
}
