//! Virtual functions, without a driver's help: whose memory is whose, and what passes between pools.

use super::super::vf::Vf;
use super::*;

const OWN: [u8; 6] = [0x02, 0x1b, 0x21, 0x82, 0x59, 0x09];
/// Addresses of functions 0 and 1, which are in the card's registers 126 and 127.
const ADDRESSES: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11]];
const OUTSIDE: [u8; 6] = [2, 0, 0, 0, 0, 0xee];

/// A virtual function on a machine of its own.
struct Driven {
    vf: Vf,
    machine: Machine,
}

impl Driven {
    fn get(&mut self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.vf.read(Region::Bar(0), offset, &mut word, &mut self.machine);
        u32::from_le_bytes(word)
    }

    fn set(&mut self, offset: u64, value: u32) {
        self.vf.write(Region::Bar(0), offset, &value.to_le_bytes(), &mut self.machine);
    }

    /// Bus mastering on, one queue each way.
    fn start(&mut self) {
        self.vf.write(Region::Config, 4, &0x0406u16.to_le_bytes(), &mut self.machine);
        for (block, ring) in [(0x1000, rx_ring(0)), (0x2000, tx_ring(0))] {
            self.set(block, ring as u32);
            self.set(block + 4, (ring >> 32) as u32);
            self.set(block + 8, RING * 16);
            self.set(block + 0x28, ENABLE);
        }
        self.set(0x1014, 0x0200_0402);
        for n in 0..RING {
            self.machine.put(rx_ring(0) + 16 * n as u64, [rx_buffer(0, n), 0]);
        }
        self.set(0x1018, RING - 1);
    }

    /// Sends a frame by the first descriptor.
    fn send(&mut self, frame: &[u8], at: u64) {
        if at < BASE + MEMORY as u64 {
            self.machine.at(at, frame.len(), true).unwrap().copy_from_slice(frame);
        }
        let n = self.get(0x2018);
        let command = 0x2b30_0000 | frame.len() as u64 | (frame.len() as u64) << 46;
        self.machine.put(tx_ring(0) + 16 * n as u64, [at, command]);
        self.set(0x2018, n + 1);
    }

    /// The frame in the receive ring's descriptor `n`, if it is done.
    fn received(&mut self, n: u32) -> Option<Vec<u8>> {
        let status = self.machine.word(rx_ring(0) + 16 * n as u64 + 8);
        let len = (status >> 32 & 0xffff) as usize;
        (status & 1 != 0).then(|| self.machine.at(rx_buffer(0, n), len, false).unwrap().to_vec())
    }
}

/// A card with two functions: 64 pools, its own the third; both let in and out.
fn rig() -> (Rig, [Driven; 2], Bench) {
    let bench = Bench::default();
    let config = Config { functions: 2, ..Config::default() };
    let mut rig = Rig::with(Box::new(bench.clone()), config);
    let functions: Vec<Driven> =
        rig.card.take_functions().into_iter().map(|vf| Driven { vf, machine: Machine::new() }).collect();
    let mut functions: [Driven; 2] = functions.try_into().ok().expect("two");
    rig.set(CTRL, 1 << 26);
    rig.set(FCTRL, 0x400);
    rig.set(PFVTCTL, 1 | 2 << 7 | 1 << 30);
    rig.set(MRQC, 8);
    rig.set(PFDTXGSWC, 1);
    for enable in [PFVFRE, PFVFTE] {
        rig.set(enable, 0b111);
    }
    for (n, address) in [OWN, ADDRESSES[0], ADDRESSES[1]].into_iter().enumerate() {
        let (register, pool) = ([0, 126, 127][n], [2, 0, 1][n]);
        let [a, b, c, d, e, f] = address;
        rig.set(RAL + 8 * register, u32::from_le_bytes([a, b, c, d]));
        rig.set(RAH + 8 * register, u32::from_le_bytes([e, f, 0, 0x80]));
        rig.set(MPSAR + 8 * register, 1 << pool);
        rig.set(PFVML2FLT + 4 * pool, 0x0900_0000);
    }
    // Pool 2's queue.
    rig.start_rx(4, 0x0200_0402);
    rig.start_tx(4);
    rig.set(DMATXCTL, 0x8100_0001);
    rig.set(RXCTRL, 1);
    // The reset before stops them, as soon as they look.
    poll(&mut rig, &mut functions);
    functions.iter_mut().for_each(Driven::start);
    (rig, functions, bench)
}

fn poll(rig: &mut Rig, functions: &mut [Driven; 2]) {
    for _ in 0..4 {
        rig.poll();
        for function in functions.iter_mut() {
            while function.vf.poll(&mut function.machine) {}
        }
    }
}

fn addressed(to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    let mut frame = frame(80);
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame
}

#[test]
fn frames_pass_between_machines_that_share_nothing() {
    let (mut rig, mut functions, bench) = rig();
    poll(&mut rig, &mut functions);
    let between = addressed(ADDRESSES[1], ADDRESSES[0]);
    functions[0].send(&between, TX_BUFFERS);
    poll(&mut rig, &mut functions);
    assert_eq!(functions[1].received(0), Some(between));
    assert_eq!(bench.taken(), Vec::<Vec<u8>>::new(), "it stays within");
    let out = addressed(OUTSIDE, ADDRESSES[0]);
    functions[0].send(&out, TX_BUFFERS);
    poll(&mut rig, &mut functions);
    assert_eq!(bench.taken(), [out]);
    let came = addressed(ADDRESSES[0], OUTSIDE);
    bench.give(&came);
    let own = addressed(OWN, OUTSIDE);
    bench.give(&own);
    poll(&mut rig, &mut functions);
    assert_eq!(functions[0].received(0), Some(came));
    assert_eq!(rig.next(4).map(|got| got.data), Some(own), "the default pool's first queue");
    // Counted by the function, and not cleared by reading: sent two, received one.
    assert_eq!([functions[0].get(0x201c), functions[0].get(0x201c), functions[0].get(0x101c)], [2, 2, 1]);
}

/// The same addresses are other memory, or none, in each function's machine.
#[test]
fn dma_is_the_functions_own_and_needs_its_own_bus_mastering() {
    let (mut rig, mut functions, bench) = rig();
    poll(&mut rig, &mut functions);
    // Only the card's machine has something there.
    let elsewhere = BASE + MEMORY as u64 + 0x1000;
    functions[0].send(&addressed(OUTSIDE, ADDRESSES[0]), elsewhere);
    poll(&mut rig, &mut functions);
    assert_eq!((functions[0].machine.refused, functions[0].vf.control().refused()), (1, 1));
    assert_eq!((rig.machine.refused, functions[1].machine.refused), (0, 0));
    assert_eq!(bench.taken(), Vec::<Vec<u8>>::new());
    // Bus mastering off, for one of them.
    functions[0].vf.write(Region::Config, 4, &2u16.to_le_bytes(), &mut functions[0].machine);
    for address in ADDRESSES {
        bench.give(&addressed(address, OUTSIDE));
    }
    poll(&mut rig, &mut functions);
    assert_eq!(functions[0].received(0), None);
    assert!(functions[0].vf.control().refused() > 1);
    assert!(functions[1].received(0).is_some());
}

#[test]
fn a_reset_on_either_side_stops_the_function_and_is_told() {
    const VFMAILBOX: u64 = 0x2fc;
    let (mut rig, mut functions, bench) = rig();
    poll(&mut rig, &mut functions);
    functions[0].set(0, 1 << 26);
    rig.poll();
    assert_eq!((rig.get(PFVFLRE), rig.get(PFVFRE), rig.get(PFVFTE)), (1, 0b110, 0b110));
    assert_eq!(rig.get(EICR) & 1 << 19, 1 << 19);
    rig.set(PFVFLREC, 1);
    assert_eq!(rig.get(PFVFLRE), 0);
    bench.give(&addressed(ADDRESSES[0], OUTSIDE));
    poll(&mut rig, &mut functions);
    functions[0].start();
    poll(&mut rig, &mut functions);
    assert_eq!(functions[0].received(0), None, "its pool is off");
    // The other way.
    assert_eq!(functions[1].get(0x1028) & ENABLE, ENABLE);
    rig.set(CTRL, 1 << 26);
    poll(&mut rig, &mut functions);
    assert_eq!(functions[1].get(0x1028) & ENABLE, 0);
    assert_eq!(functions[1].get(VFMAILBOX) & 0x40, 0x40);
    rig.change(CTRL_EXT, 1 << 14);
    poll(&mut rig, &mut functions);
    assert_eq!([functions[1].get(VFMAILBOX), functions[1].get(VFMAILBOX)], [0x80, 0]);
    // A message, and an interrupt for it: vector 1.
    functions[1].set(0x140, 0x81);
    functions[1].set(0x108, 2);
    rig.set(PFMBMEM + 64, 0x1234);
    rig.set(PFMAILBOX + 4, 1);
    poll(&mut rig, &mut functions);
    assert_eq!(functions[1].machine.sent, [1]);
    assert_eq!((functions[1].get(0x200), functions[1].get(VFMAILBOX)), (0x1234, 0x10));
    assert_eq!(functions[1].vf.control().unknown(), 0);
}

#[test]
fn spoofing_vlans_and_inserted_tags() {
    let (mut rig, mut functions, bench) = rig();
    rig.set(PFVFSPOOF, 1);
    rig.set(PFVMVIR + 4, 1 << 30 | 7);
    rig.set(VLNCTRL, 0x8100 | 1 << 30);
    (0..128).for_each(|n| rig.set(VFTA + 4 * n, u32::MAX));
    rig.set(PFVLVF, 1 << 31 | 7);
    rig.set(PFVLVFB, 0b01);
    poll(&mut rig, &mut functions);
    functions[0].send(&addressed(OUTSIDE, ADDRESSES[1]), TX_BUFFERS);
    poll(&mut rig, &mut functions);
    assert_eq!((bench.taken().len(), rig.get(SSVPC)), (0, 1), "a source that is not its own");
    // Function 1's frames get a tag, in whose VLAN function 0 is.
    let plain = addressed(ADDRESSES[0], ADDRESSES[1]);
    functions[1].send(&plain, TX_BUFFERS);
    poll(&mut rig, &mut functions);
    let tagged = [&plain[..12], &[0x81, 0, 0, 7], &plain[12..]].concat();
    assert_eq!(functions[0].received(0), Some(tagged));
    // And nobody is in this one: what comes is the default pool's.
    let mut stray = addressed(ADDRESSES[1], OUTSIDE);
    stray.splice(12..12, [0x81, 0, 0, 8]);
    bench.give(&stray);
    poll(&mut rig, &mut functions);
    assert_eq!((functions[1].received(0), rig.next(4).map(|got| got.data)), (None, Some(stray)));
}
