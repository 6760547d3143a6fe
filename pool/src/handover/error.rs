use std::io;
use std::path::PathBuf;

use pagewire_pci::vfio_user::ListenError;
use pagewire_pci::vfio_user::transport::Broken;
use pagewire_pci::vfio_user::wire::Malformed;

/// Why packets cannot be handed over or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of the options is out of its range.
    #[error("hand-over: {field} is {found}, expected {expected}")]
    Options {
        /// Which field.
        field: &'static str,
        /// What it was.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// There is no socket to serve at.
    #[error("hand-over: {0}")]
    Listen(#[from] ListenError),
    /// The server has as many producers, or segments of memory, as there can be.
    #[error("hand-over: one server has {most} {what}, the most there can be: drop some first")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        most: usize,
    },
    /// Nobody serves packets there.
    #[error(
        "nobody hands packets over at {path} ({cause}): start `pagewire l2fwd --capture-socket {path} …`, or any process with a \
         `handover::Server` there, as this user or as root",
        path = path.display()
    )]
    NoServer {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The server does not let this process attach.
    #[error("attaching at {path} was refused: {why}", path = path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// As the server put it.
        why: String,
    },
    /// The other end does not speak this protocol, or stopped to.
    #[error("the hand-over at {path}: {cause}", path = path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        cause: Broken,
    },
    /// The producer's process has ended, or has thrown this one out.
    #[error("the producer at {path} has closed the connection", path = path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// A packet has been taken back: this process was thrown out, or its producer has gone.
    #[error("the producer at {path} has taken its packets back", path = path.display())]
    Revoked {
        /// The socket.
        path: PathBuf,
    },
    /// The memory can be read only.
    #[error("packets are there to be read: attach with `Access::ReadWrite` to change them")]
    ReadOnly,
    /// The operating system said no.
    #[error("{doing}: {cause}")]
    Io {
        /// What was being done.
        doing: String,
        /// The answer. Part of the message, hence no `source` that would be printed once more.
        cause: io::Error,
    },
}

pub(super) fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let doing = doing.into();
    move |cause| Error::Io { doing, cause }
}

/// Why a server refuses a greeting. The consumer gets it as text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// What came is no greeting.
    #[error("this is no greeting: {0}")]
    Malformed(#[from] Malformed),
    /// Another version of the protocol.
    #[error(
        "it speaks version {found} of the protocol, here is version {expected}: use the same release of pagewire for both"
    )]
    Version {
        /// The consumer's.
        found: u32,
        /// The server's.
        expected: u32,
    },
    /// More access than the server grants.
    #[error("it asks to write the packets' memory, which is granted for reading only")]
    Access,
    /// Another user's process.
    #[error("user {found} may not attach, {allowed} may")]
    User {
        /// The user.
        found: u32,
        /// Who may.
        allowed: String,
    },
    /// There are enough.
    #[error("{0} consumers are attached already, the most there can be: end one of them first")]
    Full(usize),
    /// What a consumer needs could not be made.
    #[error("{0}")]
    Failed(String),
}
