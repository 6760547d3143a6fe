//! A server of a small card.

// Each test program uses a part of this.
#![allow(dead_code, unused_imports)]

mod card;
pub(crate) mod raw;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pagewire_hugepages::PageSize;
use pagewire_models::server::{Counters, Server, ServerOptions, Stopper};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use tempfile::TempDir;

pub(crate) use card::{
    ANSWER, BAR0, Card, DONE, DOORBELL, ECHO, FAR, IOVA, LEN, RAISE, REFUSED, RESETS, SCRATCH,
};

/// A server in a thread of its own, until it is dropped.
pub(crate) struct Running {
    pub(crate) path: PathBuf,
    pub(crate) counters: Arc<Counters>,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// Serves a card, with a time limit for clients that a test can wait for.
pub(crate) fn serve(mappable: bool) -> Running {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("card");
    let options = ServerOptions { mappable, timeout: Duration::from_secs(2) };
    let server = Server::bind(&path, options).unwrap();
    let (stopper, counters) = (server.stopper(), server.counters());
    let thread = std::thread::spawn(move || server.run(&mut Card::new()).unwrap());
    Running { path, counters, stopper, thread: Some(thread), _folder: folder }
}

impl Running {
    pub(crate) fn count(&self, which: fn(&Counters) -> &AtomicU64) -> u64 {
        which(&self.counters).load(Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

pub(crate) fn space() -> AddressSpace {
    let options = AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..AddressSpaceOptions::default() };
    AddressSpace::new(options).unwrap()
}

/// Waits for something that another thread or process is about to do.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is() {
        assert!(Instant::now() < end, "{what} within 10 s");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A client as it should be is served.
pub(crate) fn next_is_served(running: &Running, after: &str) {
    let start = Instant::now();
    let function = space().open_vfio_user(&running.path).unwrap_or_else(|error| panic!("{after}: {error}"));
    let bar = function.bar(0).unwrap();
    bar.write32(SCRATCH, 77);
    assert_eq!(bar.read32(SCRATCH), 77, "{after}");
    assert!(start.elapsed() < Duration::from_secs(10), "{after}: {:?}", start.elapsed());
}
