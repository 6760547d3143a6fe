//! How much packet memory it takes, and of which pages.

use anyhow::{Result, bail};
use pagewire_ethdev::{DescriptorRing, Pool};
use pagewire_hugepages::PageSize;
use pagewire_pci::AddressSpace;
use pagewire_pool::PoolConfig;

use super::Args;
use crate::ports::PortSpec;

/// Fragments of a pool besides those in rings: the owner's cache, magazines, bursts on their way.
const SPARE_FRAGMENTS: usize = 1024;
/// The same in small pages: two pools and their rings are within the 8 MiB that an ordinary user may lock.
const SMALL_SPARE_FRAGMENTS: usize = 512;

/// Whether small pages will do where there are no huge ones: no port goes through an IOMMU, and nobody asked for a size.
pub(super) fn may_be_small(args: &Args) -> bool {
    args.pages.is_none() && !args.ports.iter().any(PortSpec::is_hardware)
}

/// The pages of pools and rings. Asked for before anything is touched, and for all of them: each pool would only say what
/// it lacks itself.
pub(super) fn page_size(args: &Args) -> Result<PageSize> {
    let wanted = args.pages.unwrap_or(PageSize::Size2M);
    match shortage(args, wanted) {
        None => Ok(wanted),
        Some(why) if may_be_small(args) => Ok(go_small(&why)),
        Some(why) => bail!(why),
    }
}

/// Small pages then, and what that means.
pub(super) fn go_small(why: &str) -> PageSize {
    note!(
        "{why}\ngoing on with 4 KiB pages, which cost TLB misses and locked memory, because no port is a real device"
    );
    PageSize::Size4K
}

/// What is missing of huge pages of a size.
fn shortage(args: &Args, page_size: PageSize) -> Option<String> {
    if !page_size.is_huge() {
        return None;
    }
    let pool = pool_config(args, page_size, 0, 0);
    let queues = args.ports.len() * usize::from(args.queues);
    let pages = |bytes: usize| bytes.div_ceil(page_size.bytes()) as u64;
    let rings = queues * (args.rx_ring + args.tx_ring) as usize * DescriptorRing::<()>::DESCRIPTOR;
    let needed = queues as u64 * pages(pool.fragments * pool.fragment_size) + pages(rings);
    let counts = match pagewire_hugepages::Sysfs::default().counts(page_size, None) {
        Ok(counts) => counts,
        Err(error) => return Some(error.to_string()),
    };
    let free = counts.free.saturating_sub(counts.promised);
    (free < needed).then(|| {
        format!(
            "{needed} free huge pages of {page_size} are needed, {free} of the {} reserved are free: run `pagewire \
             hugepages reserve --size {} --count {}` as root",
            counts.reserved,
            page_size.short(),
            counts.reserved - free.min(counts.reserved) + needed,
        )
    })
}

fn pool_config(args: &Args, page_size: PageSize, port: usize, queue: u16) -> PoolConfig {
    let spare = if page_size.is_huge() { SPARE_FRAGMENTS } else { SMALL_SPARE_FRAGMENTS };
    let needed = (args.rx_ring + args.tx_ring) as usize + spare + 2 * usize::from(args.burst);
    PoolConfig {
        name: if args.queues > 1 { format!("port{port}q{queue}") } else { format!("port{port}") },
        fragments: args.fragments.map_or(needed, |count| count as usize),
        headroom: if args.is_jumbo() { 0 } else { PoolConfig::HEADROOM },
        backing: page_size,
        ..PoolConfig::default()
    }
}

/// The pool of a port's queue.
pub(super) fn make_pool(
    args: &Args,
    page_size: PageSize,
    space: &AddressSpace,
    port: usize,
    queue: u16,
) -> Result<Pool, pagewire_pool::Error> {
    Pool::new(&pool_config(args, page_size, port, queue), space)
}

/// Whether an error is a lack of memory of the kind asked for.
pub(super) fn is_lack(error: &anyhow::Error) -> bool {
    use pagewire_ethdev::Error;
    matches!(
        error.downcast_ref::<Error>(),
        Some(Error::Pci(pagewire_pci::Error::Memory(_)) | Error::Pool(pagewire_pool::Error::Memory { .. }))
    ) || matches!(error.downcast_ref::<pagewire_pool::Error>(), Some(pagewire_pool::Error::Memory { .. }))
}
