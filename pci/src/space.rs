//! What a set of devices sees: the same memory at the same addresses.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagewire_hugepages::{PageSize, Segment, SegmentOptions, window_len};

use crate::backend::{Device, Domain};
use crate::dma::{Arena, DmaBuffer, Piece};
use crate::iova::{self, Usable};
use crate::sysfs::{FunctionInfo, Sysfs};
use crate::vfio::Host;
use crate::{Address, Error, Function, vfio_user};

/// Which of the kernel's interfaces to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// iommufd where kernel and permissions allow, else group and container.
    #[default]
    Auto,
    /// `/dev/vfio/GROUP` and a container: every kernel has it.
    Group,
    /// `/dev/vfio/devices/vfioN` and `/dev/iommu`.
    Iommufd,
}

/// How an [`AddressSpace`] is to be made.
#[derive(Clone, Debug)]
pub struct AddressSpaceOptions {
    /// The kernel interface.
    pub backend: Backend,
    /// Accept devices without an IOMMU, which can then read and write all memory of the machine.
    pub unsafe_noiommu: bool,
    /// The pages that descriptor rings are made of. Small pages work only where there is an IOMMU.
    pub dma_page_size: PageSize,
    /// The NUMA node that descriptor rings are on: the card's, for speed. `None` leaves it to the caller's policy.
    pub dma_node: Option<u32>,
}

impl Default for AddressSpaceOptions {
    fn default() -> AddressSpaceOptions {
        AddressSpaceOptions {
            backend: Backend::Auto,
            unsafe_noiommu: false,
            dma_page_size: PageSize::Size2M,
            dma_node: None,
        }
    }
}

/// What a set of devices sees: every segment mapped here has one address, the same for every device opened here.
///
/// The address (IOVA) of a byte is `base + its offset in the process's window`. The base is chosen once, when the first
/// device is opened or the first segment is mapped, whichever comes first; open devices first where you can, because only
/// they know which addresses their IOMMU translates. Without an IOMMU addresses are physical, and differ in nothing that
/// a driver could see.
///
/// A clone is another handle of the same space. The space, its maps and the memory behind them live until the last
/// handle, [`Function`], [`crate::Bar`] and [`DmaBuffer`] of it is gone; then memory is unmapped, and freed after that.
///
/// ```no_run
/// use pagewire_hugepages::{PageSize, Segment, SegmentOptions};
/// use pagewire_pci::{AddressSpace, AddressSpaceOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let space = AddressSpace::new(AddressSpaceOptions::default())?;
/// let function = space.open("0000:01:00.0".parse()?)?;
/// let options = SegmentOptions { page_size: PageSize::Size2M, node: None, name: "packets".into() };
/// let packets = Segment::allocate(64 << 20, &options)?;
/// space.map(packets.clone())?;
/// println!("{} sees the packets at {:#x}", function.info().address, space.iova(&packets, 0)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AddressSpace {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    options: AddressSpaceOptions,
    sysfs: Sysfs,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// There is an IOMMU. Else the address of memory is its physical one.
    translates: bool,
    /// The IOVA of the window's first byte.
    base: Option<u64>,
    /// Dropped before the segments are: what is mapped in a domain goes with it, and so before the memory.
    domains: Vec<Arc<dyn Domain>>,
    host: Host,
    arena: Arena,
    segments: Vec<Arc<Segment>>,
    /// Segments that could not be unmapped: what a device may reach is not freed before its domain is.
    lost: Vec<Arc<Segment>>,
    /// The functions that are open. VFIO would open one twice, and two drivers would each undo what the other does.
    open: Vec<Address>,
}

impl AddressSpace {
    /// An empty space. No device is needed yet.
    pub fn new(options: AddressSpaceOptions) -> Result<AddressSpace, Error> {
        AddressSpace::with_sysfs(options, Sysfs::default())
    }

    pub(crate) fn with_sysfs(options: AddressSpaceOptions, sysfs: Sysfs) -> Result<AddressSpace, Error> {
        // Decided now and not with the first device, because memory may be mapped before that. A machine with an IOMMU
        // in use has it for its cards too.
        let translates = !options.unsafe_noiommu || sysfs.has_iommu();
        if !translates {
            log::warn!("no IOMMU: the devices opened here can read and write all of this machine's memory");
        }
        let state = Mutex::new(State { translates, ..State::default() });
        let inner = Inner { options, sysfs, state };
        Ok(AddressSpace { inner: Arc::new(inner) })
    }

    /// Opens a function that is bound to vfio-pci, and maps into its IOMMU what is mapped here.
    pub fn open(&self, address: Address) -> Result<Function, Error> {
        let inner = &self.inner;
        let info = inner.sysfs.function(address)?;
        if !info.is_vfio() {
            return Err(Error::NotBound { address, driver: info.driver });
        }
        if info.no_iommu && !inner.options.unsafe_noiommu {
            return Err(Error::NoIommuMode { address });
        }
        let opening = {
            let mut state = inner.lock();
            if info.no_iommu == state.translates {
                return Err(Error::MixedIommu { address, no_iommu: info.no_iommu });
            }
            if state.open.contains(&address) {
                return Err(Error::AlreadyOpen { address });
            }
            let opening = state.host.open(&inner.sysfs, &info, inner.options.backend);
            match opening {
                Ok(_) => state.open.push(address),
                // A group opened for a function that then could not be is of no use.
                Err(_) => state.prune(),
            }
            opening
        };
        let (device, domain) = opening?;
        self.adopt(info, device, domain)
    }

    /// Opens the function that a vfio-user server has behind a UNIX socket, such as a model of a card, and hands the
    /// server the memory that is mapped here. No root and no hardware is needed. A server that takes longer than 5 seconds to
    /// answer, now or later, counts as gone.
    pub fn open_vfio_user(&self, socket: &Path) -> Result<Function, Error> {
        self.open_vfio_user_within(socket, Duration::from_secs(5))
    }

    /// [`open_vfio_user`](AddressSpace::open_vfio_user) with a time limit of the caller's for each answer.
    pub fn open_vfio_user_within(&self, socket: &Path, limit: Duration) -> Result<Function, Error> {
        let translates = self.inner.lock().translates;
        let (info, (device, domain)) = vfio_user::open(socket, limit, &self.inner.sysfs)?;
        if !translates {
            return Err(Error::MixedIommu { address: info.address, no_iommu: false });
        }
        self.adopt(info, device, domain)
    }

    /// Brings an opened device into the space.
    pub(crate) fn adopt(
        &self,
        info: FunctionInfo,
        device: Box<dyn Device>,
        domain: Arc<dyn Domain>,
    ) -> Result<Function, Error> {
        // From here on the device is closed properly, whatever fails.
        let opened = Opened { address: info.address, device: Some(device), space: self.inner.clone() };
        let admitted = self.inner.lock().admit(domain);
        admitted?;
        Function::new(info, opened)
    }

    /// Whether both are the same space: what is mapped in one is for the devices of the other.
    pub fn is(&self, other: &AddressSpace) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Maps a segment for every device of the space, those open and those to come. The space keeps the segment until it
    /// is unmapped, so that its memory cannot be freed while a device can reach it. Mapping it again changes nothing.
    pub fn map(&self, segment: Arc<Segment>) -> Result<(), Error> {
        self.inner.lock().map(segment)
    }

    /// Takes a segment back from every device. A device that still has an address in it faults in the IOMMU from now on,
    /// or, without one, overwrites whoever gets the memory next: stop its queues first.
    ///
    /// # Errors
    ///
    /// What an IOMMU said. The segment has no address any more, but the space keeps it as long as it lives: a device may reach it still,
    /// so neither its memory nor its address is to be used again.
    pub fn unmap(&self, segment: &Segment) -> Result<(), Error> {
        self.inner.lock().unmap(segment)
    }

    /// The address at which the devices see the byte at `offset` of a mapped segment.
    ///
    /// With an IOMMU the whole segment is contiguous for a device; without, each page is, and no more.
    pub fn iova(&self, segment: &Segment, offset: usize) -> Result<u64, Error> {
        self.inner.lock().iova(segment, offset)
    }

    /// Memory for a descriptor ring: zeroed, contiguous for the devices, mapped in this space, its IOVA a multiple of
    /// `align`, which is a power of two of at most a page.
    pub fn allocate_dma(&self, len: usize, align: usize) -> Result<DmaBuffer, Error> {
        let AddressSpaceOptions { dma_page_size: page_size, dma_node: node, .. } = self.inner.options;
        let refuse = |why| Err(Error::BadDmaBuffer { len, align, why });
        let page = page_size.bytes();
        if len == 0 || len > window_len() {
            return refuse("the length has to be above 0 and below that of the window");
        }
        if !align.is_power_of_two() || align > page {
            return refuse("the alignment has to be a power of two of at most a page");
        }
        let mut state = self.inner.lock();
        if !state.translates && len > page {
            return refuse("without an IOMMU only a page is contiguous: choose a larger dma_page_size");
        }
        let piece = match state.arena.take(len, align) {
            Some(piece) => piece,
            None => {
                // No more pages than needed: without an IOMMU two pages are not neighbours for a device.
                let options = SegmentOptions { page_size, node, name: "pagewire-dma".into() };
                let segment = Segment::allocate(len, &options)?;
                state.map(segment.clone())?;
                let iova = state.iova(&segment, 0).inspect_err(|_| {
                    if let Err(error) = state.unmap(&segment) {
                        log::error!(
                            "{} bytes of memory for rings stay mapped, and in use: {error}",
                            segment.len()
                        );
                    }
                })?;
                state.arena.add(segment, iova);
                state.arena.take(len, align).expect("a fresh segment has room for what it was made for")
            }
        };
        piece.zero();
        Ok(DmaBuffer { piece, len, space: self.inner.clone() })
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here is half-changed when it panics, and devices have to be closed all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn give_back(&self, piece: &Piece) {
        self.lock().arena.give_back(piece);
    }
}

impl State {
    /// Brings a device's domain into the space: chooses the base if nothing has yet, maps what is mapped.
    fn admit(&mut self, domain: Arc<dyn Domain>) -> Result<(), Error> {
        if self.domains.iter().any(|known| Arc::ptr_eq(known, &domain)) {
            return Ok(());
        }
        if self.translates && self.base.is_none() {
            let usable = domain.usable()?;
            let window = window_len() as u64;
            self.base = Some(iova::choose_base(&usable, window).ok_or_else(|| Error::IovaUnusable {
                what: format!("the window of {window} bytes"),
                first: iova::PREFERRED,
                last: iova::PREFERRED + window - 1,
                usable: iova::display(&usable),
            })?);
        }
        for segment in &self.segments {
            self.map_in(&domain, segment)?;
        }
        self.domains.push(domain);
        Ok(())
    }

    fn map(&mut self, segment: Arc<Segment>) -> Result<(), Error> {
        if self.is_mapped(&segment) {
            return Ok(());
        }
        if self.translates {
            self.base.get_or_insert(iova::PREFERRED);
        }
        for done in 0..self.domains.len() {
            if let Err(error) = self.map_in(&self.domains[done], &segment) {
                self.undo(done, &segment);
                return Err(error);
            }
        }
        self.segments.push(segment);
        Ok(())
    }

    fn unmap(&mut self, segment: &Segment) -> Result<(), Error> {
        let find = |list: &[Arc<Segment>]| list.iter().position(|kept| std::ptr::eq(kept.as_ref(), segment));
        if find(&self.lost).is_some() {
            return Err(Error::StaysMapped { len: segment.len() });
        }
        let Some(at) = find(&self.segments) else { return Ok(()) };
        // From every device that will let go of it, whatever another says.
        let mut unmapped = Ok(());
        for domain in &self.domains {
            unmapped = unmapped.and(domain.unmap(self.first(segment), segment.len()));
        }
        let segment = self.segments.swap_remove(at);
        if unmapped.is_err() {
            self.lost.push(segment);
        }
        unmapped
    }

    fn map_in(&self, domain: &Arc<dyn Domain>, segment: &Segment) -> Result<(), Error> {
        let first = self.first(segment);
        if self.translates {
            let last = first.saturating_add((segment.len() - 1) as u64);
            let usable: Usable = domain.usable()?;
            if !iova::contains(&usable, first, last) {
                let what = format!("a segment of {} bytes", segment.len());
                return Err(Error::IovaUnusable { what, first, last, usable: iova::display(&usable) });
            }
        }
        domain.map(segment, first)
    }

    /// Takes a segment back from the first few domains, which have it mapped.
    fn undo(&mut self, domains: usize, segment: &Arc<Segment>) {
        for domain in 0..domains {
            if let Err(error) = self.domains[domain].unmap(self.first(segment), segment.len()) {
                log::error!("{} bytes of memory stay mapped, and in use: {error}", segment.len());
                self.lost.push(segment.clone());
            }
        }
    }

    /// The IOVA of a segment's first byte.
    fn first(&self, segment: &Segment) -> u64 {
        self.base.unwrap_or_default().saturating_add(segment.window_offset() as u64)
    }

    fn iova(&self, segment: &Segment, offset: usize) -> Result<u64, Error> {
        if offset >= segment.len() || !self.is_mapped(segment) {
            return Err(Error::NotMapped { window_offset: segment.window_offset(), offset });
        }
        if self.translates {
            Ok(self.first(segment) + offset as u64)
        } else {
            Ok(segment.physical_address(offset)?)
        }
    }

    fn is_mapped(&self, segment: &Segment) -> bool {
        self.segments.iter().any(|mapped| std::ptr::eq(mapped.as_ref(), segment))
    }

    /// Lets go of groups and domains that no device is in any more. What is mapped in them goes with them.
    fn prune(&mut self) {
        self.host.prune();
        self.domains.retain(|domain| Arc::strong_count(domain) > 1);
    }
}

/// An open device and the space it is in, shared by its [`Function`] and everything made from it.
pub(crate) struct Opened {
    address: Address,
    /// There until it is dropped.
    device: Option<Box<dyn Device>>,
    space: Arc<Inner>,
}

impl Opened {
    pub(crate) fn device(&self) -> &dyn Device {
        self.device.as_deref().expect("taken in drop only")
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // All under the lock, so that nobody opens a group while it is being closed.
        let mut state = self.space.lock();
        self.device = None;
        state.open.retain(|&open| open != self.address);
        state.prune();
    }
}

#[cfg(test)]
mod tests;
