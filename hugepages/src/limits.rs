//! Limits on this process: locked memory, address space, control groups.

// getrlimit has no safe wrapper in the standard library.
#![allow(unsafe_code)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, PageSize};

/// Checks that `needed` more bytes may be locked in memory, or mapped for a device with VFIO, which counts against the same
/// limit (`RLIMIT_MEMLOCK`).
///
/// # Errors
/// When the limit is too low and the process has no `CAP_IPC_LOCK`, which lifts it.
pub fn check_memlock(needed: u64) -> Result<(), Error> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    memlock(&status, resource_limit(libc::RLIMIT_MEMLOCK), needed)
}

/// The same of what `/proc/self` below `root` says.
pub(crate) fn check_memlock_of(root: &Path, needed: u64) -> Result<(), Error> {
    let read = |name: &str| fs::read_to_string(root.join("proc/self").join(name)).unwrap_or_default();
    // "Max locked memory         8388608              8388608              bytes", or unlimited: soft, then hard.
    let limits = read("limits");
    let limit =
        limits.lines().find_map(|line| line.strip_prefix("Max locked memory")?.split_whitespace().next());
    memlock(&read("status"), limit.and_then(|limit| limit.parse().ok()), needed)
}

fn memlock(status: &str, limit: Option<u64>, needed: u64) -> Result<(), Error> {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    let capabilities =
        field(status, "CapEff:").and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or(0);
    // What is locked with mlock and what VFIO has pinned: one count in the kernel.
    let locked = kib(status, "VmLck:").unwrap_or(0);
    match limit {
        Some(limit) if capabilities & CAP_IPC_LOCK == 0 && locked.saturating_add(needed) > limit => {
            Err(Error::Memlock { limit, locked, needed })
        }
        _ => Ok(()),
    }
}

/// `RLIMIT_AS` in bytes, if there is a limit.
pub(crate) fn address_space() -> Option<u64> {
    resource_limit(libc::RLIMIT_AS)
}

fn resource_limit(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel writes one `rlimit`, which outlives the call. Should it fail, no limit is known.
    unsafe { libc::getrlimit(resource, &mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Checks that `needed` bytes of ordinary memory are there to be had, in the machine and in every control group of this
/// process. `root` is `/`, except in tests.
pub(crate) fn check_memory(root: &Path, needed: u64) -> Result<(), Error> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    match kib(&meminfo, "MemAvailable:") {
        Some(available) if available < needed => return Err(Error::TooLittleMemory { needed, available }),
        _ => {}
    }
    for group in control_groups(root) {
        // Clean page cache is counted as used and given up as soon as somebody needs the memory.
        let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cache = ["active_file", "inactive_file"]
            .iter()
            .filter_map(|name| field(&stat, name)?.parse::<u64>().ok())
            .sum();
        check_group(&group, "memory.max", "memory.current", cache, needed)?;
    }
    Ok(())
}

/// Checks that every control group of this process allows `needed` more bytes of huge pages.
pub(crate) fn check_hugetlb(root: &Path, page_size: PageSize, needed: u64) -> Result<(), Error> {
    let size = match page_size {
        PageSize::Size4K => return Ok(()),
        PageSize::Size2M => "2MB",
        PageSize::Size1G => "1GB",
    };
    for group in control_groups(root) {
        for kind in ["", "rsvd."] {
            let file = |name| format!("hugetlb.{size}.{kind}{name}");
            check_group(&group, &file("max"), &file("current"), 0, needed)?;
        }
    }
    Ok(())
}

/// Checks one limit of one group. A limit that is not there, or is `max`, allows everything.
fn check_group(group: &Path, max: &str, current: &str, reclaimable: u64, needed: u64) -> Result<(), Error> {
    let number = |name| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let Some(limit) = number(max) else { return Ok(()) };
    let used = number(current).unwrap_or(0).saturating_sub(reclaimable);
    if used.saturating_add(needed) > limit {
        return Err(Error::ControlGroup { file: group.join(max), limit, used, needed });
    }
    Ok(())
}

/// This process's control group (version 2) and the groups around it, innermost first.
fn control_groups(root: &Path) -> Vec<PathBuf> {
    let read = |path| fs::read_to_string(root.join(path)).unwrap_or_default();
    // "0::/system.slice/router.service"
    let groups = read("proc/self/cgroup");
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::")) else { return Vec::new() };
    // "31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw": what part of the tree, and where.
    let mounts = read("proc/self/mountinfo");
    let Some((part, mount)) = mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        kind.starts_with("cgroup2 ").then_some((place.next()?, place.next()?))
    }) else {
        return Vec::new();
    };
    let mount = root.join(mount.trim_start_matches('/'));
    let below = Path::new(group).strip_prefix(part).unwrap_or(Path::new(""));
    below.ancestors().map(|group| mount.join(group)).collect()
}

/// The first word after `name` at the start of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then(|| words.next())?
    })
}

/// A field in KiB, as bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    fn message(result: Result<(), Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn locked_memory_is_counted_against_the_limit() {
        let status = |capabilities| format!("Name:\tl2fwd\nVmLck:\t      64 kB\nCapEff:\t{capabilities}\n");
        let user = status("0000000000000000");
        assert!(memlock(&user, Some(128 << 10), 64 << 10).is_ok());
        assert!(memlock(&user, None, u64::MAX).is_ok());
        let refused = memlock(&user, Some(128 << 10), (64 << 10) + 1);
        assert!(
            matches!(refused, Err(Error::Memlock { limit: 131_072, locked: 65_536, needed: 65_537 })),
            "{refused:?}"
        );
        assert!(memlock(&user, Some(128 << 10), u64::MAX).is_err(), "the sum does not wrap");
        // The capability that lifts the limit, and every other one.
        assert!(memlock(&status("0000000000004000"), Some(0), 1 << 40).is_ok());
        assert!(memlock(&status("000001ffffffbfff"), Some(0), 1).is_err());
    }

    #[test]
    fn the_limit_is_read_from_the_procfs_too() {
        let tree = Tree::new(&[("proc/self/status", "VmLck:\t 0 kB\nCapEff:\t0000000000000000\n")]);
        let limits = |soft| {
            let text = format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max locked memory         {soft:<21}unlimited            bytes\nMax file locks            1    1    locks\n"
            );
            tree.write("proc/self/limits", &text);
        };
        limits("65536");
        assert!(tree.sysfs().check_memlock(65_536).is_ok());
        assert!(matches!(tree.sysfs().check_memlock(65_537), Err(Error::Memlock { limit: 65_536, .. })));
        limits("unlimited");
        assert!(tree.sysfs().check_memlock(1 << 40).is_ok());
    }

    /// A process in the group /machine/router of a tree mounted where it usually is.
    fn grouped() -> Tree {
        Tree::new(&[
            ("proc/meminfo", "MemTotal:       32768 kB\nMemAvailable:   16384 kB\n"),
            ("proc/self/cgroup", "4:memory:/elsewhere\n0::/machine/router\n"),
            (
                "proc/self/mountinfo",
                "22 1 0:20 / /proc rw - proc proc rw\n31 23 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
            ),
        ])
    }

    #[test]
    fn no_groups_and_no_limits_allow_everything() {
        let machines = [Tree::new(&[]), grouped()];
        machines[1].write("sys/fs/cgroup/machine/memory.max", "max\n");
        machines[1].write("sys/fs/cgroup/machine/hugetlb.2MB.max", "max\n");
        for tree in machines {
            assert!(check_hugetlb(tree.path(), PageSize::Size2M, u64::MAX).is_ok());
            assert!(check_memory(tree.path(), 16 << 20).is_ok());
        }
    }

    #[test]
    fn the_limit_of_a_group_further_out_counts_too() {
        let tree = grouped();
        tree.write("sys/fs/cgroup/machine/router/hugetlb.2MB.max", "max\n");
        tree.write("sys/fs/cgroup/machine/hugetlb.2MB.rsvd.max", "8388608\n");
        tree.write("sys/fs/cgroup/machine/hugetlb.2MB.rsvd.current", "4194304\n");
        assert!(check_hugetlb(tree.path(), PageSize::Size2M, 4 << 20).is_ok());
        assert!(check_hugetlb(tree.path(), PageSize::Size1G, 1 << 30).is_ok(), "each size has its own limit");
        assert_eq!(
            tree.strip(message(check_hugetlb(tree.path(), PageSize::Size2M, 6 << 20))),
            "6291456 bytes are needed and this process's control group allows 8388608 bytes in all, 4194304 of them in use \
             (/sys/fs/cgroup/machine/hugetlb.2MB.rsvd.max): run `echo 10485760 > \
             /sys/fs/cgroup/machine/hugetlb.2MB.rsvd.max` as root, or start the program outside the group"
        );
    }

    #[test]
    fn page_cache_does_not_count_against_a_group_of_ordinary_memory() {
        let tree = grouped();
        tree.write("sys/fs/cgroup/machine/router/memory.max", "10485760\n");
        tree.write("sys/fs/cgroup/machine/router/memory.current", "9437184\n");
        assert!(check_memory(tree.path(), 2 << 20).is_err());
        tree.write(
            "sys/fs/cgroup/machine/router/memory.stat",
            "anon 7340032\nactive_file 1048576\ninactive_file 1048576\nshmem 0\n",
        );
        assert!(check_memory(tree.path(), 3 << 20).is_ok());
        let refused = check_memory(tree.path(), (3 << 20) + 1);
        let found = matches!(refused, Err(Error::ControlGroup { limit: 10_485_760, used: 7_340_032, .. }));
        assert!(found, "{refused:?}");
    }

    #[test]
    fn a_container_sees_its_part_of_the_tree() {
        // The mount shows the part of the tree from /machine on.
        let tree = grouped();
        tree.write("proc/self/mountinfo", "31 23 0:27 /machine /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        tree.write("sys/fs/cgroup/router/hugetlb.1GB.max", "0\n");
        let refused = check_hugetlb(tree.path(), PageSize::Size1G, 1 << 30);
        let file = tree.path().join("sys/fs/cgroup/router/hugetlb.1GB.max");
        assert!(
            matches!(&refused, Err(Error::ControlGroup { file: found, .. }) if *found == file),
            "{refused:?}"
        );
    }

    #[test]
    fn more_than_the_machine_has_is_refused() {
        assert_eq!(
            message(check_memory(grouped().path(), (16 << 20) + 1)),
            "16777217 bytes of 4 KiB pages are needed and 16777216 bytes of memory are available: free some, for example \
             with `pagewire hugepages release`, or ask for less"
        );
    }
}
