//! Who sleeps until packets come.

use std::fs::read_to_string;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use pagewire_ethdev::{Burst, RxQueue, Waiter, WaiterCounters, WaiterStats};
use pagewire_ixgbe::IxgbeRx;

use super::eventually;

/// A thread that waits for the packets of a queue.
pub(crate) struct Sleeper {
    pub(crate) counters: Arc<WaiterCounters>,
    pub(crate) received: Arc<AtomicU64>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) thread: JoinHandle<(IxgbeRx, Duration)>,
}

impl Sleeper {
    pub(crate) fn start(mut queue: IxgbeRx, idle_polls: u32, max_wait: Duration) -> Sleeper {
        let mut waiter = Waiter::new(idle_polls, max_wait);
        let counters = waiter.counters();
        let (received, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, told) = (received.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut burst = Burst::new(32);
            let before = on_cpu();
            while !told.load(Relaxed) {
                let packets = queue.rx_burst(&mut burst);
                burst.clear();
                count.fetch_add(packets as u64, Relaxed);
                waiter.polled(packets, queue.interrupt()).unwrap();
            }
            (queue, on_cpu() - before)
        });
        Sleeper { counters, received, stop, thread }
    }

    pub(crate) fn stats(&self) -> WaiterStats {
        self.counters.stats()
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    pub(crate) fn fall_asleep(&self) {
        eventually("sleep", || self.stats().sleeps == self.stats().wake_ups + self.stats().time_outs + 1);
    }

    /// One that is woken within its limit. Gives the queue and the time that the thread had a processor.
    pub(crate) fn finish(self) -> (IxgbeRx, Duration) {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// Time that this thread had a processor.
fn on_cpu() -> Duration {
    let stat = read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}
