//! What a family of cards implements.

use std::time::Duration;

use super::device::Device;
use super::filters::Filters;
use super::rx::RxFormat;
use super::statistics::Counter;
use super::tx::TxFormat;
use crate::config::{Capabilities, PortConfig, RxOffloads};
use crate::error::Error;
use crate::interrupt::PortEvents;
use crate::link::Link;
use crate::mac::MacAddr;

/// A device that a driver knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId {
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// What it is.
    pub name: &'static str,
}

/// A receive queue for the card to be told of. All its descriptors are posted.
#[derive(Clone, Copy, Debug)]
pub struct RxSetup {
    /// The queue's number.
    pub queue: usize,
    /// Where its first descriptor is.
    pub iova: u64,
    /// Bytes of its ring.
    pub bytes: u32,
    /// Bytes the card may write into each fragment: what [`Card::receive_buffer`] chose.
    pub buffer: usize,
    /// Bytes the card may write into each fragment for headers: what [`Card::header_buffer`] chose; 0 if there are none.
    pub header: usize,
    /// Most descriptors of a packet that the card coalesces; 0 if it is not to.
    pub coalesced: u16,
    /// The interval of its interrupts, which are the vector of its number; `None` if it is to have none.
    pub interrupts: Option<Duration>,
}

/// A transmit queue for the card to be told of.
#[derive(Clone, Copy, Debug)]
pub struct TxSetup {
    /// The queue's number.
    pub queue: usize,
    /// Where its first descriptor is.
    pub iova: u64,
    /// Bytes of its ring.
    pub bytes: u32,
}

/// A family of cards. See [`Nic`](super::Nic), which makes ports of it.
///
/// The card is reached through [`Device`] alone, and trusted in nothing: every wait has a limit ([`Device::wait`]).
pub trait Card: Send + Sized + 'static {
    /// Receive descriptors.
    type Rx: RxFormat;
    /// Transmit descriptors.
    type Tx: TxFormat;

    /// The driver's name, as DPDK would call it.
    const DRIVER: &'static str;
    /// The devices it knows.
    const DEVICES: &'static [DeviceId];
    /// What they are, for the message about one that it does not.
    const EXPECTED: &'static str;
    /// Bytes of BAR 0, in which every register lies.
    const BAR_LEN: usize;
    /// The same for a message.
    const BAR_LEN_TEXT: &'static str;
    /// Bytes of the smallest receive buffer: below, [`receive_buffer`](Card::receive_buffer) finds none.
    const LEAST_BUFFER: usize;
    /// What its ports can do.
    const CAPABILITIES: Capabilities;
    /// Its statistics registers.
    const COUNTERS: &'static [Counter];
    /// Names of the counters of frames dropped because there was no descriptor or no room.
    const RX_MISSED: &'static [&'static str];
    /// Names of the counters of frames received broken, each frame in one of them.
    const RX_ERRORS: &'static [&'static str];
    /// Names of the counters of frames that could not be sent.
    const TX_ERRORS: &'static [&'static str];

    /// Reset everything but the PCI configuration. Afterwards interrupts are off and the card does no DMA. Done at open, at
    /// start and at stop.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if the card does not come out of it.
    fn reset(device: &Device) -> Result<(), Error>;

    /// Find out what card this is, after the first reset, and its own address.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if it is not one that works.
    fn open(device: &Device) -> Result<(Self, MacAddr), Error>;

    /// What this one can do, asked after [`open`](Card::open): the same, or less.
    fn capabilities(&self) -> Capabilities {
        Self::CAPABILITIES
    }

    /// After the reset of a start and before its queues: all that is not a queue's, the link included.
    ///
    /// # Errors
    ///
    /// What keeps the card from working as configured.
    fn configure(&mut self, device: &Device, filters: &Filters, config: &PortConfig) -> Result<(), Error>;

    /// What the card finds out about received packets when it is started so: what is asked for, and what it cannot but do.
    fn finds_out(config: &PortConfig) -> RxOffloads {
        config.rx_offloads
    }

    /// Bytes that the card, configured as it is, may be allowed to write into a buffer with `room` bytes, for frames of up to `frame` bytes
    /// with tag and without frame check sequence. Never more than `room`; `None` if it is too small.
    fn receive_buffer(&self, room: usize, frame: usize) -> Option<usize>;

    /// Bytes that the card may be allowed to write into a buffer for headers with `room` bytes. Never more than `room`; `None` if it is
    /// too small. Asked only if [`Card::CAPABILITIES`] have [`RxOffloads::HEADER_SPLIT`].
    fn header_buffer(_room: usize) -> Option<usize> {
        None
    }

    /// Most descriptors that a packet can have which the card coalesces into buffers of so many bytes. Asked only if
    /// [`Card::CAPABILITIES`] have [`RxOffloads::LRO`].
    fn coalesced(_buffer: usize) -> u16 {
        0
    }

    /// Hand a receive queue to the card, head and tail at 0. The tail is moved right after.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if the card does not take it.
    fn start_receive(&mut self, device: &Device, filters: &Filters, setup: RxSetup) -> Result<(), Error>;

    /// Hand a transmit queue to the card, head and tail at 0.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if the card does not take it.
    fn start_transmit(&mut self, device: &Device, setup: TxSetup) -> Result<(), Error>;

    /// Stop a receive queue while others run: afterwards the card writes to none of its memory. Called only if
    /// [`Capabilities::queue_stop`] says so.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if the card does not let go of it.
    fn stop_receive(&mut self, device: &Device, queue: usize) -> Result<(), Error> {
        Err(device.unsupported("stopping receive queue", queue, "no way to stop one"))
    }

    /// Stop a transmit queue while others run: afterwards the card reads and writes none of its memory. The card has reported all that
    /// the queue was given, or had its time to. Called only if [`Capabilities::queue_stop`] says so.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if the card does not let go of it.
    fn stop_transmit(&mut self, device: &Device, queue: usize) -> Result<(), Error> {
        Err(device.unsupported("stopping transmit queue", queue, "no way to stop one"))
    }

    /// Have RSS lead to queues that run: write the redirection table, of as many queue numbers as [`Capabilities::rss`] says. With none
    /// the card has a way of its own. Frames may be coming in.
    fn write_redirection(&self, _device: &Device, _queues: &[u16]) {}

    /// The tail register of a receive queue.
    fn receive_tail(&self, queue: usize) -> (super::Register, usize);

    /// The tail register of a transmit queue.
    fn transmit_tail(&self, queue: usize) -> (super::Register, usize);

    /// Every queue has been handed over and its tail is moved: let frames in.
    fn enable(&mut self, _device: &Device) {}

    /// The link as it is now.
    fn link(&mut self, device: &Device) -> Link;

    /// Have link changes, and what else there is of [`PortEvents`], raise interrupt vector `queues`. That is 0 where receive queues have
    /// no interrupts, and by MSI-X or MSI; else MSI-X, the vectors before it are the queues', and none of them is armed yet.
    fn enable_interrupts(&mut self, device: &Device, queues: usize);

    /// What has happened since the last time. What does from now on raises the next interrupt.
    fn take_events(&mut self, device: &Device) -> PortEvents;

    /// Have the next packet of a receive queue raise its vector, once, and forget those before. What the card wrote into the ring
    /// before that is to be there when this returns. Called only if [`Capabilities::rx_interrupts`] says so.
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the card is.
    fn arm_receive(device: &Device, _queue: usize) -> Result<(), Error> {
        Err(device.gone())
    }

    /// Whether it goes on as it was started, asked by [`Port::check`](crate::Port::check) of one that is on the bus.
    ///
    /// # Errors
    ///
    /// [`Error::WasReset`] if somebody else has reset it.
    fn check(&self, _device: &Device) -> Result<(), Error> {
        Ok(())
    }

    /// Answer what its virtual functions ask. See [`Port::serve_functions`](crate::Port::serve_functions).
    ///
    /// # Errors
    ///
    /// [`Error::Gone`] if the card is not there.
    fn serve_functions(&mut self, _device: &Device, _filters: &Filters) -> Result<(), Error> {
        Ok(())
    }

    // Filters. An error leaves the card as it was.

    /// Write promiscuous and all-multicast.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it is not the card's to decide.
    fn write_modes(&self, device: &Device, filters: &Filters) -> Result<(), Error>;

    /// Write the unicast addresses.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it is not the card's to decide.
    fn write_addresses(&self, device: &Device, filters: &Filters) -> Result<(), Error>;

    /// Write the groups.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it is not the card's to decide.
    fn write_multicast(&self, device: &Device, filters: &Filters) -> Result<(), Error>;

    /// Write the VLANs. Called only if [`Capabilities::vlan_filter`] says so.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it is not the card's to decide; [`Error::Unsupported`] if it cannot as it is started.
    fn write_vlans(&self, _device: &Device, _filters: &Filters) -> Result<(), Error> {
        Ok(())
    }

    /// Write the flow rules. Called only if [`Capabilities::flow`] says so.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if it cannot as it is started.
    fn write_flows(&self, _device: &Device, _filters: &Filters) -> Result<(), Error> {
        Ok(())
    }
}
