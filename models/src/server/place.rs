//! Functions served by one thread, side by side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pagewire_pci::vfio_user::Listener;
use pagewire_pci::vfio_user::transport::Channel;
use pagewire_pci::wait_any;

use super::machine::Counters;
use super::session::{End, Session};
use super::shared::Shared;
use super::{ServerError, ServerOptions, Stopper, failed};
use crate::Function;

/// After this without anything to do a thread sleeps between looks, longer and longer.
const SPIN: Duration = Duration::from_micros(100);
/// The longest sleep while there is a client: what a doorbell or a frame may wait for after a long silence.
const LONGEST_NAP: Duration = Duration::from_millis(1);
/// Looks at a function that is busy, between two looks at a socket.
const TURNS: u32 = 16;

/// A function, and who comes to it.
pub(super) struct Place<'a> {
    pub(super) options: &'a ServerOptions,
    pub(super) counters: Arc<Counters>,
    /// Where clients come from, if there is to be another.
    pub(super) listener: Option<&'a Listener>,
    client: Client<'a>,
    turns: u32,
}

enum Client<'a> {
    None(&'a mut dyn Function),
    There(Box<Session<'a>>),
    /// While one becomes the other.
    Changing,
}

impl<'a> Place<'a> {
    /// A place without a client.
    pub(super) fn new(
        function: &'a mut dyn Function,
        options: &'a ServerOptions,
        counters: Arc<Counters>,
        listener: Option<&'a Listener>,
    ) -> Place<'a> {
        Place { options, counters, listener, client: Client::None(function), turns: 0 }
    }

    /// Lets a client in. Fails if that is not possible, which is the end of it.
    pub(super) fn admit(&mut self, socket: UnixStream) -> Result<(), End> {
        let Client::None(function) = &mut self.client else { return Ok(()) };
        let channel = Channel::accepted(socket, self.options.timeout)?;
        let shared = Shared::new(&**function)?;
        if let Client::None(function) = std::mem::replace(&mut self.client, Client::Changing) {
            let session = Session::new(function, channel, shared, self.options, self.counters.clone());
            self.client = Client::There(Box::new(session));
        }
        Ok(())
    }

    /// Whether there is a client.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.client, Client::There(_))
    }

    /// Does what there is to do, but not for long. Whether there was anything, or how the client's time ended.
    pub(super) fn turn(&mut self) -> Result<bool, End> {
        self.turns = self.turns.wrapping_add(1);
        let look = self.turns.is_multiple_of(TURNS);
        match &mut self.client {
            Client::There(session) => session.turn(look),
            _ if look => match self.listener.and_then(accept) {
                Some(socket) => {
                    let number = self.counters.clients.fetch_add(1, Ordering::Relaxed) + 1;
                    log::info!("client {number} at {}", self.path());
                    self.admit(socket).map(|()| true)
                }
                None => Ok(false),
            },
            _ => Ok(false),
        }
    }

    /// Ends the client's time: the function reaches nothing of it any more.
    pub(super) fn clear(&mut self) {
        match std::mem::replace(&mut self.client, Client::Changing) {
            Client::There(session) => self.client = Client::None(session.end()),
            other => self.client = other,
        }
    }

    fn path(&self) -> String {
        self.listener.map_or_else(String::new, |listener| listener.path().display().to_string())
    }

    fn tell(&self, end: End) {
        let (number, path) = (self.counters.clients.load(Ordering::Relaxed), self.path());
        match end {
            End::Closed => log::info!("client {number} at {path} is gone"),
            End::Dropped(why) => {
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                log::warn!("client {number} at {path} was dropped: {why}");
            }
        }
    }

    /// What becomes readable when somebody wants something.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.client {
            Client::There(session) => Some(session.as_fd()),
            _ => self.listener.map(|listener| listener.as_fd()),
        }
    }
}

/// One that wants in.
fn accept(listener: &Listener) -> Option<UnixStream> {
    listener
        .accept()
        .inspect_err(|error| {
            // One that was gone before it was accepted, or none; or no descriptor is left for it.
            if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                log::warn!("accepting a client at {}: {error}", listener.path().display());
                std::thread::sleep(Duration::from_millis(10));
            }
        })
        .ok()
}

/// Serves until it is stopped.
pub(super) fn serve(places: &mut [Place<'_>], stoppers: &[&Stopper]) -> Result<(), ServerError> {
    let mut idle: Option<Instant> = None;
    while !stoppers.iter().any(|stopper| stopper.is_set()) {
        let mut busy = false;
        for place in &mut *places {
            busy |= place.turn().unwrap_or_else(|end| {
                place.clear();
                place.tell(end);
                true
            });
        }
        if busy {
            idle = None;
        } else {
            let quiet = idle.get_or_insert_with(Instant::now).elapsed();
            pause(places, stoppers, quiet).map_err(failed("waiting for a client"))?;
        }
    }
    places.iter_mut().for_each(Place::clear);
    Ok(())
}

/// There was nothing to do for some time.
pub(super) fn pause(places: &[Place<'_>], stoppers: &[&Stopper], quiet: Duration) -> io::Result<()> {
    // Every function has been looked at by then, and every socket.
    if quiet < SPIN {
        std::hint::spin_loop();
        return Ok(());
    }
    let nap = places.iter().any(Place::is_taken).then(|| (quiet / 8).min(LONGEST_NAP));
    let fds = places.iter().filter_map(Place::fd).chain(stoppers.iter().map(|stopper| stopper.event.as_fd()));
    wait_any(&fds.collect::<Vec<_>>(), nap).map(drop)
}
