//! The smallest card there is, served and driven in one process: what each way to it costs.
//!
//! `cargo run --release -p pagewire-models --example latency`

use std::time::Instant;

use pagewire_hugepages::{PageSize, Segment, SegmentOptions};
use pagewire_models::server::{Server, ServerOptions};
use pagewire_models::{Area, Function, Host, Region, RegionInfo};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};

/// One page of storage, and one that is mappable: a word stored at its start is answered behind it.
struct Card {
    config: [u8; 256],
    word: u32,
    rung: u32,
}

impl Function for Card {
    fn region(&self, region: Region) -> RegionInfo {
        let (size, mappable) = match region {
            Region::Bar(0) => (0x2000, vec![Area { offset: 0x1000, size: 0x1000 }]),
            Region::Config => (256, Vec::new()),
            Region::Bar(_) => (0, Vec::new()),
        };
        RegionInfo { size, mappable }
    }

    fn vectors(&self) -> u16 {
        0
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], _: &mut dyn Host) {
        match region {
            Region::Config => data.copy_from_slice(&self.config[offset as usize..][..data.len()]),
            Region::Bar(_) => data.copy_from_slice(&self.word.to_le_bytes()[..data.len()]),
        }
    }

    fn write(&mut self, region: Region, _: u64, data: &[u8], _: &mut dyn Host) {
        if let (Region::Bar(_), Ok(word)) = (region, data.try_into()) {
            self.word = u32::from_le_bytes(word);
        }
    }

    fn reset(&mut self, _: &mut dyn Host) {
        (self.word, self.rung) = (0, 0);
    }

    fn poll(&mut self, host: &mut dyn Host) -> bool {
        let rung = host.shared_read(Region::Bar(0), 0x1000);
        let news = std::mem::replace(&mut self.rung, rung) != rung;
        if news {
            host.shared_write(Region::Bar(0), 0x1004, rung);
        }
        news
    }
}

/// Prints the median of some runs, in microseconds.
fn measure(what: &str, runs: usize, mut run: impl FnMut()) {
    let mut times: Vec<_> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort();
    let micros = |at: usize| times[at] as f64 / 1000.0;
    println!("{what:<28} {:>9.2} µs, at worst {:>9.2}", micros(runs / 2), micros(runs - 1));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("pagewire-latency-{}", std::process::id()));
    let server = Server::bind(&path, ServerOptions::default())?;
    let stopper = server.stopper();
    let thread = std::thread::spawn(move || server.run(&mut Card { config: [0; 256], word: 0, rung: 0 }));

    let options = AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..AddressSpaceOptions::default() };
    let space = AddressSpace::new(options)?;
    measure("open, and close", 200, || drop(space.open_vfio_user(&path).unwrap()));
    let function = space.open_vfio_user(&path)?;
    let bar = function.bar(0)?;
    let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "latency".into() };
    let segment = Segment::allocate(4 << 20, &options)?;
    measure("map 4 MiB, and unmap", 200, || {
        space.map(segment.clone()).unwrap();
        space.unmap(&segment).unwrap();
    });
    measure("read a register by message", 1000, || assert_eq!(bar.read32(0), 0));
    measure("write a register by message", 1000, || bar.write32(0, 0));
    let (doorbell, mut value) = (bar.doorbell(0x1000)?, 0);
    measure("ring, until it is answered", 1000, || {
        value += 1;
        doorbell.ring(value);
        while bar.read32(0x1004) != value {
            std::hint::spin_loop();
        }
    });
    drop((function, bar, doorbell));
    stopper.stop();
    thread.join().expect("a server does not panic")?;
    Ok(())
}
