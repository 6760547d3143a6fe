//! The process that has the packets: its socket.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use pagewire_pci::vfio_user::Listener;

use super::door::Door;
use super::error::failed;
use super::hub::Hub;
use super::producer::Producer;
use super::stats::ConsumerInfo;
use super::wake::Event;
use super::{Error, Options, layout};
use crate::pool::Pool;

/// Lets consumers attach at a UNIX socket. Dropping it ends their connections and removes the socket.
pub struct Server {
    hub: Arc<Hub>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Makes the socket, which only this process's user, root and [`Options::user`] can connect to. One that was left behind by
    /// a process that has ended is replaced.
    ///
    /// # Errors
    ///
    /// [`Error`], with nothing left behind.
    pub fn bind(path: &Path, options: Options) -> Result<Server, Error> {
        options.check()?;
        let listener = Listener::bind(path)?;
        // Who connects before this is done is still asked for credentials.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(failed(format!("closing {} to others", path.display())))?;
        if options.user.is_some() {
            chown(path, options.user, None)
                .map_err(failed(format!("giving {} to its user", path.display())))?;
        }
        let hub = Arc::new(Hub::new(options, Event::new().map_err(failed("making an eventfd"))?));
        let door = Door::new(hub.clone(), listener);
        let thread = std::thread::Builder::new().name("handover".into()).spawn(move || door.run());
        Ok(Server { hub, thread: Some(thread.map_err(failed("starting a thread"))?) })
    }

    /// What offers the packets of a pool; several can have the same name.
    pub fn producer(&self, name: &str, pool: &Pool) -> Result<Producer, Error> {
        let end = name.char_indices().map(|(at, char)| at + char.len_utf8());
        let end = end.take_while(|end| *end <= layout::MAX_TEXT).last().unwrap_or(0);
        Producer::new(self.hub.clone(), &name[..end], pool)
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Who is attached.
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        self.hub.state().clients.iter().map(|client| client.info()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.hub.stop.store(true, Ordering::Relaxed);
        self.hub.event.set();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that lets consumers in has ended by a bug");
        }
    }
}
