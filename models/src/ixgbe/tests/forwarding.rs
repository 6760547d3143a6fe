//! Two cards with a generator behind each, forwarded between as a driver does it. Prints how fast, without a driver's process:
//! `cargo test --release -p pagewire-models forwarding -- --nocapture`.

use std::time::Instant;

use super::*;
use crate::wire::{Generator, Report, Traffic};

/// Forward all that port 0 receives to port 1 and back, buffers swapped as a driver does it.
struct Forwarder {
    rigs: [Rig; 2],
    rx: [u32; 2],
    tx: [u32; 2],
}

const SIZE: u32 = 512;

impl Forwarder {
    fn new(rigs: [Rig; 2]) -> Self {
        let mut forwarder = Self { rigs, rx: [0; 2], tx: [0; 2] };
        for rig in &mut forwarder.rigs {
            rig.start(1);
            for block in [RDBAL, TDBAL] {
                rig.set(block + 0x28, 0);
                rig.set(block + 8, SIZE * 16);
                rig.set(block, (if block == RDBAL { rx_ring(0) } else { tx_ring(0) } + 0x4000) as u32);
                rig.set(block + 0x18, 0);
                rig.set(block + 0x28, ENABLE);
            }
            for n in 0..SIZE {
                rig.machine.put(rx_ring(0) + 0x4000 + 16 * n as u64, [rx_buffer(0, n), 0]);
            }
            rig.set(RDT, SIZE - 1);
        }
        forwarder
    }

    fn turn(&mut self, from: usize) -> u32 {
        let to = 1 - from;
        let mut moved = 0;
        for _ in 0..32 {
            let at = rx_ring(0) + 0x4000 + 16 * self.rx[from] as u64;
            let second = self.rigs[from].machine.word(at + 8);
            if second & 1 == 0 {
                break;
            }
            let length = (second >> 32) as usize & 0xffff;
            let buffer = rx_buffer(0, self.rx[from]);
            let out = TX_BUFFERS + self.tx[to] as u64 * 1024;
            let [a, b] = &mut self.rigs;
            let (source, target) = if from == 0 { (a, b) } else { (b, a) };
            let data = source.machine.at(buffer, length, false).unwrap();
            target.machine.at(out, length, true).unwrap().copy_from_slice(data);
            let report = if self.tx[to] % 32 == 31 { 0x0800_0000 } else { 0 };
            let command = 0x2330_0000 | report | length as u64 | (length as u64) << 46;
            target.machine.put(tx_ring(0) + 0x4000 + 16 * self.tx[to] as u64, [out, command]);
            source.machine.put(at, [buffer, 0]);
            self.tx[to] = (self.tx[to] + 1) % SIZE;
            self.rx[from] = (self.rx[from] + 1) % SIZE;
            moved += 1;
        }
        if moved != 0 {
            self.rigs[to].set(TDT, self.tx[to]);
            self.rigs[from].set(RDT, (self.rx[from] + SIZE - 1) % SIZE);
        }
        moved
    }
}

#[test]
fn forwarding_both_ways_loses_and_changes_nothing() {
    const FRAMES: u64 = 200_000;
    let report = Arc::new(Report::default());
    report.run(false);
    let rigs = [0u8, 1].map(|stream| {
        let traffic = Traffic { stream, window: 256, ..Traffic::default() };
        Rig::new(Box::new(Generator::new(traffic, report.clone())))
    });
    let mut forwarder = Forwarder::new(rigs);
    report.run(true);
    let start = Instant::now();
    let mut models = std::time::Duration::ZERO;
    while report.received() < FRAMES {
        assert!(start.elapsed().as_secs() < 60, "{} frames of {FRAMES} came", report.received());
        let before = Instant::now();
        for rig in &mut forwarder.rigs {
            rig.card.poll(&mut rig.machine);
        }
        models += before.elapsed();
        forwarder.turn(0);
        forwarder.turn(1);
    }
    let (seconds, frames) = (start.elapsed().as_secs_f64(), report.received() as f64);
    let in_models = models.as_secs_f64() / frames * 1e9;
    println!(
        "{:.2} Mpps, of that {in_models:.0} ns a frame in the models (generators included)",
        frames / seconds / 1e6
    );
    println!("lost {}, wrong {}", report.lost(), report.wrong());
    assert_eq!((report.lost(), report.wrong()), (0, 0));
}
