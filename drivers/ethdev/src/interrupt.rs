//! Interrupts: what a receive queue's is, and what a port tells by one.

use std::os::fd::AsFd;

use crate::error::Error;

/// The interrupt of a receive queue, for threads that sleep while nothing comes: alone or, in one poll or epoll of their
/// descriptors, for several queues. [`Waiter`](crate::Waiter) does what follows.
///
/// It comes once for each time it is armed, with the first packet received from then on, and no sooner after the one before than
/// [`PortConfig::rx_interrupts`](crate::PortConfig::rx_interrupts) says. Its descriptor is readable from then on until it is armed
/// again. The order in which no packet waits:
///
/// 1. [`arm`](RxInterrupt::arm) it.
/// 2. Receive once more: what came before is forgotten. If there was something, go on receiving; an interrupt may come all the same.
/// 3. Wait for the descriptor to be readable, and not for ever: devices have lost interrupts before.
///
/// ```
/// use std::time::Duration;
///
/// use pagewire_ethdev::{Burst, Error, RxQueue};
/// use pagewire_pci::wait_any;
///
/// /// Waits for packets of a queue that has been empty for a while.
/// fn receive(queue: &mut impl RxQueue, burst: &mut Burst, limit: Duration) -> Result<usize, Error> {
///     if let Some(interrupt) = queue.interrupt() {
///         interrupt.arm()?;
///     }
///     if queue.rx_burst(burst) == 0
///         && let Some(interrupt) = queue.interrupt()
///     {
///         wait_any(&[interrupt.as_fd()], Some(limit)).map_err(Error::Wait)?;
///     }
///     Ok(burst.len() + queue.rx_burst(burst))
/// }
/// ```
pub trait RxInterrupt: AsFd {
    /// Let it come once. What it has told before is forgotten: packets that the card wrote before this returns may raise it or not.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the device is.
    fn arm(&self) -> Result<(), Error>;
}

bitflags::bitflags! {
    /// What has happened to a port; see [`Port::events`](crate::Port::events).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PortEvents: u32 {
        /// The link went up or down, or its module came or went: [`Port::link`](crate::Port::link) says how it is.
        const LINK = 1 << 0;
        /// The card was refused an access to memory, or met an error on its bus.
        const DMA_ERROR = 1 << 1;
        /// The card found an error in its own memory that it could not correct.
        const MEMORY_ERROR = 1 << 2;

        /// After these the port is to be stopped: packets may be lost or wrong until it is started anew.
        const FATAL = Self::DMA_ERROR.bits() | Self::MEMORY_ERROR.bits();
    }
}
