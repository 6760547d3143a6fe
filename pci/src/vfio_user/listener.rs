//! A UNIX socket that is listened on, and its file.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::transport::Channel;

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another server has the socket.
    #[error("{path} is the socket of a server that runs; end that one first, or take another path", path = .0.display())]
    InUse(PathBuf),
    /// The operating system said no.
    #[error("{doing}: {cause}")]
    Io {
        /// What was being done.
        doing: String,
        /// The answer. Part of the message, hence no `source` that would be printed once more.
        cause: io::Error,
    },
}

/// A socket that is listened on. Dropping it removes the file, if that is still its own.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    file: Option<(u64, u64)>,
    socket: UnixListener,
}

impl Listener {
    /// Makes the socket, which does not block. One that a process left behind that has ended is replaced.
    pub fn bind(path: &Path) -> Result<Listener, ListenError> {
        let socket = UnixListener::bind(path).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse if !is_socket(path) => {
                Err(io::Error::other("something that is no socket has this path; take another"))
            }
            io::ErrorKind::AddrInUse if is_stale(path) => {
                std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
            }
            _ => Err(error),
        });
        let socket = socket.map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(path.into()),
            _ => failed(format!("making the socket {}", path.display()))(cause),
        })?;
        let listener = Listener { path: path.into(), file: identity(path), socket };
        listener
            .socket
            .set_nonblocking(true)
            .map_err(failed("making a socket that does not block".into()))?;
        Ok(listener)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next who wants in, if somebody does.
    pub fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().map(|(socket, _)| socket)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have removed it and made another.
        if self.file.is_some()
            && identity(&self.path) == self.file
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::debug!("removing {}: {error}", self.path.display());
        }
    }
}

fn failed(doing: String) -> impl FnOnce(io::Error) -> ListenError {
    move |cause| ListenError::Io { doing, cause }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket())
}

/// Whether this is a socket that has nobody behind it.
fn is_stale(path: &Path) -> bool {
    let answer = Channel::connect(path, Duration::from_millis(100));
    answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}
