//! Functions behind a UNIX socket: the client's half of the vfio-user protocol, and what the server shares with it.
//!
//! A process that models a card serves it on a socket; a driver opens it with
//! [`AddressSpace::open_vfio_user`](crate::AddressSpace::open_vfio_user) and cannot tell it from one that the kernel's VFIO
//! hands out. The protocol carries VFIO's own structures as messages. Memory goes to the server as the descriptors of its
//! segments, interrupts come as eventfds, registers are read and written by message or, where the server offers it, in
//! memory that both ends map.
//!
//! [`wire`] is the messages and [`transport`] gets them across: both ends use these two. They are ours and not the crate
//! `vfio_user`'s, whose client (0.1.7) takes a refusal of DMA_MAP for success, waits for ever for an answer and for a body
//! that a refusal does not have, and matches no message numbers, and whose server stays out of step after a command it
//! does not know and panics at a VERSION without capabilities. The part of the protocol that a network card needs is
//! small.
//!
//! Neither end trusts the other. Every answer has a time limit; every length is bounded before anything is allocated; a file
//! is mapped only if it is sealed against shrinking. The first error of a connection is reported and ends it. After that
//! accesses to configuration space fail, and registers read as all-ones, as those of a card that was pulled out do.
//! Registers in mapped memory keep the value last stored there.

mod connection;
mod device;
mod listener;
pub mod transport;
pub mod wire;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use self::connection::{VfioUserCause, VfioUserError};
pub use self::listener::{ListenError, Listener};

use self::connection::Connection;
use self::device::{SocketDevice, SocketDomain};
use crate::backend::{CONFIG_REGION, Device};
use crate::sysfs::{FunctionInfo, Sysfs};
use crate::vfio::Opening;
use crate::{Address, Error};

/// Offsets in the header that every function has (PCI Local Bus Specification 3.0, section 6.1).
const VENDOR: usize = 0x00;
const DEVICE: usize = 0x02;
const REVISION: usize = 0x08;
const SUBSYSTEM_VENDOR: usize = 0x2c;
const SUBSYSTEM_DEVICE: usize = 0x2e;

/// Connects to the server at a socket.
pub(crate) fn open(
    socket: &Path,
    timeout: Duration,
    sysfs: &Sysfs,
) -> Result<(FunctionInfo, Opening), Error> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let connection = Arc::new(Connection::open(socket, timeout)?);
    let domain = Arc::new(SocketDomain::new(connection.clone()));
    let device = SocketDevice::new(connection, domain.clone())?;
    let address = Address::vfio_user(NEXT.fetch_add(1, Ordering::Relaxed));
    let mut header = [0; 64];
    device
        .region(CONFIG_REGION)
        .and_then(|config| device.read(&config, 0, &mut header))
        .map_err(Error::io(format!("reading the configuration space of {}", socket.display())))?;
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let class = u32::from_le_bytes([header[REVISION + 1], header[REVISION + 2], header[REVISION + 3], 0]);
    let mut info = FunctionInfo {
        address,
        socket: Some(socket.into()),
        vendor_id: word(VENDOR),
        device_id: word(DEVICE),
        subsystem_vendor_id: word(SUBSYSTEM_VENDOR),
        subsystem_device_id: word(SUBSYSTEM_DEVICE),
        class,
        revision: header[REVISION],
        vendor_name: None,
        device_name: None,
        driver: None,
        iommu_group: None,
        no_iommu: false,
        group_members: Vec::new(),
        numa_node: None,
        interfaces: Vec::new(),
    };
    sysfs.name(std::slice::from_mut(&mut info));
    log::info!("{address} is the function at {}", socket.display());
    Ok((info, (Box::new(device), domain)))
}

#[cfg(test)]
mod tests;
