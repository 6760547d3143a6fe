//! What is counted of hand-overs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$about:meta])* $name:ident),* $(,)?) => {
        /// What became of packets and of returns. Packets, unless it says otherwise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counts { $($(#[$about])* pub $name: u64,)* }

        impl Counts {
            /// Every count with its name, for reports.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }

            pub(super) fn add(&mut self, other: &Counts) {
                $(self.$name += other.$name;)*
            }
        }

        /// The same, of one consumer, added to by every producer it receives from.
        #[derive(Debug, Default)]
        struct Shared { $($name: AtomicU64,)* }

        impl Shared {
            fn add(&self, counts: &Counts) {
                $(if counts.$name > 0 { self.$name.fetch_add(counts.$name, Ordering::Relaxed); })*
            }

            fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Handed to a consumer.
    handed,
    /// Returned by a consumer that held them.
    returned,
    /// Taken back from consumers that went, or that were thrown out.
    reclaimed,
    /// Not handed to a consumer, because it holds as much as it may.
    quota_denied,
    /// Returns that name no place of the table.
    bad_index,
    /// Returns of what had been returned before by all who held it.
    stale_generation,
    /// Returns of what is with others, and not with who returned it.
    not_holder,
}

impl Counts {
    /// Returns that were not believed.
    pub fn bad_returns(&self) -> u64 {
        self.bad_index + self.stale_generation + self.not_holder
    }

    /// Packets that consumers hold now.
    pub fn held(&self) -> u64 {
        self.handed - self.returned - self.reclaimed
    }
}

/// One consumer of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its number: the first that ever attached is 1.
    pub id: u64,
    /// The process that attached.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// What became of its packets, over all producers, as of their last polls.
    pub counts: Counts,
}

/// What the threads of the server's process know of a consumer together.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) pid: i32,
    pub(super) uid: u32,
    counts: Shared,
    /// A producer wants it thrown out.
    evict: AtomicBool,
}

impl Client {
    pub(super) fn new(id: u64, pid: i32, uid: u32) -> Client {
        Client { id, pid, uid, counts: Shared::default(), evict: AtomicBool::new(false) }
    }

    pub(super) fn count(&self, counts: &Counts) {
        self.counts.add(counts);
    }

    pub(super) fn evict(&self) {
        self.evict.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evict.load(Ordering::Relaxed)
    }

    pub(super) fn info(&self) -> ConsumerInfo {
        ConsumerInfo { id: self.id, pid: self.pid, uid: self.uid, counts: self.counts.snapshot() }
    }
}
