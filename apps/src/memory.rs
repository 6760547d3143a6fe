//! How much packet memory ports take, and of which pages.

use std::fmt;

use anyhow::{Result, bail};
use pagewire_ethdev::{DescriptorRing, Pool};
use pagewire_hugepages::{Counts, PageSize, Sysfs};
use pagewire_pci::AddressSpace;
use pagewire_pool::PoolConfig;

use crate::ports::PortSpec;

/// Fragments of a pool besides those that are counted: the owner's cache, magazines.
const SPARE_FRAGMENTS: usize = 1024;
/// The same in small pages: two pools and their rings are within the 8 MiB that an ordinary user may lock.
const SMALL_SPARE_FRAGMENTS: usize = 512;

/// What a command needs for its ports.
pub(crate) struct Needs<'a> {
    /// All of them: which pages will do is a matter of each.
    pub(crate) ports: &'a [PortSpec],
    /// How many of them have the queue pairs.
    pub(crate) paired: usize,
    /// Queue pairs of a port, each with a pool of its own.
    pub(crate) queues: u16,
    /// The pages asked for.
    pub(crate) pages: Option<PageSize>,
    /// Descriptors of a queue pair's rings together.
    pub(crate) descriptors: u32,
    /// Fragments of a pool besides those in rings: bursts on their way, packets that others hold.
    pub(crate) elsewhere: usize,
    /// Fragments of a pool, if somebody said how many.
    pub(crate) fragments: Option<u32>,
    /// Bytes before the data of a packet.
    pub(crate) headroom: u16,
    /// Pools besides, each for a queue that only sends, and the bytes of their longest frame.
    pub(crate) tx_pools: usize,
    pub(crate) tx_longest: usize,
}

impl Needs<'_> {
    /// Does what needs memory with the pages asked for, or with small ones where there are no others and these will do.
    pub(crate) fn with_pages<T>(&self, make: impl Fn(PageSize) -> Result<T>) -> Result<T> {
        let page_size = self.page_size()?;
        match make(page_size) {
            // What was free a moment ago is not any more, or a limit forbids it.
            Err(error) if is_lack(&error) && page_size.is_huge() && self.may_be_small() => {
                make(go_small(&format!("{error:#}")))
            }
            made => made,
        }
    }

    /// The pool of a port's queue.
    pub(crate) fn make_pool(
        &self,
        page_size: PageSize,
        space: &AddressSpace,
        port: usize,
        queue: u16,
    ) -> Result<Pool, pagewire_pool::Error> {
        Pool::new(&self.pool_config(page_size, port, queue), space)
    }

    /// The pool of a port's queue that only sends.
    pub(crate) fn make_tx_pool(
        &self,
        page_size: PageSize,
        space: &AddressSpace,
        port: usize,
        queue: u16,
    ) -> Result<Pool, pagewire_pool::Error> {
        Pool::new(&self.tx_pool_config(page_size, port, queue), space)
    }

    /// Whether small pages will do where there are no huge ones: no port goes through an IOMMU, and nobody asked for a size.
    pub(crate) fn may_be_small(&self) -> bool {
        self.pages.is_none() && !self.ports.iter().any(PortSpec::is_hardware)
    }

    /// The pages of pools and rings. Asked for before anything is touched, and for all of them: each pool would only say what
    /// it lacks itself.
    fn page_size(&self) -> Result<PageSize> {
        let wanted = self.pages.unwrap_or(PageSize::Size2M);
        match self.shortage(&Sysfs::default(), wanted) {
            Ok(None) => Ok(wanted),
            Ok(Some(shortage)) => self.go_on_without(&shortage.to_string()),
            Err(error) => self.go_on_without(&error.to_string()),
        }
    }

    fn go_on_without(&self, why: &str) -> Result<PageSize> {
        if self.may_be_small() { Ok(go_small(why)) } else { bail!("{why}") }
    }

    /// Pages of a size that the ports take.
    pub(crate) fn count(&self, page_size: PageSize) -> u64 {
        let pool = self.pool_config(page_size, 0, 0);
        let queues = self.paired * usize::from(self.queues);
        let pages = |bytes: usize| bytes.div_ceil(page_size.bytes()) as u64;
        let rings = queues * self.descriptors as usize * DescriptorRing::<()>::DESCRIPTOR;
        let tx_pool = self.tx_pool_config(page_size, 0, 0);
        queues as u64 * pages(pool.fragments * pool.fragment_size)
            + self.tx_pools as u64 * pages(tx_pool.fragments * tx_pool.fragment_size)
            + pages(rings)
    }

    /// What is missing of huge pages of a size.
    pub(crate) fn shortage(
        &self,
        sysfs: &Sysfs,
        page_size: PageSize,
    ) -> Result<Option<Shortage>, pagewire_hugepages::Error> {
        if !page_size.is_huge() {
            return Ok(None);
        }
        Ok(Shortage::of(self.count(page_size), sysfs.counts(page_size, None)?))
    }

    /// What a port's queue is called.
    pub(crate) fn queue_name(&self, port: usize, queue: u16) -> String {
        if self.queues > 1 { format!("port{port}q{queue}") } else { format!("port{port}") }
    }

    fn pool_config(&self, page_size: PageSize, port: usize, queue: u16) -> PoolConfig {
        let spare = if page_size.is_huge() { SPARE_FRAGMENTS } else { SMALL_SPARE_FRAGMENTS };
        let needed = self.descriptors as usize + spare + self.elsewhere;
        PoolConfig {
            name: self.queue_name(port, queue),
            fragments: self.fragments.map_or(needed, |count| count as usize),
            headroom: self.headroom,
            backing: page_size,
            ..PoolConfig::default()
        }
    }

    fn tx_pool_config(&self, page_size: PageSize, port: usize, queue: u16) -> PoolConfig {
        let config = self.pool_config(page_size, port, queue);
        let (name, headroom) = (format!("{}tx", config.name), PoolConfig::HEADROOM);
        // A frame is one fragment, which a page holds.
        let fragment_size = (self.tx_longest + usize::from(headroom)).next_power_of_two().max(2048);
        let page_size = fragment_size.max(config.page_size);
        PoolConfig { name, headroom, fragment_size, page_size, ..config }
    }
}

/// Fewer free huge pages than are needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shortage {
    needed: u64,
    free: u64,
    counts: Counts,
}

impl Shortage {
    /// If so many are not to be had.
    pub(crate) fn of(needed: u64, counts: Counts) -> Option<Shortage> {
        let free = counts.free.saturating_sub(counts.promised);
        (free < needed).then_some(Shortage { needed, free, counts })
    }

    /// What is found.
    pub(crate) fn found(&self) -> String {
        let Shortage { needed, free, counts: Counts { page_size, node, reserved, .. } } = self;
        let on = node.map_or(String::new(), |node| format!(" on NUMA node {node}"));
        format!(
            "{needed} free huge pages of {page_size} are needed{on}, {free} of the {reserved} reserved are free"
        )
    }

    /// The command that mends it.
    pub(crate) fn command(&self) -> String {
        let Counts { page_size, node, reserved, .. } = self.counts;
        let count = reserved - self.free.min(reserved) + self.needed;
        let node = node.map_or(String::new(), |node| format!(" --node {node}"));
        format!("pagewire hugepages reserve --size {} --count {count}{node}", page_size.short())
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: run `{}` as root", self.found(), self.command())
    }
}

/// Small pages then, and what that means.
fn go_small(why: &str) -> PageSize {
    note!(
        "{why}\ngoing on with 4 KiB pages, which cost TLB misses and locked memory, because no port is a real device"
    );
    PageSize::Size4K
}

/// Whether an error is a lack of memory of the kind asked for.
fn is_lack(error: &anyhow::Error) -> bool {
    use pagewire_ethdev::Error;
    matches!(
        error.downcast_ref::<Error>(),
        Some(Error::Pci(pagewire_pci::Error::Memory(_)) | Error::Pool(pagewire_pool::Error::Memory { .. }))
    ) || matches!(error.downcast_ref::<pagewire_pool::Error>(), Some(pagewire_pool::Error::Memory { .. }))
}
