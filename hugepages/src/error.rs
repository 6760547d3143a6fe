//! What can go wrong, what was found, and what mends it.

use std::{
    fmt::{self, Display},
    io,
    path::PathBuf,
};

use crate::PageSize;

/// Why memory could not be had, or huge pages not be reserved.
///
/// The message is the whole story, the kernel's answer included, so that [`source`](std::error::Error::source) has nothing
/// to add and printing the chain repeats nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A segment of no bytes was asked for.
    #[error("a segment of 0 bytes was asked for: ask for at least one")]
    Empty,

    /// The name cannot be a memfd's.
    #[error("the segment name '{}' is {}: give up to 249 bytes without a zero byte", name.escape_debug(), length(name))]
    BadName {
        /// The name that was given.
        name: String,
    },

    /// No address space could be reserved.
    #[error(
        "the address window could not be reserved, it needs {smallest} bytes of address space and the limit is {}: run \
         `ulimit -v unlimited` before the program ({cause})",
        limit_in_bytes(*limit)
    )]
    NoWindow {
        /// The smallest window that is of use, in bytes.
        smallest: usize,
        /// `RLIMIT_AS`, in bytes, if there is a limit.
        limit: Option<u64>,
        /// What the kernel answered.
        cause: io::Error,
    },

    /// No free range of the window is long enough.
    #[error(
        "a segment of {needed} bytes needs as many free addresses in one piece, and the longest piece of the {window} \
         byte window has {longest}: drop segments, or, if `ulimit -v` is why the window is small, run `ulimit -v \
         unlimited` before the program"
    )]
    WindowFull {
        /// Length of the segment in bytes.
        needed: usize,
        /// Length of the longest free range in bytes.
        longest: usize,
        /// Length of the window in bytes.
        window: usize,
    },

    /// This kernel has no pages of that size.
    #[error(
        "this machine has no pages of {page_size}, {directory} does not exist: choose another size (`pagewire hugepages` \
         lists them; 1 GiB needs a processor with the flag pdpe1gb)",
        directory = directory.display()
    )]
    NoSuchPageSize {
        /// The size asked for.
        page_size: PageSize,
        /// Where the kernel would describe it.
        directory: PathBuf,
    },

    /// This machine has no such NUMA node.
    #[error("this machine has no NUMA node {node}, it has {}: name one of these", list(found))]
    NoSuchNode {
        /// The node asked for.
        node: u32,
        /// The nodes there are.
        found: Vec<u32>,
    },

    /// Fewer huge pages are free than the segment needs.
    #[error(
        "{needed} free huge pages of {page_size} are needed{on}, {free} of the {reserved} reserved are free: run \
         `pagewire hugepages reserve --size {size} --count {count}{node_argument}` as root",
        on = on_node(*node),
        size = page_size.short(),
        count = reserved + needed.saturating_sub(*free),
        node_argument = node_argument(*node)
    )]
    TooFewPages {
        /// Size of the pages.
        page_size: PageSize,
        /// The node they have to be on, if any.
        node: Option<u32>,
        /// Number of pages the segment needs.
        needed: u64,
        /// Number of pages that are free and promised to nobody.
        free: u64,
        /// Number of pages reserved.
        reserved: u64,
    },

    /// A control group of this process allows less.
    #[error(
        "{needed} bytes are needed and this process's control group allows {limit} bytes in all, {used} of them in use \
         ({file}): run `echo {raised} > {file}` as root, or start the program outside the group",
        file = file.display(),
        raised = used.saturating_add(*needed)
    )]
    ControlGroup {
        /// The file with the limit.
        file: PathBuf,
        /// The limit, in bytes.
        limit: u64,
        /// Bytes in use that cannot be reclaimed.
        used: u64,
        /// Bytes needed on top.
        needed: u64,
    },

    /// The machine has too little memory left for pages of 4 KiB.
    #[error(
        "{needed} bytes of 4 KiB pages are needed and {available} bytes of memory are available: free some, for example \
         with `pagewire hugepages release`, or ask for less"
    )]
    TooLittleMemory {
        /// Bytes needed.
        needed: u64,
        /// `MemAvailable` of `/proc/meminfo`, in bytes.
        available: u64,
    },

    /// `RLIMIT_MEMLOCK` does not allow to lock or to map for a device what is needed.
    #[error(
        "{needed} bytes have to be locked in memory and the limit is {limit} bytes, {locked} of them in use: run `ulimit -l \
         unlimited` before the program, or `prlimit --pid {pid} --memlock={raised}:{raised}` as root; to make it last, \
         put LimitMEMLOCK=infinity in the systemd unit, or `* - memlock unlimited` in /etc/security/limits.conf",
        pid = std::process::id(),
        raised = locked.saturating_add(*needed)
    )]
    Memlock {
        /// `RLIMIT_MEMLOCK`, in bytes.
        limit: u64,
        /// Bytes this process has locked or mapped for devices already.
        locked: u64,
        /// Bytes needed on top.
        needed: u64,
    },

    /// The kernel gave fewer huge pages than asked, most often because free memory is in pieces.
    #[error(
        "{asked} huge pages of {page_size} were asked for{on} and the kernel could make {got}, free memory is too little \
         or in too small pieces: run `echo 1 > /proc/sys/vm/compact_memory` as root and try again, or reserve at boot \
         with the kernel arguments `hugepagesz={size} hugepages={asked}`",
        on = on_node(*node),
        size = page_size.short()
    )]
    Fragmented {
        /// Size of the pages.
        page_size: PageSize,
        /// The node asked for, if any.
        node: Option<u32>,
        /// Number of pages asked for.
        asked: u64,
        /// Number of pages that are reserved now.
        got: u64,
    },

    /// Pages of 4 KiB are never reserved.
    #[error("pages of 4 KiB are ordinary memory and are not reserved: give --size 2M or --size 1G")]
    NotHuge,

    /// Pages ended on another node than the one asked for.
    #[error(
        "the kernel did not put every page on NUMA node {node} ({cause}): check that the node is in Mems_allowed_list of \
         /proc/self/status, and that a container is allowed mbind and set_mempolicy (CAP_SYS_NICE in Docker)"
    )]
    NotOnNode {
        /// The node asked for.
        node: u32,
        /// What the kernel answered.
        cause: io::Error,
    },

    /// The kernel does not let this process do that.
    #[error("not permitted to {doing} ({cause}): {advice}")]
    NotPermitted {
        /// What was tried.
        doing: String,
        /// What mends it.
        advice: String,
        /// What the kernel answered.
        cause: io::Error,
    },

    /// The file behind a segment could not be made.
    #[error("no file could be made for pages of {page_size} ({cause})")]
    NoFile {
        /// Size of the pages.
        page_size: PageSize,
        /// What the kernel answered.
        cause: io::Error,
    },

    /// The kernel refused, and none of the known reasons holds.
    #[error(
        "the kernel refused {bytes} bytes of {page_size} pages although enough are free ({cause}): check that their NUMA \
         nodes are in Mems_allowed_list of /proc/self/status, and `dmesg`"
    )]
    Refused {
        /// Length of the segment in bytes.
        bytes: usize,
        /// Size of the pages.
        page_size: PageSize,
        /// What the kernel answered.
        cause: io::Error,
    },

    /// A part of a file that is not made of whole pages, or not all there.
    #[error(
        "bytes {offset} to {end} of a file of {file} bytes cannot be a segment: it takes a part inside the file, of whole \
         pages of {page} bytes",
        end = offset.saturating_add(*len as u64)
    )]
    BadPart {
        /// Where the part begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: usize,
        /// The file's length in bytes.
        file: u64,
        /// Bytes in a page of the file.
        page: usize,
    },

    /// A file that somebody may shrink.
    #[error(
        "the file may be shrunk, after which its memory would be a bus error here ({cause}): make it with memfd_create and \
         MFD_ALLOW_SEALING"
    )]
    NotSealed {
        /// What the kernel answered when it was to be sealed.
        cause: io::Error,
    },

    /// A file that could not be made a segment.
    #[error("{len} bytes of a file from {offset} on could not be {doing}: {cause}")]
    Part {
        /// What was tried.
        doing: &'static str,
        /// Where the part begins, in bytes.
        offset: u64,
        /// Its length in bytes.
        len: usize,
        /// What the kernel answered.
        cause: io::Error,
    },

    /// An offset past the end of a segment.
    #[error("offset {offset} is not inside the segment, which has {len} bytes")]
    OutOfSegment {
        /// The offset asked for.
        offset: usize,
        /// Length of the segment in bytes.
        len: usize,
    },

    /// A physical address was asked of a page that the kernel may move.
    #[error(
        "the physical address of a 4 KiB page does not last, the kernel may move the page: without an IOMMU use huge pages \
         of 2M or 1G"
    )]
    NoLastingAddress,

    /// The kernel does not show physical addresses to this process.
    #[error(
        "physical addresses are shown only with CAP_SYS_ADMIN, /proc/self/pagemap reads 0: run the program as root"
    )]
    HiddenAddress,

    /// A file of the kernel's could not be read or written, or held something else than it should.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
}

fn length(name: &str) -> String {
    if name.contains('\0') { "not free of zero bytes".into() } else { format!("{} bytes long", name.len()) }
}

fn limit_in_bytes(limit: Option<u64>) -> String {
    limit.map_or("none".into(), |bytes| format!("{bytes} bytes"))
}

fn list(nodes: &[u32]) -> String {
    if nodes.is_empty() {
        return "none".into();
    }
    nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn on_node(node: Option<u32>) -> impl Display {
    fmt::from_fn(move |f| node.map_or(Ok(()), |node| write!(f, " on NUMA node {node}")))
}

fn node_argument(node: Option<u32>) -> impl Display {
    fmt::from_fn(move |f| node.map_or(Ok(()), |node| write!(f, " --node {node}")))
}
