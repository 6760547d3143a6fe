//! The end of the sockets that asks.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use pagewire_pci::vfio_user::transport::connect;
use serde_json::Value;

use super::document::{Get, Request, VERSION};
use super::place;

/// How long a process may take to let us in, and for its answer.
const ADMISSION: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer: hundreds of ports with hundreds of queues are a tenth of that.
const LONGEST: u64 = 64 << 20;
/// A socket that nobody listens at is removed when it is this old. A process that is just making its own needs less.
const STALE: Duration = Duration::from_secs(1);

/// A process that serves statistics.
pub(super) struct Target {
    pub(super) id: String,
    socket: PathBuf,
}

/// Why there is no answer.
enum Failure {
    /// The process has ended.
    Gone,
    Other(anyhow::Error),
}

impl Target {
    /// What the process says; `None` if it has ended.
    pub(super) fn ask(&self, get: Get) -> Option<Result<Value>> {
        match ask(&self.socket, get) {
            Ok(document) => Some(Ok(document)),
            Err(Failure::Gone) => {
                remove_stale(&self.socket);
                None
            }
            Err(Failure::Other(error)) => Some(Err(error.context(self.id.clone()))),
        }
    }
}

/// Every process of this user that may serve statistics, by id. A folder that is not to be trusted is an error if there is
/// nothing else.
pub(super) fn targets() -> Result<Vec<Target>> {
    let (mut targets, mut refused) = (Vec::new(), None);
    for folder in place::folders().into_iter().filter(|folder| folder.exists()) {
        match place::check(&folder) {
            Ok(()) => targets.extend(sockets(&folder)),
            Err(error) => refused = Some(error),
        }
    }
    targets.sort_by_key(|target: &Target| target.id.clone());
    match refused {
        Some(error) if targets.is_empty() => Err(error),
        _ => Ok(targets),
    }
}

/// Remove the sockets of processes that ended without a chance to.
pub(super) fn clean(folder: &Path) {
    for target in sockets(folder) {
        if let Err(error) = connect(&target.socket, Duration::from_millis(100))
            && error.kind() == ErrorKind::ConnectionRefused
        {
            remove_stale(&target.socket);
        }
    }
}

fn sockets(folder: &Path) -> Vec<Target> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let target = |path: PathBuf| Some(Target { id: place::id_of(&path)?.to_owned(), socket: path });
    entries.filter_map(|entry| target(entry.ok()?.path())).collect()
}

fn remove_stale(socket: &Path) {
    let Ok(about) = std::fs::symlink_metadata(socket) else { return };
    let age = about.modified().ok().and_then(|made| SystemTime::now().duration_since(made).ok());
    if about.file_type().is_socket() && age.is_some_and(|age| age >= STALE) {
        log::debug!("{} is of a process that has ended", socket.display());
        // Somebody else may have been faster.
        let _ = std::fs::remove_file(socket);
    }
}

fn ask(socket: &Path, get: Get) -> Result<Value, Failure> {
    let mut stream = connect(socket, ADMISSION).map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Failure::Gone,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Failure::Other(anyhow::anyhow!("it lets nobody in; it has stopped, or too many ask"))
        }
        _ => Failure::Other(error.into()),
    })?;
    let answer = exchange(&mut stream, get).map_err(Failure::Other)?;
    if answer.is_empty() {
        return Err(Failure::Gone);
    }
    understand(&answer).map_err(Failure::Other)
}

fn exchange(stream: &mut UnixStream, get: Get) -> Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut answer = Vec::new();
    let mut request = serde_json::to_vec(&Request { get })?;
    request.push(b'\n');
    match stream.write_all(&request) {
        // It is ending.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(answer),
        sent => sent?,
    }
    let mut bytes = [0; 1 << 16];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no whole answer within {} s", PATIENCE.as_secs());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(answer),
            Ok(count) => answer.extend(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(answer),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        if answer.len() as u64 > LONGEST {
            bail!("an answer of more than {LONGEST} bytes");
        }
    }
}

fn understand(answer: &[u8]) -> Result<Value> {
    let document: Value = serde_json::from_slice(answer).context("an answer that is no JSON")?;
    let version = &document["version"];
    if version != VERSION {
        bail!(
            "statistics of version {version}, where this pagewire knows {VERSION}: use the other's `pagewire stats`"
        );
    }
    match document["error"].as_str() {
        Some(error) => bail!("it refuses: {error}"),
        None => Ok(document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_another_version_and_garbage_are_errors() {
        let error = |text: &str| understand(text.as_bytes()).expect_err("it is refused").to_string();
        assert!(error(r#"{"version":2}"#).contains("of version 2, where this pagewire knows 1"));
        assert!(error("{}").contains("of version null"));
        assert!(error("garbage").contains("no JSON"));
        assert!(error(r#"{"version":1,"error":"no"}"#).contains("refuses: no"));
        assert!(understand(br#"{"version":1}"#).is_ok());
    }
}
