//! Frames from one card to the other.

use super::*;
use crate::ixgbe::checksum;

#[test]
fn frames_cross_and_are_counted_on_both_sides() {
    let (mut a, mut b) = two(1);
    for length in [60, 61, 500, 1514] {
        a.send(&frame(length));
        b.poll();
        let received = b.next(0).expect("a frame");
        assert_eq!(received.data, frame(length));
        assert_eq!(received.status & 3, 3);
    }
    let bytes = 60 + 61 + 500 + 1514 + 4 * 4;
    let sent = [(GPTC, 4), (TPT, 4), (GOTCL, bytes), (BPTC, 4), (QPTC, 4), (QBTC_L, bytes), (PTC64, 1)];
    for (register, expected) in sent {
        assert_eq!(a.get(register), expected, "{register:#x}");
        assert_eq!(a.get(register), 0, "{register:#x} is cleared by reading");
    }
    let received = [(GPRC, 4), (TPR, 4), (GORCL, bytes), (BPRC, 4), (QPRC, 4), (QBRC_L, bytes), (PRC64, 1)];
    for (register, expected) in received {
        assert_eq!(b.get(register), expected, "{register:#x}");
        assert_eq!(b.get(register), 0, "{register:#x} is cleared by reading");
    }
    assert_eq!((a.get(TDH), b.get(RDH)), (4, 4));
}

#[test]
fn rings_go_round() {
    let (mut a, mut b) = two(1);
    for n in 0..1000usize {
        let frame = frame(60 + n % 1000);
        a.send(&frame);
        b.poll();
        assert_eq!(b.next(0).expect("a frame").data, frame);
    }
    assert!(b.next(0).is_none());
}

#[test]
fn short_frames_are_padded() {
    let (mut a, mut b) = two(1);
    a.send(&frame(20));
    b.poll();
    let data = b.next(0).unwrap().data;
    assert_eq!((data.len(), &data[..20]), (60, &frame(20)[..]));
    assert!(data[20..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_frame_in_many_descriptors() {
    let (mut a, mut b) = two(1);
    let whole = frame(1400);
    let mut descriptors = Vec::new();
    for (n, part) in whole.chunks(100).enumerate() {
        let at = TX_BUFFERS + 4096 * n as u64;
        a.machine.at(at, part.len(), true).unwrap().copy_from_slice(part);
        let end = if n == 13 { 0x0900_0000 } else { 0 };
        descriptors.push([at, 0x2230_0000 | end | part.len() as u64 | 1400 << 46]);
    }
    a.submit(0, &descriptors[..5]);
    a.poll();
    b.poll();
    assert!(b.next(0).is_none(), "its end is not there yet");
    a.submit(0, &descriptors[5..]);
    a.poll();
    b.poll();
    assert_eq!(b.next(0).unwrap().data, whole);
}

#[test]
fn jumbo_frames_take_several_buffers() {
    let (mut a, mut b) = two(1);
    a.send(&frame(9000));
    b.poll();
    assert!(b.next(0).is_none());
    assert_eq!(b.get(ROC), 1);
    b.change(HLREG0, 4);
    b.set(MAXFRS, 9018 << 16);
    a.send(&frame(9000));
    a.send(&frame(9016));
    b.poll();
    let mut whole = Vec::new();
    for n in 0..5 {
        let part = b.next(0).expect("a part");
        assert_eq!(part.status & 3, if n == 4 { 3 } else { 1 });
        whole.extend(part.data);
    }
    assert_eq!(whole, frame(9000));
    assert!(b.next(0).is_none());
    assert_eq!(b.get(ROC), 1);
}

#[test]
fn check_sequence_is_left_if_so_wanted() {
    let (mut a, mut b) = two(1);
    let value = b.get(HLREG0);
    b.set(HLREG0, value & !2);
    a.send(&frame(100));
    b.poll();
    let data = b.next(0).unwrap().data;
    assert_eq!(data[..100], frame(100));
    assert_eq!(data[100..], checksum::fcs(&frame(100)).to_le_bytes());
}

#[test]
fn what_arrives_broken_is_counted_and_dropped() {
    let (mut rig, wire) = bench(1);
    wire.to_card.lock().unwrap().push_back((frame(60), false));
    wire.give(&frame(59));
    wire.give(&frame(1515));
    wire.give(&[]);
    wire.give(&frame(60));
    rig.poll();
    assert_eq!(rig.next(0).unwrap().data, frame(60));
    assert!(rig.next(0).is_none());
    let counts = [CRCERRS, RUC, ROC, GPRC, TPR].map(|r| rig.get(r));
    assert_eq!(counts, [1, 1, 1, 1, 4]);
}

#[test]
fn no_descriptors_means_waiting_or_dropping() {
    let (mut rig, wire) = bench(1);
    for _ in 0..RING + 10 {
        wire.give(&frame(60));
    }
    rig.poll();
    assert_eq!((0..RING + 10).filter(|_| rig.next(0).is_some()).count(), RING as usize - 1);
    rig.poll();
    assert_eq!((0..20).filter(|_| rig.next(0).is_some()).count(), 11, "they waited in the packet buffer");
    // A packet buffer that is full misses frames, and says so.
    for _ in 0..1000 {
        wire.give(&frame(1514));
    }
    rig.poll();
    let kept = 0x8_0000 / 1514;
    let got = RING - 1 - 11 + 11;
    assert_eq!(rig.get(RXMPC), 1000 - kept - got);
    assert_ne!(rig.get(EICR) & 1 << 17, 0);
    // With DROP_EN the queue drops at once.
    rig.start(1);
    rig.start_rx(0, 0x1200_0402);
    for _ in 0..RING + 10 {
        wire.give(&frame(60));
    }
    rig.poll();
    assert_eq!((rig.get(QPRDC), rig.get(QPRC)), (11, RING - 1));
}

#[test]
fn a_full_packet_buffer_pauses_the_sender() {
    let (mut a, mut b) = two(1);
    b.set(FCCFG, 8);
    b.set(FCRTH, 0x8000_0000 | 0x4000);
    b.set(FCRTL, 0x8000_0000 | 0x1000);
    b.set(FCTTV, 0xffff);
    a.set(MFLCN, 8);
    for _ in 0..100 {
        a.send(&frame(1514));
        b.poll();
        a.poll();
        if a.get(LXOFFRXCNT) != 0 {
            break;
        }
    }
    a.machine.at(TX_BUFFERS, 60, true).unwrap().copy_from_slice(&frame(60));
    let at = a.submit(0, &[[TX_BUFFERS, 0x2b30_0000 | 60 | 60 << 46]]);
    a.poll();
    assert_eq!(a.machine.word(at + 8) >> 32 & 1, 0, "paused");
    while b.next(0).is_some() {
        b.poll();
    }
    a.poll();
    assert_eq!(a.machine.word(at + 8) >> 32 & 1, 1, "XON has come");
    assert_eq!((b.get(LXOFFTXC), b.get(LXONTXC)), (1, 1));
}

#[test]
fn nothing_moves_with_bus_mastering_off() {
    let (mut rig, wire) = bench(1);
    rig.config(0x04, 0x0402);
    wire.give(&frame(60));
    let at = rig.submit(0, &[[TX_BUFFERS, 0x2b30_0000 | 60 | 60 << 46]]);
    let before = rig.machine.memory.clone();
    rig.poll();
    assert!(rig.machine.memory == before && wire.taken().is_empty());
    assert_eq!(rig.card.control().refused(), 2);
    assert_eq!(rig.machine.refused, 0, "nobody was even asked");
    rig.config(0x04, 0x0406);
    rig.poll();
    assert_eq!(rig.machine.word(at + 8) >> 32 & 1, 1);
    assert!(rig.next(0).is_some());
    assert_eq!(wire.taken().len(), 1);
}

#[test]
fn memory_that_is_not_mapped_stays_out_of_reach() {
    let (mut rig, wire) = bench(1);
    let at = rig.submit(0, &[[0x1000, 0x2b30_0000 | 60 | 60 << 46]]);
    rig.poll();
    assert!(wire.taken().is_empty());
    assert_eq!(rig.machine.word(at + 8) >> 32 & 1, 1, "the ring goes on");
    assert_ne!(rig.get(EICR) & 1 << 18, 0);
    rig.set(TDBAH, 0xffff_ffff);
    rig.set(TDT, 5);
    rig.poll();
    assert_eq!(rig.card.control().refused(), 2);
}

#[test]
fn head_is_written_back_where_it_is_wanted() {
    let (mut rig, wire) = bench(1);
    let to = BASE + 0x3f_0000;
    rig.set(TDWBAL, to as u32 | 1);
    rig.set(TDWBAH, (to >> 32) as u32);
    rig.machine.at(TX_BUFFERS, 60, true).unwrap().copy_from_slice(&frame(60));
    let at = rig.submit(0, &[[TX_BUFFERS, 0x2b30_0000 | 60 | 60 << 46]; 3]);
    rig.poll();
    assert_eq!(wire.taken().len(), 3);
    assert_eq!(rig.machine.word(to) as u32, 3);
    assert_eq!(rig.machine.word(at + 8) >> 32 & 1, 0, "no done bit then");
}

#[test]
fn disabled_means_off() {
    let (mut rig, wire) = bench(1);
    rig.set(RXCTRL, 0);
    wire.give(&frame(60));
    rig.poll();
    rig.set(RXCTRL, 1);
    rig.set(RXDCTL, 0);
    wire.give(&frame(60));
    rig.poll();
    assert!(rig.next(0).is_none());
    assert_eq!((rig.get(TPR), rig.get(QPRDC)), (1, 1));
    rig.set(TXDCTL, 0);
    rig.submit(0, &[[TX_BUFFERS, 0x2b30_0000 | 60 | 60 << 46]]);
    rig.poll();
    assert!(wire.taken().is_empty());
}

#[test]
fn frames_of_a_patient_wire_wait_for_the_receiver_and_for_room() {
    const FRAMES: usize = 1000;
    struct Patient(usize);
    impl Wire for Patient {
        fn send(&mut self, _: &[u8]) -> bool {
            true
        }

        fn receive(&mut self, into: &mut Vec<u8>) -> Option<Arrival> {
            *into = frame(60 + self.0);
            self.0 += 1;
            (self.0 <= FRAMES).then_some(Arrival::Good)
        }

        fn patient(&self) -> bool {
            true
        }
    }
    // Polled with its receiver off, then with a ring of 64 that nobody empties.
    let mut rig = Rig::new(Box::new(Patient(0)));
    rig.start(1);
    rig.poll();
    for n in 0..FRAMES {
        assert_eq!(rig.next(0).map(|received| received.data.len()), Some(60 + n));
        rig.poll();
    }
    assert!(rig.next(0).is_none());
    assert_eq!((rig.get(RXMPC), rig.get(TPR)), (0, FRAMES as u32));
}
