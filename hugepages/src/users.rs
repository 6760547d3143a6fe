//! Who holds huge pages.

use std::{collections::BTreeMap, fs};

use crate::{PageSize, Sysfs};

/// A process that has huge pages of one size mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Process id.
    pub pid: u32,
    /// Name of the program, as in `/proc/PID/comm`.
    pub command: String,
    /// Size of the pages.
    pub page_size: PageSize,
    /// Bytes mapped. Two processes that share pages both have them here.
    pub bytes: u64,
}

impl Sysfs {
    /// The processes that have huge pages mapped, by process id. As far as this process may look: all of them for root, its
    /// own user's for another. Pages held by nothing but an open descriptor, or by a file in a hugetlbfs, are nobody's here.
    pub fn users(&self) -> Vec<User> {
        let proc = self.root().join("proc");
        let processes = fs::read_dir(&proc).into_iter().flatten().flatten();
        let mut pids: Vec<u32> =
            processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        let mut users = Vec::new();
        for pid in pids {
            let directory = proc.join(pid.to_string());
            // A process may end, or be somebody else's: it is left out.
            let Ok(smaps) = fs::read_to_string(directory.join("smaps")) else { continue };
            let command = fs::read_to_string(directory.join("comm")).unwrap_or_default().trim().to_owned();
            let held = mapped(&smaps).into_iter().filter(|(_, bytes)| *bytes > 0);
            users.extend(held.map(|(page_size, bytes)| User {
                pid,
                command: command.clone(),
                page_size,
                bytes,
            }));
        }
        users
    }
}

/// Bytes of huge pages of each size that a process has mapped, from its smaps.
fn mapped(smaps: &str) -> BTreeMap<PageSize, u64> {
    let mut mapped = BTreeMap::new();
    let mut page_size = None;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(kib)) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()))
        else {
            continue;
        };
        match name {
            // The kernel prints it before the fields below, for every mapping.
            "KernelPageSize:" => {
                page_size = PageSize::ALL.into_iter().find(|size| size.bytes() as u64 == kib << 10);
            }
            "Shared_Hugetlb:" | "Private_Hugetlb:" => {
                if let Some(size) = page_size {
                    *mapped.entry(size).or_default() += kib << 10;
                }
            }
            _ => {}
        }
    }
    mapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Segment, SegmentOptions, testing};

    #[test]
    fn only_huge_pages_count_and_those_of_every_mapping_do() {
        let mapping = |size: u32, shared: u32, private: u32| {
            format!(
                "7f3880000000-7f3888000000 rw-s 00000000 00:11 69039   /memfd:packets (deleted)\n\
                 Size:             131072 kB\nKernelPageSize:    {size:>5} kB\nMMUPageSize:       {size:>5} kB\n\
                 Shared_Hugetlb:  {shared} kB\nPrivate_Hugetlb: {private} kB\nVmFlags: rd wr sh mr mw me ms de ht\n"
            )
        };
        let tree = testing::Tree::new(&[
            ("proc/1/smaps", &mapping(4, 0, 0)),
            ("proc/1/comm", "init\n"),
            ("proc/320/smaps", &[mapping(4, 0, 0), mapping(2048, 4096, 0), mapping(2048, 0, 2048)].concat()),
            ("proc/320/comm", "l2fwd\n"),
            ("proc/41/smaps", &[mapping(1 << 20, 1 << 20, 0), mapping(2048, 2048, 0)].concat()),
            ("proc/41/comm", "qemu system\n"),
            ("proc/77/comm", "ended\n"),
            ("proc/meminfo", ""),
        ]);
        let user =
            |pid, command: &str, page_size, bytes| User { pid, command: command.into(), page_size, bytes };
        assert_eq!(
            tree.sysfs().users(),
            [
                user(41, "qemu system", PageSize::Size2M, 2 << 20),
                user(41, "qemu system", PageSize::Size1G, 1 << 30),
                user(320, "l2fwd", PageSize::Size2M, 6 << 20),
            ]
        );
    }

    #[test]
    fn this_process_is_found_while_it_holds_a_segment() {
        let _huge_pages = testing::huge_pages(3);
        let mine = || Sysfs::default().users().into_iter().find(|user| user.pid == std::process::id());
        assert_eq!(mine(), None);
        let options = SegmentOptions { page_size: PageSize::Size2M, node: None, name: "users".into() };
        let segment = Segment::allocate(3 * PageSize::Size2M.bytes(), &options).unwrap();
        let user = mine().expect("a process with 3 huge pages mapped is listed");
        assert_eq!((user.page_size, user.bytes), (PageSize::Size2M, segment.len() as u64));
    }
}
