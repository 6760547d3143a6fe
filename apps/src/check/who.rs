//! Who asks: what the process may open, and where it may run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::lanes::CpuList;

/// `CAP_DAC_OVERRIDE`: permissions of files do not count.
const ALL_FILES: u64 = 1 << 1;

/// This process, as the procfs has it.
#[derive(Debug)]
pub(super) struct Who {
    /// Effective.
    pub(super) user: u32,
    groups: Vec<u32>,
    capabilities: u64,
    /// CPUs that it may run on.
    pub(super) cpus: Vec<usize>,
}

impl Who {
    /// What `/proc/self/status` below a root says. Of a process without one: nobody, who may do nothing.
    pub(super) fn read(root: &Path) -> Who {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_default()
                .trim()
        };
        // Real, effective, saved, and of file systems.
        let effective = |name: &str| field(name).split_whitespace().nth(1).and_then(|id| id.parse().ok());
        let groups = field("Groups").split_whitespace().filter_map(|id| id.parse().ok());
        Who {
            user: effective("Uid").unwrap_or(u32::MAX),
            groups: groups.chain(effective("Gid")).collect(),
            capabilities: u64::from_str_radix(field("CapEff"), 16).unwrap_or(0),
            cpus: field("Cpus_allowed_list").parse().map_or_else(|_| Vec::new(), |CpuList(list)| list),
        }
    }

    /// Whether it may read and write a file, by owner, group and mode. False too if there is none.
    pub(super) fn may_open(&self, path: &Path) -> bool {
        let Ok(about) = fs::metadata(path) else { return false };
        let class = match () {
            () if about.uid() == self.user => 6,
            () if self.groups.contains(&about.gid()) => 3,
            () => 0,
        };
        self.capabilities & ALL_FILES != 0 || about.mode() >> class & 6 == 6
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn owner_group_mode_and_capability_decide() {
        let root = tempfile::tempdir().expect("a folder");
        let node = root.path().join("node");
        fs::write(&node, "").expect("it is ours");
        let about = fs::metadata(&node).expect("it is there");
        fs::create_dir_all(root.path().join("proc/self")).expect("a folder");
        let may = |user: u32, group: u32, capabilities: &str, mode: u32| {
            let status = format!(
                "Uid:\t0\t{user}\t0\t0\nGid:\t0\t{}\t0\t0\nGroups:\t7 {group} \nCapEff:\t{capabilities}\n\
                 Cpus_allowed_list:\t0,2-3\n",
                u32::MAX
            );
            fs::write(root.path().join("proc/self/status"), status).expect("it is ours");
            fs::set_permissions(&node, PermissionsExt::from_mode(mode)).expect("it is ours");
            let who = Who::read(root.path());
            assert_eq!((who.user, &who.cpus[..]), (user, &[0, 2, 3][..]));
            who.may_open(&node)
        };
        let (own, other) = (about.uid(), about.uid() + 1);
        let (ours, theirs) = (about.gid(), about.gid() + 1);
        assert!(may(own, theirs, "0", 0o600));
        assert!(!may(own, ours, "0", 0o066), "the owner's own permissions count");
        assert!(may(other, ours, "0", 0o060) && !may(other, ours, "0", 0o606));
        assert!(may(other, theirs, "0", 0o006) && !may(other, theirs, "0", 0o004));
        assert!(may(other, theirs, "0000000000000002", 0o000));
        assert!(!Who::read(root.path()).may_open(&root.path().join("nothing")));
        assert!(Who::read(&node).cpus.is_empty());
    }
}
