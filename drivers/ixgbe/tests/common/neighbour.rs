//! Another port of the process, on an honest card in a space of its own, which forwards meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use pagewire_ethdev::{Burst, Port, RxQueue, TxQueue};
use pagewire_models::wire::{Generator, Report, Traffic};
use pagewire_pool::flush_thread;

use super::{Running, config, eventually, serve_on, space};

/// Forwards what its wire's generator sends, and back to it, until it is told to stop.
pub(crate) struct Neighbour {
    report: Arc<Report>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    running: Running,
}

impl Neighbour {
    pub(crate) fn start() -> Neighbour {
        let (report, stop) = (Arc::<Report>::default(), Arc::<AtomicBool>::default());
        let traffic = Traffic { length: 600, window: 32, ..Traffic::default() };
        let running = serve_on(false, 0x99, Box::new(Generator::new(traffic, report.clone())), |_| ());
        let space = space();
        let mut port = running.open_in(&space).unwrap();
        let (mut rx, mut tx) = port.start(config(&space)).unwrap();
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let monitor = rx[0].pool().monitor();
            let mut burst = Burst::new(32);
            while !told.load(Relaxed) {
                rx[0].rx_burst(&mut burst);
                tx[0].tx_burst(&mut burst);
                tx[0].reclaim();
                // The processors are the liar's.
                std::thread::sleep(Duration::from_millis(1));
            }
            drop((burst, rx, tx));
            port.stop().unwrap();
            flush_thread();
            assert_eq!(monitor.stats().inflight(), 0, "fragments of the honest port's");
            drop(space);
        });
        let neighbour = Neighbour { report, stop, thread, running };
        neighbour.assert_forwards();
        neighbour
    }

    /// It forwards now.
    pub(crate) fn assert_forwards(&self) {
        let before = self.report.received();
        eventually("the honest port forwards", || self.report.received() > before + 100);
    }

    /// It has forwarded everything as it was, and given everything back.
    pub(crate) fn finish(self) {
        self.assert_forwards();
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap();
        let changed: u64 = self.report.streams.iter().map(|stream| stream.corrupt.load(Relaxed)).sum();
        assert_eq!((changed, self.report.foreign.load(Relaxed)), (0, 0), "frames of the honest port's");
        self.running.assert_clean();
        println!("meanwhile an honest port forwarded {} frames", self.report.received());
    }
}
