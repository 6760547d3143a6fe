//! Link changes, as an application waits for them.

use anyhow::{Context, Result, ensure};
use pagewire_ethdev::Port;
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::pair::{Options, Side};

/// Prints the link, waits for interrupts until it has gone down and come up again, printing it each time, and stops.
pub(crate) fn watch(card: &str) -> Result<()> {
    let space = AddressSpace::new(AddressSpaceOptions::default())?;
    let mut side = Side::open(&space, card.parse()?, &Options::default())?;
    let mut was_down = false;
    loop {
        let link = side.port.link();
        println!("link {link}");
        was_down |= !link.is_up();
        if was_down && link.is_up() {
            break;
        }
        let interrupt = side.port.event_interrupt().context("the port has no interrupt for link changes")?;
        let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
        let events = poll(&mut [PollFd::from_borrowed_fd(interrupt, PollFlags::IN)], Some(&limit))?;
        ensure!(events == 1, "no interrupt within 30 s");
    }
    side.stop()?;
    Ok(())
}
