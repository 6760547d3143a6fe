//! Serves a function on a UNIX socket, by the vfio-user protocol: to our own drivers, and to guests of a QEMU with
//! `-device vfio-user-pci`.
//!
//! One client at a time is served, and the next when it is gone. Each starts with a function that was reset and with areas of
//! zeroes that no client before it can reach. Whatever a client sends, stops sending or does not take ends its connection
//! at worst: that is logged, everything it had mapped is unmapped, the function is reset.
//!
//! **DMA** goes through the table of what the client mapped, and only while the function's command register has bus
//! mastering on: `Machine::allow` decides that, in one place, and what it refuses is counted and logged with its
//! address. Memory that came as a file is mapped if the file is sealed against shrinking, since a mapping of any other
//! is a bus error that the client can cause at will; what is not sealed is read and written by system call, and what came
//! without a file by asking the client.
//!
//! **Areas** that a function says can be mapped are files in memory. With [`ServerOptions::mappable`] a client is offered
//! them; else, and for a client that does not want them, each access is a message. What is written to an area is in it
//! either way, and a write that came as a message is given to [`Function::write`] too.
//!
//! **Between messages** the function is polled: without a pause while there is something to do, then with pauses that
//! grow to a millisecond. A function without a client is not polled. [`run_together`] has several in one thread.
//!
//! The protocol's messages and their transport are `pagewire_pci::vfio_user`'s, which also says why no crate is used.

mod access;
mod dma;
mod interrupts;
mod machine;
mod memory;
mod place;
mod session;
mod shared;
mod signal;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagewire_pci::eventfd;
use pagewire_pci::vfio_user::transport::Broken;
use pagewire_pci::vfio_user::{ListenError, Listener};

pub use self::machine::Counters;

use self::place::Place;
use self::session::End;
use crate::Function;

/// How a [`Server`] serves.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Offer the areas that a function says can be mapped. Else every access is a message.
    pub mappable: bool,
    /// How long a client may take: for its first message, for the rest of a message that it began, to take a reply, to
    /// answer a request for its memory.
    pub timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions { mappable: true, timeout: Duration::from_secs(5) }
    }
}

/// An error of a server. What clients do is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// There is no socket to serve at.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The operating system said no.
    #[error("{doing}: {cause}")]
    Io {
        /// What was being done.
        doing: String,
        /// The answer. Part of the message, hence no `source` that would be printed once more.
        cause: io::Error,
    },
}

pub(crate) fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ServerError {
    let doing = doing.into();
    move |cause| ServerError::Io { doing, cause }
}

/// Makes [`Server::run`] return, from any thread.
#[derive(Clone)]
pub struct Stopper {
    set: Arc<AtomicBool>,
    event: Arc<File>,
}

impl Stopper {
    fn new() -> io::Result<Stopper> {
        Ok(Stopper { set: Arc::default(), event: Arc::new(eventfd()?) })
    }

    /// Stops the server, for good.
    pub fn stop(&self) {
        self.set.store(true, Ordering::Relaxed);
        // An error means that the counter is full, and so that it is set.
        let _ = (&*self.event).write_all(&1u64.to_ne_bytes());
    }

    fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }
}

/// Serves a function on a UNIX socket. Dropping it removes the socket.
pub struct Server {
    listener: Listener,
    options: ServerOptions,
    stopper: Stopper,
    counters: Arc<Counters>,
}

impl Server {
    /// Makes the socket. One that a server left behind that has ended is replaced.
    pub fn bind(path: &Path, options: ServerOptions) -> Result<Server, ServerError> {
        let listener = Listener::bind(path)?;
        let stopper = Stopper::new().map_err(failed("making an eventfd"))?;
        Ok(Server { listener, options, stopper, counters: Arc::default() })
    }

    /// What stops it.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// What it has counted, now and later.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Serves a function to one client after the other, until it is stopped.
    pub fn run(&self, function: &mut dyn Function) -> Result<(), ServerError> {
        run_together(vec![(self, function)])
    }
}

/// Serves functions side by side in one thread, each as [`Server::run`] does, until one of the servers is stopped: for
/// functions that share a core, which would otherwise take turns by the scheduler's clock. A client that does not finish a
/// message, or does not take a reply, holds up the clients of the others for as long as [`ServerOptions::timeout`]; one that
/// did not hand its memory over, for as long as that each time it is asked for some.
pub fn run_together<'a>(served: Vec<(&'a Server, &'a mut dyn Function)>) -> Result<(), ServerError> {
    let stoppers: Vec<&Stopper> = served.iter().map(|(server, _)| &server.stopper).collect();
    let place = |(server, function): (&'a Server, &'a mut dyn Function)| {
        Place::new(function, &server.options, server.counters(), Some(&server.listener))
    };
    let mut places: Vec<Place<'a>> = served.into_iter().map(place).collect();
    place::serve(&mut places, &stoppers)
}

/// Serves one client that is connected already, until it is gone or dropped: for fuzzing, where a socket's path would only
/// take time. Gives why it was dropped.
#[doc(hidden)]
pub fn serve_connected(
    function: &mut dyn Function,
    socket: UnixStream,
    options: &ServerOptions,
) -> Result<(), Broken> {
    let mut place = Place::new(function, options, Arc::default(), None);
    let mut idle: Option<Instant> = None;
    let mut turn = place.admit(socket).map(|()| true);
    loop {
        match turn {
            Ok(true) => idle = None,
            Ok(false) => {
                let quiet = idle.get_or_insert_with(Instant::now).elapsed();
                place::pause(std::slice::from_ref(&place), &[], quiet)?;
            }
            Err(end) => {
                place.clear();
                return match end {
                    End::Dropped(why) => Err(why),
                    End::Closed => Ok(()),
                };
            }
        }
        turn = place.turn();
    }
}
