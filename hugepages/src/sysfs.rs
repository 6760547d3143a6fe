//! The kernel's reserved huge pages: how many there are, and having more or fewer.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Error, PageSize, limits};

/// How many huge pages of one size there are, on one NUMA node or in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Size of the pages.
    pub page_size: PageSize,
    /// The NUMA node, or `None` for the whole machine.
    pub node: Option<u32>,
    /// Pages the operator reserved.
    pub reserved: u64,
    /// Pages that no file or process holds.
    pub free: u64,
    /// Pages beyond those reserved: they go back to ordinary memory when their user is done with them.
    pub surplus: u64,
    /// Free pages promised to a mapping that has not touched them yet. The kernel knows this only for the whole machine: 0
    /// for a node.
    pub promised: u64,
}

impl Counts {
    /// Pages that a file or a process holds.
    pub fn used(&self) -> u64 {
        (self.reserved + self.surplus).saturating_sub(self.free)
    }
}

/// Reads and changes the kernel's reserved huge pages through sysfs.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    /// This machine's.
    fn default() -> Self {
        Sysfs::new("/")
    }
}

impl Sysfs {
    /// The sysfs, and the procfs, of a system whose root directory is `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Sysfs { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The machine's NUMA nodes, in order; none if the kernel was built without them.
    pub fn nodes(&self) -> Result<Vec<u32>, Error> {
        let path = self.root.join("sys/devices/system/node");
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(at(&path))?,
        };
        let mut nodes = Vec::new();
        for entry in entries {
            let name = entry.map_err(at(&path))?.file_name();
            nodes.extend(name.to_str().and_then(|name| name.strip_prefix("node")?.parse::<u32>().ok()));
        }
        nodes.sort_unstable();
        Ok(nodes)
    }

    /// The counts of every node and size of huge page, by node, then size. A kernel without NUMA nodes gives one line a
    /// size, with no node.
    pub fn list(&self) -> Result<Vec<Counts>, Error> {
        let nodes = self.nodes()?;
        let nodes = if nodes.is_empty() { vec![None] } else { nodes.into_iter().map(Some).collect() };
        let mut list = Vec::new();
        for node in nodes {
            for page_size in PageSize::ALL.into_iter().filter(|size| size.is_huge()) {
                match self.counts(page_size, node) {
                    Ok(counts) => list.push(counts),
                    Err(Error::NoSuchPageSize { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(list)
    }

    /// The counts of one size of huge page, on one node or in all.
    pub fn counts(&self, page_size: PageSize, node: Option<u32>) -> Result<Counts, Error> {
        let directory = self.directory(page_size, node)?;
        // As sysfs has it, surplus pages are part of nr_hugepages.
        let all = read_number(&directory.join("nr_hugepages"))?;
        let surplus = read_number(&directory.join("surplus_hugepages"))?;
        Ok(Counts {
            page_size,
            node,
            reserved: all.saturating_sub(surplus),
            free: read_number(&directory.join("free_hugepages"))?,
            surplus,
            promised: if node.is_none() { read_number(&directory.join("resv_hugepages"))? } else { 0 },
        })
    }

    /// Makes `count` the number of huge pages reserved: on `node`, or in all, which the kernel spreads over the nodes.
    /// Fewer than are in use is no error: what is in use becomes surplus and goes when its user does.
    ///
    /// # Errors
    /// When the kernel could not make as many. Those it could make stay reserved.
    pub fn reserve(&self, count: u64, page_size: PageSize, node: Option<u32>) -> Result<Counts, Error> {
        let path = self.directory(page_size, node)?.join("nr_hugepages");
        fs::write(&path, count.to_string()).map_err(|cause| match cause.kind() {
            io::ErrorKind::PermissionDenied => Error::NotPermitted {
                doing: format!("write {}", path.display()),
                advice: format!("run as root: `echo {count} > {}`", path.display()),
                cause,
            },
            _ => Error::File { path: path.clone(), cause },
        })?;
        let counts = self.counts(page_size, node)?;
        if counts.reserved < count {
            return Err(Error::Fragmented { page_size, node, asked: count, got: counts.reserved });
        }
        Ok(counts)
    }

    /// Gives reserved huge pages back to ordinary memory: at once those that are free, and those in use, which the counts
    /// returned still show, when their user is done.
    pub fn release(&self, page_size: PageSize, node: Option<u32>) -> Result<Counts, Error> {
        self.reserve(0, page_size, node)
    }

    /// Checks that the machine has a NUMA node.
    pub fn check_node(&self, node: u32) -> Result<(), Error> {
        let found = self.nodes()?;
        if found.contains(&node) { Ok(()) } else { Err(Error::NoSuchNode { node, found }) }
    }

    /// [`check_memlock`](crate::check_memlock) by what the procfs says of this process.
    ///
    /// # Errors
    /// [`Error::Memlock`].
    pub fn check_memlock(&self, needed: u64) -> Result<(), Error> {
        limits::check_memlock_of(&self.root, needed)
    }

    fn directory(&self, page_size: PageSize, node: Option<u32>) -> Result<PathBuf, Error> {
        if !page_size.is_huge() {
            return Err(Error::NotHuge);
        }
        let parent = match node {
            Some(node) => {
                self.check_node(node)?;
                self.root.join(format!("sys/devices/system/node/node{node}/hugepages"))
            }
            None => self.root.join("sys/kernel/mm/hugepages"),
        };
        let directory = parent.join(format!("hugepages-{}kB", page_size.bytes() >> 10));
        if directory.is_dir() { Ok(directory) } else { Err(Error::NoSuchPageSize { page_size, directory }) }
    }

    /// Why no file with pages of this size could be made.
    pub(crate) fn why_no_file(&self, page_size: PageSize, cause: io::Error) -> Error {
        match (cause.kind(), self.counts(page_size, None)) {
            (io::ErrorKind::PermissionDenied, _) => Error::NotPermitted {
                doing: format!("make a memfd with {page_size} pages"),
                advice: "run the program as root, or allow memfd_create in its seccomp profile".into(),
                cause,
            },
            (_, Err(error @ Error::NoSuchPageSize { .. })) => error,
            _ => Error::NoFile { page_size, cause },
        }
    }

    /// Why a file of `len` bytes could not get its pages.
    pub(crate) fn why_no_pages(
        &self,
        page_size: PageSize,
        node: Option<u32>,
        len: usize,
        cause: io::Error,
    ) -> Error {
        let known = || {
            if page_size.is_huge() {
                if node.is_some() {
                    self.check_free(page_size, node, len)?;
                }
                self.check_free(page_size, None, len)?;
                limits::check_hugetlb(&self.root, page_size, len as u64)
            } else {
                limits::check_memory(&self.root, len as u64)
            }
        };
        known().err().unwrap_or_else(|| match cause.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::NotPermitted {
                doing: "choose the NUMA node of memory".into(),
                advice: "give the container CAP_SYS_NICE, which lifts the ban on set_mempolicy".into(),
                cause,
            },
            _ => Error::Refused { bytes: len, page_size, cause },
        })
    }

    fn check_free(&self, page_size: PageSize, node: Option<u32>, len: usize) -> Result<(), Error> {
        let Counts { reserved, free, promised, .. } = self.counts(page_size, node)?;
        let (needed, free) = ((len / page_size.bytes()) as u64, free.saturating_sub(promised));
        if free < needed {
            return Err(Error::TooFewPages { page_size, node, needed, free, reserved });
        }
        Ok(())
    }
}

/// Says which file an I/O error is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |cause| Error::File { path, cause }
}

fn read_number(path: &Path) -> Result<u64, Error> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    text.trim().parse().map_err(|_| {
        let text = format!("expected a number, found '{}'", text.trim().escape_debug());
        at(path)(io::Error::new(io::ErrorKind::InvalidData, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Tree};

    /// A machine with two nodes: 12 pages of 2 MiB on node 0, of which 2 are surplus, 8 on node 1; pages of 1 GiB known to
    /// node 1 only.
    fn machine() -> Tree {
        let tree = Tree::new(&[
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/power/control", "auto\n"),
        ]);
        let two = "hugepages-2048kB";
        pool(&tree, &format!("sys/kernel/mm/hugepages/{two}"), ["20", "7", "2", "3"]);
        pool(&tree, &format!("sys/devices/system/node/node0/hugepages/{two}"), ["12", "2", "2", ""]);
        pool(&tree, &format!("sys/devices/system/node/node1/hugepages/{two}"), ["8", "5", "0", ""]);
        pool(&tree, "sys/devices/system/node/node1/hugepages/hugepages-1048576kB", ["4", "4", "0", ""]);
        pool(&tree, "sys/kernel/mm/hugepages/hugepages-1048576kB", ["4", "4", "0", "0"]);
        tree
    }

    fn pool(tree: &Tree, directory: &str, numbers: [&str; 4]) {
        let names = ["nr_hugepages", "free_hugepages", "surplus_hugepages", "resv_hugepages"];
        for (name, number) in names.into_iter().zip(numbers) {
            tree.write(&format!("{directory}/{name}"), &format!("{number}\n"));
        }
    }

    fn counts(
        page_size: PageSize,
        node: Option<u32>,
        [reserved, free, surplus, promised]: [u64; 4],
    ) -> Counts {
        Counts { page_size, node, reserved, free, surplus, promised }
    }

    #[test]
    fn every_node_and_size_is_listed() {
        let list = machine().sysfs().list().unwrap();
        assert_eq!(
            list,
            [
                counts(PageSize::Size2M, Some(0), [10, 2, 2, 0]),
                counts(PageSize::Size2M, Some(1), [8, 5, 0, 0]),
                counts(PageSize::Size1G, Some(1), [4, 4, 0, 0]),
            ]
        );
        assert_eq!(list.iter().map(Counts::used).collect::<Vec<_>>(), [10, 3, 0]);
    }

    #[test]
    fn a_kernel_without_nodes_has_one_line_a_size() {
        let tree = Tree::new(&[]);
        pool(&tree, "sys/kernel/mm/hugepages/hugepages-2048kB", ["20", "7", "2", "3"]);
        assert_eq!(tree.sysfs().list().unwrap(), [counts(PageSize::Size2M, None, [18, 7, 2, 3])]);
        assert_eq!(
            tree.sysfs().counts(PageSize::Size2M, Some(0)).unwrap_err().to_string(),
            "this machine has no NUMA node 0, it has none: name one of these"
        );
    }

    #[test]
    fn this_machine_is_read() {
        let _turn = testing::huge_pages(1);
        let list = Sysfs::default().list().unwrap();
        let all = Sysfs::default().counts(PageSize::Size2M, None).unwrap();
        let of_nodes = list.iter().filter(|counts| counts.page_size == PageSize::Size2M);
        assert_eq!(of_nodes.map(|counts| counts.free).sum::<u64>(), all.free);
        assert!(all.reserved > 0);
    }

    #[test]
    fn reserving_writes_the_total_where_it_was_asked() {
        let tree = machine();
        let sysfs = tree.sysfs();
        assert_eq!(sysfs.reserve(64, PageSize::Size2M, Some(1)).unwrap().reserved, 64);
        assert_eq!(sysfs.reserve(9, PageSize::Size1G, None).unwrap().reserved, 9);
        assert_eq!(
            sysfs.counts(PageSize::Size2M, Some(0)).unwrap().reserved,
            10,
            "the other node is as it was"
        );
        assert_eq!(sysfs.counts(PageSize::Size1G, Some(1)).unwrap().reserved, 4);
        assert_eq!(sysfs.release(PageSize::Size2M, Some(1)).unwrap().reserved, 0);
    }

    #[test]
    fn fewer_pages_than_asked_is_an_error() {
        // The surplus of node 0 makes the file read as 2 fewer than were written.
        let error = machine().sysfs().reserve(12, PageSize::Size2M, Some(0)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "12 huge pages of 2 MiB were asked for on NUMA node 0 and the kernel could make 10, free memory is too little \
             or in too small pieces: run `echo 1 > /proc/sys/vm/compact_memory` as root and try again, or reserve at \
             boot with the kernel arguments `hugepagesz=2M hugepages=12`"
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        let tree = machine();
        let error = |size, node| tree.strip(tree.sysfs().counts(size, node).unwrap_err());
        assert_eq!(
            error(PageSize::Size2M, Some(2)),
            "this machine has no NUMA node 2, it has 0, 1: name one of these"
        );
        assert_eq!(
            error(PageSize::Size1G, Some(0)),
            "this machine has no pages of 1 GiB, /sys/devices/system/node/node0/hugepages/hugepages-1048576kB does not \
             exist: choose another size (`pagewire hugepages` lists them; 1 GiB needs a processor with the flag pdpe1gb)"
        );
        assert_eq!(
            error(PageSize::Size4K, None),
            "pages of 4 KiB are ordinary memory and are not reserved: give --size 2M or --size 1G"
        );
        tree.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "many\n");
        assert_eq!(
            error(PageSize::Size2M, None),
            "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages: expected a number, found 'many'"
        );
        fs::remove_file(tree.path().join("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")).unwrap();
        assert_eq!(
            error(PageSize::Size2M, None),
            "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn an_ordinary_user_is_told_to_be_root() {
        testing::in_child("sysfs::tests::an_ordinary_user_is_told_to_be_root", || {
            testing::become_nobody();
            // Should this be let through after all, nothing changes.
            let now = Sysfs::default().counts(PageSize::Size2M, None).unwrap().reserved;
            let error = Sysfs::default().reserve(now, PageSize::Size2M, None).unwrap_err();
            let file = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
            assert_eq!(
                error.to_string(),
                format!(
                    "not permitted to write {file} (Permission denied (os error 13)): run as root: `echo {now} > {file}`"
                )
            );
        });
    }

    /// What a refusal of `pages` pages of 2 MiB is put down to.
    fn reason(tree: &Tree, node: Option<u32>, pages: usize, errno: i32) -> String {
        let len = pages * PageSize::Size2M.bytes();
        tree.strip(tree.sysfs().why_no_pages(
            PageSize::Size2M,
            node,
            len,
            io::Error::from_raw_os_error(errno),
        ))
    }

    #[test]
    fn too_few_free_pages_is_the_first_reason() {
        let tree = machine();
        assert_eq!(
            reason(&tree, Some(1), 6, libc::ENOSPC),
            "6 free huge pages of 2 MiB are needed on NUMA node 1, 5 of the 8 reserved are free: run `pagewire hugepages \
             reserve --size 2M --count 9 --node 1` as root"
        );
        // 7 are free in all, of which 3 are promised to others.
        for node in [None, Some(1)] {
            assert_eq!(
                reason(&tree, node, 5, libc::ENOSPC),
                "5 free huge pages of 2 MiB are needed, 4 of the 18 reserved are free: run `pagewire hugepages reserve \
                 --size 2M --count 19` as root"
            );
        }
    }

    #[test]
    fn a_control_group_is_the_next_reason() {
        let tree = machine();
        tree.write("proc/self/cgroup", "0::/router\n");
        tree.write("proc/self/mountinfo", "31 23 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n");
        tree.write("sys/fs/cgroup/router/hugetlb.2MB.max", "6291456\n");
        tree.write("sys/fs/cgroup/router/hugetlb.2MB.current", "2097152\n");
        assert_eq!(
            reason(&tree, None, 3, libc::ENOSPC),
            "6291456 bytes are needed and this process's control group allows 6291456 bytes in all, 2097152 of them in use \
             (/sys/fs/cgroup/router/hugetlb.2MB.max): run `echo 8388608 > /sys/fs/cgroup/router/hugetlb.2MB.max` as \
             root, or start the program outside the group"
        );
    }

    #[test]
    fn without_a_known_reason_the_kernel_has_the_word() {
        let tree = machine();
        assert_eq!(
            reason(&tree, None, 4, libc::ENOSPC),
            "the kernel refused 8388608 bytes of 2 MiB pages although enough are free (No space left on device (os error \
             28)): check that their NUMA nodes are in Mems_allowed_list of /proc/self/status, and `dmesg`"
        );
        assert_eq!(
            reason(&tree, Some(1), 4, libc::EPERM),
            "not permitted to choose the NUMA node of memory (Operation not permitted (os error 1)): give the container \
             CAP_SYS_NICE, which lifts the ban on set_mempolicy"
        );
    }

    #[test]
    fn a_file_of_huge_pages_that_cannot_be_made_has_a_reason() {
        let tree = machine();
        let reason =
            |size, errno| tree.strip(tree.sysfs().why_no_file(size, io::Error::from_raw_os_error(errno)));
        assert_eq!(
            reason(PageSize::Size2M, libc::EPERM),
            "not permitted to make a memfd with 2 MiB pages (Operation not permitted (os error 1)): run the program as \
             root, or allow memfd_create in its seccomp profile"
        );
        assert_eq!(
            reason(PageSize::Size2M, libc::EMFILE),
            "no file could be made for pages of 2 MiB (Too many open files (os error 24))"
        );
        fs::remove_dir_all(tree.path().join("sys/kernel/mm/hugepages/hugepages-1048576kB")).unwrap();
        assert!(reason(PageSize::Size1G, libc::ENODEV).starts_with("this machine has no pages of 1 GiB, "));
    }
}
