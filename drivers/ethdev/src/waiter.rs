//! When to poll and when to sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pagewire_pci::wait_any;

use crate::error::Error;
use crate::interrupt::RxInterrupt;
use crate::stats::add;

/// Wake-ups in a row that no packet came with, after which a waiter takes its interrupts for stuck.
const MOST_IN_VAIN: u32 = 8;

/// Polls while packets come and sleeps while none do: a thread's, for all queues that it polls.
///
/// Busy: poll. Idle for a number of rounds: arm the interrupts, poll once more, sleep. No sleep is longer than a limit, so that no
/// packet waits longer than that either, whatever the interrupts do: one that is lost costs the limit, and ones that come
/// without packets again and again are not listened to until there has been a packet.
///
/// ```
/// use std::time::Duration;
///
/// use pagewire_ethdev::{Burst, Error, RxQueue, Waiter};
///
/// fn forward(queues: &mut [impl RxQueue], mut handle: impl FnMut(&mut Burst) -> bool) -> Result<(), Error> {
///     let mut waiter = Waiter::new(1000, Duration::from_millis(10));
///     let mut burst = Burst::new(32);
///     loop {
///         let mut packets = 0;
///         for queue in &mut *queues {
///             packets += queue.rx_burst(&mut burst);
///             if !handle(&mut burst) {
///                 return Ok(());
///             }
///         }
///         waiter.polled(packets, queues.iter().filter_map(|queue| queue.interrupt()))?;
///     }
/// }
/// ```
pub struct Waiter {
    idle_polls: u32,
    max_wait: Duration,
    /// Rounds without a packet, in a row.
    idle: u32,
    /// All interrupts are, and none has come.
    armed: bool,
    in_vain: u32,
    counters: Arc<WaiterCounters>,
}

impl Waiter {
    /// Sleeps after more than `idle_polls` rounds without a packet, and for `max_wait` at most. Queues without an interrupt are looked
    /// at as often as that.
    pub fn new(idle_polls: u32, max_wait: Duration) -> Waiter {
        Waiter { idle_polls, max_wait, idle: 0, armed: false, in_vain: 0, counters: Arc::default() }
    }

    /// Every queue has been polled, and that many packets were there. To be called after each round, with the queues' interrupts;
    /// sleeps if it is time to. A signal ends the sleep.
    ///
    /// # Errors
    ///
    /// Those of [`RxInterrupt::arm`]; [`Error::Wait`].
    #[inline]
    pub fn polled<'a>(
        &mut self,
        packets: usize,
        interrupts: impl IntoIterator<Item = &'a dyn RxInterrupt>,
    ) -> Result<(), Error> {
        add(&self.counters.polls, 1);
        if packets > 0 {
            (self.idle, self.armed, self.in_vain) = (0, false, 0);
            return Ok(());
        }
        self.idle = self.idle.saturating_add(1);
        if self.idle <= self.idle_polls {
            return Ok(());
        }
        self.rest(interrupts.into_iter())
    }

    /// Whether the next round decides: it sleeps if that finds nothing.
    pub fn is_armed(&self) -> bool {
        self.armed
    }

    #[cold]
    fn rest<'a>(&mut self, interrupts: impl Iterator<Item = &'a dyn RxInterrupt>) -> Result<(), Error> {
        let stuck = self.in_vain >= MOST_IN_VAIN;
        if !self.armed && !stuck {
            for interrupt in interrupts {
                interrupt.arm()?;
            }
            self.armed = true;
            return Ok(());
        }
        let descriptors: Vec<_> = interrupts.map(|interrupt| interrupt.as_fd()).collect();
        add(&self.counters.sleeps, 1);
        let heard = if stuck { &[][..] } else { &descriptors[..] };
        if wait_any(heard, Some(self.max_wait)).map_err(Error::Wait)? {
            add(&self.counters.wake_ups, 1);
            self.armed = false;
            self.in_vain += 1;
        } else {
            add(&self.counters.time_outs, 1);
        }
        Ok(())
    }

    /// What it has counted, now and later, for other threads.
    pub fn counters(&self) -> Arc<WaiterCounters> {
        self.counters.clone()
    }
}

/// What a [`Waiter`] counts; on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct WaiterCounters {
    polls: AtomicU64,
    sleeps: AtomicU64,
    wake_ups: AtomicU64,
    time_outs: AtomicU64,
}

/// What a [`Waiter`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaiterStats {
    /// Rounds over the queues.
    pub polls: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Sleeps that an interrupt ended.
    pub wake_ups: u64,
    /// Sleeps that lasted to the limit, or that a signal ended.
    pub time_outs: u64,
}

impl WaiterCounters {
    /// The counts so far.
    pub fn stats(&self) -> WaiterStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WaiterStats {
            polls: get(&self.polls),
            sleeps: get(&self.sleeps),
            wake_ups: get(&self.wake_ups),
            time_outs: get(&self.time_outs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::Instant;

    /// An interrupt that comes when a test says so.
    struct Bell {
        event: File,
        armed: Cell<u32>,
    }

    impl Bell {
        fn new() -> Bell {
            Bell { event: pagewire_pci::eventfd().unwrap(), armed: Cell::new(0) }
        }
        fn ring(&self) {
            (&self.event).write_all(&1u64.to_ne_bytes()).unwrap();
        }
    }

    impl AsFd for Bell {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.event.as_fd()
        }
    }

    impl RxInterrupt for Bell {
        fn arm(&self) -> Result<(), Error> {
            let _ = (&self.event).read(&mut [0; 8]);
            self.armed.set(self.armed.get() + 1);
            Ok(())
        }
    }

    const LONG: Duration = Duration::from_secs(100);
    const SHORT: Duration = Duration::from_millis(1);

    fn round(waiter: &mut Waiter, packets: usize, bells: &[&Bell]) -> WaiterStats {
        waiter.polled(packets, bells.iter().map(|bell| *bell as &dyn RxInterrupt)).unwrap();
        waiter.counters().stats()
    }

    #[test]
    fn it_arms_and_polls_once_more_before_it_sleeps() {
        let (bells, mut waiter) = ([&Bell::new(), &Bell::new()], Waiter::new(3, LONG));
        for _ in 0..3 {
            round(&mut waiter, 0, &bells);
        }
        assert_eq!(bells.map(|bell| bell.armed.get()), [0, 0]);
        assert_eq!(round(&mut waiter, 0, &bells).sleeps, 0, "armed, and to be polled again");
        assert_eq!(bells.map(|bell| bell.armed.get()), [1, 1]);
        // That poll finds something: no sleep, and all from the start.
        round(&mut waiter, 1, &bells);
        for _ in 0..4 {
            round(&mut waiter, 0, &bells);
        }
        assert_eq!(bells.map(|bell| bell.armed.get()), [2, 2]);
        // It would sleep for a hundred seconds.
        bells[1].ring();
        let stats = round(&mut waiter, 0, &bells);
        assert_eq!((stats.sleeps, stats.wake_ups, stats.time_outs), (1, 1, 0));
        // Woken in vain: armed again, without the rounds in between.
        assert_eq!(round(&mut waiter, 0, &bells).sleeps, 1);
        assert_eq!(bells.map(|bell| bell.armed.get()), [3, 3]);
    }

    #[test]
    fn an_interrupt_between_arming_and_sleeping_is_not_slept_over() {
        let (bell, mut waiter) = (Bell::new(), Waiter::new(0, LONG));
        round(&mut waiter, 0, &[&bell]);
        assert!(waiter.is_armed());
        bell.ring();
        assert_eq!(round(&mut waiter, 0, &[&bell]).wake_ups, 1);
    }

    #[test]
    fn without_interrupts_it_sleeps_to_the_limit() {
        let (bell, mut waiter) = (Bell::new(), Waiter::new(0, SHORT));
        round(&mut waiter, 0, &[&bell]);
        for sleep in 1..=20 {
            let start = Instant::now();
            let stats = round(&mut waiter, 0, &[&bell]);
            assert_eq!((stats.sleeps, stats.time_outs, stats.wake_ups), (sleep, sleep, 0));
            assert!(start.elapsed() >= SHORT);
        }
        // An interrupt that has not come is armed still.
        assert_eq!(bell.armed.get(), 1);
        // Nor do queues without one keep it awake.
        assert_eq!(round(&mut waiter, 0, &[]).time_outs, 21);
    }

    #[test]
    fn interrupts_without_end_are_not_listened_to() {
        let (bell, mut waiter) = (Bell::new(), Waiter::new(0, SHORT));
        let mut storm = |rounds| {
            (0..rounds)
                .map(|_| {
                    bell.ring();
                    round(&mut waiter, 0, &[&bell])
                })
                .last()
                .unwrap()
        };
        let stats = storm(100);
        assert_eq!(stats.wake_ups, u64::from(MOST_IN_VAIN));
        assert_eq!(stats.time_outs, 100 - 2 * u64::from(MOST_IN_VAIN));
        // A packet gives them another chance.
        round(&mut waiter, 1, &[&bell]);
        round(&mut waiter, 0, &[&bell]);
        bell.ring();
        assert_eq!(round(&mut waiter, 0, &[&bell]).wake_ups, u64::from(MOST_IN_VAIN) + 1);
    }
}
