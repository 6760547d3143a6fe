//! A contiguous, pinned run of pages in the window.

use std::{
    ffi::CString,
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    ptr::NonNull,
    sync::Arc,
};

use crate::{
    Error, PageSize, limits, memfd, numa,
    sysfs::Sysfs,
    window::{Presence, Slot},
};

/// Longest name memfd_create(2) takes.
const LONGEST_NAME: usize = 249;

/// What a segment is to be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOptions {
    /// Size of its pages. There is no falling back to another: what is not there is an error.
    pub page_size: PageSize,
    /// The NUMA node that all its pages have to be on. `None` leaves it to the caller's memory policy.
    pub node: Option<u32>,
    /// Shown as `/memfd:NAME` in `/proc/PID/maps`. At most 249 bytes, none of them zero.
    pub name: String,
}

/// Memory a device may reach: contiguous, zeroed at first, every page present and pinned, inside the process's window.
///
/// A device writes it whenever it likes, so no reference to the bytes is ever made: only [`as_ptr`](Self::as_ptr), for
/// volatile or atomic access. Dropping the segment unmaps it; pointers into it are then dangling, and every device has to
/// have let go of it before.
pub struct Segment {
    // Unmapped first, then closed: fields are dropped in this order.
    pub(crate) slot: Slot,
    pub(crate) file: OwnedFd,
    /// Where in the file it begins.
    pub(crate) file_offset: u64,
    pub(crate) page_size: PageSize,
    pub(crate) node: Option<u32>,
    pub(crate) readable: bool,
}

impl Segment {
    /// Allocates `len` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// Each reason for a refusal is an [`Error`] of its own that says what was needed, what was found and what to do.
    /// Nothing stays allocated. A lack of memory is never a signal, now or at a later access.
    pub fn allocate(len: usize, options: &SegmentOptions) -> Result<Arc<Segment>, Error> {
        let SegmentOptions { page_size, node, ref name } = *options;
        let sysfs = Sysfs::default();
        let name = CString::new(name.as_str())
            .ok()
            .filter(|name| name.count_bytes() <= LONGEST_NAME)
            .ok_or_else(|| Error::BadName { name: name.clone() })?;
        if len == 0 {
            return Err(Error::Empty);
        }
        if let Some(node) = node {
            sysfs.check_node(node)?;
        }
        // A length that cannot be rounded up is refused by the window, as any that is too long.
        let len = len.checked_next_multiple_of(page_size.bytes()).unwrap_or(len);
        let slot = Slot::take(len, page_size.bytes())?;
        if cfg!(miri) {
            let file = File::open("/dev/null")
                .map_err(|cause| Error::Refused { bytes: len, page_size, cause })?
                .into();
            slot.map(AsFd::as_fd(&file), 0, Presence::Present).map_err(|cause| Error::Refused {
                bytes: len,
                page_size,
                cause,
            })?;
            return Ok(Arc::new(Segment { slot, file, file_offset: 0, page_size, node, readable: true }));
        }
        if page_size == PageSize::Size4K {
            // To be asked before: past these limits the kernel does not refuse, it kills.
            limits::check_memory(Path::new("/"), len as u64)?;
            limits::check_memlock(len as u64)?;
        }
        let file = memfd::create(&name, page_size).map_err(|cause| sysfs.why_no_file(page_size, cause))?;
        if let Err(cause) = memfd::fill(&file, len, node) {
            // Closed first: pages it did get would count as used when the reason is looked for.
            drop(file);
            return Err(sysfs.why_no_pages(page_size, node, len, cause));
        }
        slot.map(file.as_fd(), 0, Presence::Present).map_err(|cause| Error::Refused {
            bytes: len,
            page_size,
            cause,
        })?;
        if page_size == PageSize::Size4K {
            slot.lock().map_err(|cause| Error::Refused { bytes: len, page_size, cause })?;
        }
        if let Some(node) = node {
            slot.bind(node).map_err(|cause| Error::NotOnNode { node, cause })?;
        }
        Ok(Arc::new(Segment { slot, file, file_offset: 0, page_size, node, readable: true }))
    }

    /// Address of the first byte.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.slot.as_ptr()
    }

    /// Length in bytes: a multiple of the page size, never 0.
    #[allow(clippy::len_without_is_empty)] // It never is.
    pub fn len(&self) -> usize {
        self.slot.len()
    }

    /// Size of the pages.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The NUMA node that every page is on, if one was asked for.
    pub fn node(&self) -> Option<u32> {
        self.node
    }

    /// The NUMA node that it is on: the one asked for, else where the kernel says its first page is. `None` if it has none,
    /// as memory of a device, or the kernel does not tell.
    pub fn home_node(&self) -> Option<u32> {
        self.node.or_else(|| self.readable.then(|| numa::node_of(self.as_ptr())).flatten())
    }

    /// Whether the CPU may read and write it. Memory of a [device](Segment::device) is for devices alone.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Offset of the first byte in the process's [window](crate::window): a multiple of the page size, and below
    /// [`window_len`](crate::window_len).
    pub fn window_offset(&self) -> usize {
        self.slot.offset()
    }

    /// The memfd behind the segment, for another process to map: a model of a device, a consumer of packets. Its length is
    /// sealed, or was found sealed against shrinking. The segment begins [`fd_offset`](Self::fd_offset) bytes into it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A descriptor of the same memory that can be mapped for reading only, for a process that is to see it and not to
    /// change it. Another user cannot make more of it; this one and root could reach the memory anyway.
    ///
    /// # Errors
    /// Without `/proc`, or when the process has no descriptor left.
    pub fn read_only_fd(&self) -> Result<OwnedFd, Error> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        File::open(&path).map(OwnedFd::from).map_err(|cause| Error::File { path: path.into(), cause })
    }

    /// Where in the file of [`fd`](Self::fd) the segment begins, in bytes: 0 unless it was made of a part of a file.
    pub fn fd_offset(&self) -> u64 {
        self.file_offset
    }

    /// Physical address of the byte at `offset`, for devices without an IOMMU. Contiguous within one page, not between
    /// pages.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, and for pages of 4 KiB, which the kernel may move.
    pub fn physical_address(&self, offset: usize) -> Result<u64, Error> {
        /// Bits of an entry of pagemap, from the kernel's Documentation/admin-guide/mm/pagemap.rst.
        const FRAME: u64 = (1 << 55) - 1;
        const PRESENT: u64 = 1 << 63;
        /// An entry describes a base page, whatever the size of the page it is part of.
        const BASE_PAGE: u64 = PageSize::Size4K.bytes() as u64;

        if offset >= self.len() {
            return Err(Error::OutOfSegment { offset, len: self.len() });
        }
        if !self.page_size.is_huge() || !self.readable {
            return Err(Error::NoLastingAddress);
        }
        let address = (self.as_ptr().addr().get() + offset) as u64;
        let path = Path::new("/proc/self/pagemap");
        let mut entry = [0; 8];
        File::open(path).and_then(|file| file.read_exact_at(&mut entry, address / BASE_PAGE * 8)).map_err(
            |cause| match cause.kind() {
                io::ErrorKind::PermissionDenied => Error::HiddenAddress,
                _ => Error::File { path: path.into(), cause },
            },
        )?;
        let entry = u64::from_ne_bytes(entry);
        match entry & FRAME {
            frame if frame != 0 && entry & PRESENT != 0 => Ok(frame * BASE_PAGE + address % BASE_PAGE),
            _ => Err(Error::HiddenAddress),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("address", &self.as_ptr())
            .field("len", &self.len())
            .field("page_size", &self.page_size)
            .field("node", &self.node)
            .field("window_offset", &self.window_offset())
            .field("fd", &self.file)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    // Writing to a segment's memory goes through its pointer.
    #![allow(unsafe_code)]

    use std::{
        fs,
        io::{BufRead, BufReader},
        mem,
        ops::Range,
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::{testing, window_len};

    const TWO_MIB: usize = PageSize::Size2M.bytes();

    fn options(page_size: PageSize, name: &str) -> SegmentOptions {
        SegmentOptions { page_size, node: None, name: name.into() }
    }

    fn write(segment: &Segment, offset: usize, value: u8) {
        assert!(offset < segment.len());
        // SAFETY: inside the segment, which is mapped for writing.
        unsafe { segment.as_ptr().add(offset).write_volatile(value) };
    }

    fn read(segment: &Segment, offset: usize) -> u8 {
        assert!(offset < segment.len());
        // SAFETY: inside the segment, which is mapped for reading.
        unsafe { segment.as_ptr().add(offset).read_volatile() }
    }

    fn addresses(segment: &Segment) -> Range<usize> {
        let start = segment.as_ptr().addr().get();
        start..start + segment.len()
    }

    /// The line of /proc/self/maps that `range` is in, and its addresses.
    fn mapping(range: &Range<usize>) -> (Range<usize>, String) {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let found = maps.lines().find_map(|line| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let hex = |text| usize::from_str_radix(text, 16).unwrap();
            let mapped = hex(start)..hex(end);
            (mapped.start <= range.start && range.end <= mapped.end).then(|| (mapped, line.to_owned()))
        });
        found.unwrap_or_else(|| panic!("{range:x?} is not mapped:\n{maps}"))
    }

    fn page_faults() -> i64 {
        // SAFETY: all zeroes is a valid `rusage`, and the kernel writes one, which outlives the call.
        unsafe {
            let mut usage: libc::rusage = mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &mut usage), 0);
            usage.ru_minflt + usage.ru_majflt
        }
    }

    #[test]
    fn a_descriptor_for_reading_cannot_be_mapped_for_writing_nor_opened_by_another_user() {
        let _turn = testing::huge_pages(1);
        for page_size in [PageSize::Size4K, PageSize::Size2M] {
            let segment = Segment::allocate(1, &options(page_size, "read-only")).unwrap();
            write(&segment, 7, 42);
            let fd = segment.read_only_fd().unwrap();
            let map = |protection| {
                // SAFETY: a mapping of its own, at a place that the kernel chooses.
                unsafe {
                    let flags = libc::MAP_SHARED;
                    libc::mmap(std::ptr::null_mut(), segment.len(), protection, flags, fd.as_raw_fd(), 0)
                }
            };
            assert_eq!(map(libc::PROT_READ | libc::PROT_WRITE), libc::MAP_FAILED);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EACCES));
            let mapped = map(libc::PROT_READ);
            assert_ne!(mapped, libc::MAP_FAILED);
            // SAFETY: mapped for reading, and unmapped once.
            unsafe {
                assert_eq!(mapped.cast::<u8>().add(7).read_volatile(), 42);
                assert_eq!(libc::munmap(mapped, segment.len()), 0);
            }
            // Another user who has the descriptor, and opens it once more.
            let path = format!("/proc/self/fd/{}\0", fd.as_raw_fd());
            // SAFETY: the child makes system calls only, with memory that was there before.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: the path ends with a zero byte.
                unsafe {
                    libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534);
                    let opened = libc::open(path.as_ptr().cast(), libc::O_RDWR);
                    libc::_exit(if opened < 0 { 0 } else { 1 });
                }
            }
            let mut status = -1;
            // SAFETY: the kernel writes one number.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "{page_size}: opened for writing by another user");
        }
    }

    /// Reads and writes every page of a new segment: none of it may fault, and all of it reads as zero.
    fn check_new(segment: &Segment) {
        let before = page_faults();
        for offset in (0..segment.len()).step_by(509) {
            assert_eq!(read(segment, offset), 0);
            write(segment, offset, 1);
        }
        assert_eq!(page_faults() - before, 0, "page faults");
    }

    #[test]
    fn a_segment_of_small_pages_is_zeroed_present_locked_and_shared_by_descriptor() {
        let segment = Segment::allocate(1_000_001, &options(PageSize::Size4K, "small")).unwrap();
        assert_eq!(
            (segment.len(), segment.page_size(), segment.node()),
            (245 * 4096, PageSize::Size4K, None)
        );
        check_new(&segment);

        let (mapped, line) = mapping(&addresses(&segment));
        assert_eq!(mapped, addresses(&segment));
        assert!(line.contains(" rw-s ") && line.ends_with("/memfd:small (deleted)"), "{line}");
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let smaps = smaps.split_once(&line).unwrap().1;
        let locked = smaps.lines().find(|line| line.starts_with("Locked:")).unwrap();
        assert_eq!(locked.split_ascii_whitespace().nth(1), Some("980"), "all 245 pages are locked");

        write(&segment, segment.len() - 1, 0xa5);
        let mut last = [0];
        let file = File::from(segment.fd().try_clone_to_owned().unwrap());
        file.read_exact_at(&mut last, segment.len() as u64 - 1).unwrap();
        assert_eq!(last, [0xa5], "the descriptor leads to the same bytes");
        assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM), "nobody can shrink it");
    }

    #[test]
    fn a_segment_of_huge_pages_has_them_all_and_gives_them_back() {
        let _turn = testing::huge_pages(5);
        let free = testing::free_pages();
        let segment = Segment::allocate(4 * TWO_MIB + 1, &options(PageSize::Size2M, "huge")).unwrap();
        assert_eq!(segment.len(), 5 * TWO_MIB);
        assert_eq!(testing::free_pages(), free - 5);
        check_new(&segment);

        let addresses = addresses(&segment);
        assert_eq!(addresses.start % TWO_MIB, 0);
        let line = mapping(&addresses).1;
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let size =
            smaps.split_once(&line).unwrap().1.lines().find(|line| line.starts_with("KernelPageSize:"));
        assert_eq!(size.unwrap().split_ascii_whitespace().nth(1), Some("2048"));

        drop(segment);
        assert_eq!(testing::free_pages(), free);
        let (around, line) = mapping(&addresses);
        assert!(
            line.contains(" ---p ") && around.len() >= addresses.len(),
            "the addresses stay reserved: {line}"
        );
    }

    #[test]
    fn physical_addresses_are_those_of_the_pages() {
        let _turn = testing::huge_pages(4);
        let segment = Segment::allocate(4 * TWO_MIB, &options(PageSize::Size2M, "physical")).unwrap();
        let page = |index: usize| segment.physical_address(index * TWO_MIB).unwrap();
        for index in 0..4 {
            assert_eq!(page(index) % TWO_MIB as u64, 0, "a page starts at a multiple of its size");
            assert!((0..index).all(|other| page(other) != page(index)), "no two pages are the same");
            let inside = TWO_MIB - 4097;
            assert_eq!(
                segment.physical_address(index * TWO_MIB + inside).unwrap(),
                page(index) + inside as u64
            );
        }
        assert_eq!(
            segment.physical_address(4 * TWO_MIB).unwrap_err().to_string(),
            "offset 8388608 is not inside the segment, which has 8388608 bytes"
        );
        let small = Segment::allocate(1, &options(PageSize::Size4K, "small")).unwrap();
        assert!(matches!(small.physical_address(0), Err(Error::NoLastingAddress)));
    }

    #[test]
    fn physical_addresses_are_hidden_from_an_ordinary_user() {
        let _turn = testing::huge_pages(1);
        testing::in_child("segment::tests::physical_addresses_are_hidden_from_an_ordinary_user", || {
            testing::become_nobody();
            let segment = Segment::allocate(1, &options(PageSize::Size2M, "hidden")).unwrap();
            assert_eq!(
                segment.physical_address(0).unwrap_err().to_string(),
                "physical addresses are shown only with CAP_SYS_ADMIN, /proc/self/pagemap reads 0: run the program as root"
            );
        });
    }

    #[test]
    fn a_segment_on_a_node_has_all_its_pages_there() {
        let _turn = testing::huge_pages(3);
        // Every node of the machine: with one alone this cannot tell a bound segment from another.
        for (node, page_size) in Sysfs::default()
            .nodes()
            .unwrap()
            .into_iter()
            .flat_map(|node| [(node, PageSize::Size2M), (node, PageSize::Size4K)])
        {
            let on_node = SegmentOptions { node: Some(node), ..options(page_size, "node") };
            let segment = Segment::allocate(3 * page_size.bytes(), &on_node).unwrap();
            assert_eq!(segment.node(), Some(node));
            let start = format!("{:x} ", addresses(&segment).start);
            let maps = fs::read_to_string("/proc/self/numa_maps").unwrap();
            let line = maps.lines().find(|line| line.starts_with(&start)).unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            assert!(words[1].starts_with("bind") && words[1].ends_with(&format!(":{node}")), "{line}");
            assert!(words.contains(&format!("N{node}=3").as_str()), "{line}");
        }
    }

    #[test]
    fn the_last_free_page_can_be_had_and_the_one_after_it_is_an_error() {
        let _turn = testing::huge_pages(2);
        let nodes = Sysfs::default().nodes().unwrap().into_iter().map(Some);
        for node in nodes.chain([None]) {
            let before = testing::free_pages();
            let counts = Sysfs::default().counts(PageSize::Size2M, node).unwrap();
            let wanted = SegmentOptions { node, ..options(PageSize::Size2M, "all") };
            let all = Segment::allocate(counts.free as usize * TWO_MIB, &wanted).unwrap();
            let error = Segment::allocate(1, &wanted).unwrap_err().to_string();
            drop(all);
            let on = node.map_or([String::new(), String::new()], |node| {
                [format!(" on NUMA node {node}"), format!(" --node {node}")]
            });
            assert_eq!(
                error,
                format!(
                    "1 free huge pages of 2 MiB are needed{}, 0 of the {} reserved are free: run `pagewire hugepages \
                     reserve --size 2M --count {}{}` as root",
                    on[0],
                    counts.reserved,
                    counts.reserved + 1,
                    on[1]
                )
            );
            let error = Segment::allocate((counts.free as usize + 1) * TWO_MIB, &wanted).unwrap_err();
            assert!(matches!(error, Error::TooFewPages { .. }), "{error}");
            assert_eq!(testing::free_pages(), before, "a failure keeps nothing");
        }
    }

    #[test]
    fn bad_requests_are_refused_by_name() {
        let refusal =
            |len, options: &SegmentOptions| Segment::allocate(len, options).unwrap_err().to_string();
        let small = options(PageSize::Size4K, "small");
        assert_eq!(refusal(0, &small), "a segment of 0 bytes was asked for: ask for at least one");
        let elsewhere = refusal(1, &SegmentOptions { node: Some(4096), ..small.clone() });
        assert!(elsewhere.starts_with("this machine has no NUMA node 4096, it has 0"), "{elsewhere}");
        assert_eq!(
            refusal(1, &options(PageSize::Size4K, "a\0b")),
            "the segment name 'a\\0b' is not free of zero bytes: give up to 249 bytes without a zero byte"
        );
        assert!(
            refusal(1, &options(PageSize::Size4K, &"n".repeat(250)))
                .contains("is 250 bytes long: give up to 249")
        );
        assert!(Segment::allocate(1, &options(PageSize::Size4K, &"n".repeat(249))).is_ok());
        for len in [usize::MAX, usize::MAX - TWO_MIB, window_len() + 1] {
            let refusal = refusal(len, &small);
            assert!(
                refusal.starts_with("a segment of ") && refusal.contains("drop segments, or, if"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn more_small_pages_than_there_is_memory_are_an_error() {
        testing::in_child("segment::tests::more_small_pages_than_there_is_memory_are_an_error", || {
            // Should the request be let through, the kernel is to kill this process before any other.
            fs::write("/proc/self/oom_score_adj", "1000").unwrap();
            let error = Segment::allocate(200 << 30, &options(PageSize::Size4K, "too large")).unwrap_err();
            assert!(matches!(error, Error::TooLittleMemory { needed: 0x32_0000_0000, .. }), "{error}");
        });
    }

    #[test]
    fn offsets_are_distances_in_one_window_and_segments_never_overlap() {
        let length = window_len();
        assert!(length.is_power_of_two() && length >= PageSize::Size1G.bytes());
        // Four threads come and go in the window, each with its own pattern in its segments.
        thread::scope(|scope| {
            for thread in 1..=4_u8 {
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..100_usize {
                        let pages = 1 + (round * 7 + thread as usize * 3) % 9;
                        let segment =
                            Segment::allocate(pages * 4096, &options(PageSize::Size4K, "mine")).unwrap();
                        let base = segment.as_ptr().addr().get() - segment.window_offset();
                        assert_eq!(base % PageSize::Size1G.bytes(), 0);
                        assert!(segment.window_offset() + segment.len() <= length);
                        (0..segment.len()).step_by(64).for_each(|offset| write(&segment, offset, thread));
                        held.push((base, segment));
                        if round % 3 == 2 {
                            let (_, segment) = held.swap_remove(round % held.len());
                            let mine =
                                (0..segment.len()).step_by(64).all(|offset| read(&segment, offset) == thread);
                            assert!(mine, "thread {thread} found another's bytes in its segment");
                        }
                    }
                    assert!(held.iter().all(|(base, _)| *base == held[0].0), "there is one window");
                });
            }
        });
    }

    #[test]
    fn too_little_lockable_memory_is_an_error() {
        testing::in_child("segment::tests::too_little_lockable_memory_is_an_error", || {
            testing::set_limit(libc::RLIMIT_MEMLOCK, 256 << 10);
            testing::become_nobody();
            let held = Segment::allocate(128 << 10, &options(PageSize::Size4K, "held")).unwrap();
            let error = Segment::allocate(192 << 10, &options(PageSize::Size4K, "more")).unwrap_err();
            let pid = std::process::id();
            assert_eq!(
                error.to_string(),
                format!(
                    "196608 bytes have to be locked in memory and the limit is 262144 bytes, 131072 of them in use: run \
                     `ulimit -l unlimited` before the program, or `prlimit --pid {pid} --memlock=327680:327680` as root; \
                     to make it last, put LimitMEMLOCK=infinity in the systemd unit, or `* - memlock unlimited` in \
                     /etc/security/limits.conf"
                )
            );
            drop(held);
            Segment::allocate(192 << 10, &options(PageSize::Size4K, "more")).unwrap();
        });
    }

    #[test]
    fn a_limit_on_address_space_makes_a_smaller_window() {
        testing::in_child("segment::tests::a_limit_on_address_space_makes_a_smaller_window", || {
            testing::set_limit(libc::RLIMIT_AS, 12 << 30);
            assert_eq!(window_len(), 4 << 30, "half of the limit stays for the rest of the process");
            for _ in 0..2 {
                let segment = Segment::allocate(1, &options(PageSize::Size4K, "small")).unwrap();
                assert_eq!(segment.window_offset(), 0, "addresses are used again");
            }
            let error = Segment::allocate(5 << 30, &options(PageSize::Size4K, "large")).unwrap_err();
            assert!(
                matches!(error, Error::WindowFull { needed, window, .. } if needed == 5 << 30 && window == 4 << 30)
            );
        });
    }

    #[test]
    fn no_address_space_is_an_error() {
        testing::in_child("segment::tests::no_address_space_is_an_error", || {
            testing::set_limit(libc::RLIMIT_AS, 600 << 20);
            assert_eq!(window_len(), 0);
            assert_eq!(
                Segment::allocate(1, &options(PageSize::Size4K, "none")).unwrap_err().to_string(),
                "the address window could not be reserved, it needs 1073741824 bytes of address space and the limit is \
                 629145600 bytes: run `ulimit -v unlimited` before the program (Cannot allocate memory (os error 12))"
            );
        });
    }

    #[test]
    fn a_process_that_is_killed_leaves_nothing_behind() {
        const PAGES: u64 = 6;
        if testing::is_child() {
            let segment =
                Segment::allocate(PAGES as usize * TWO_MIB, &options(PageSize::Size2M, "killed")).unwrap();
            println!("\nholding {}", segment.len());
            // Long enough to be killed in; an end of its own should the parent be gone.
            return thread::sleep(Duration::from_secs(60));
        }
        let _turn = testing::huge_pages(PAGES);
        let free = testing::free_pages();
        let test = "segment::tests::a_process_that_is_killed_leaves_nothing_behind";
        let mut child = testing::child(test).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == format!("holding {}", PAGES as usize * TWO_MIB)));
        assert_eq!(testing::free_pages(), free - PAGES);
        child.kill().unwrap();
        child.wait().unwrap();
        // The last of a dead process is cleared away a moment after it can be waited for.
        let end = Instant::now() + Duration::from_secs(5);
        while testing::free_pages() != free && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(testing::free_pages(), free);
    }
}
