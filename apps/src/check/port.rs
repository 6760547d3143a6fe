//! What concerns one port.

use std::path::Path;

use pagewire_hugepages as memory;
use pagewire_pci::{Backend, FunctionInfo};

use super::machine::list;
use super::{Check, Finding};
use crate::memory::Shortage;
use crate::ports::{self, PortSpec};

impl Check<'_> {
    /// A function of this machine.
    pub(super) fn port(&self, info: &FunctionInfo) -> Vec<Finding> {
        let mut findings = vec![known(info), self.driver(info), self.group(info)];
        if info.is_vfio() {
            findings.extend([self.permission(info), self.users(info)]);
        }
        findings.extend([self.node(info), self.memory_of_node(info), self.link(info)]);
        findings.into_iter().map(|finding| finding.of(info.address)).collect()
    }

    fn driver(&self, info: &FunctionInfo) -> Finding {
        let driver = info.driver.as_deref().unwrap_or("no driver");
        if info.is_vfio() {
            return Finding::fine("driver", format!("bound to {driver}"));
        }
        let used = info.interfaces.iter().find(|interface| interface.up || interface.default_route);
        let bind = format!("pagewire dev bind {}", info.address);
        match used {
            Some(interface) if interface.default_route => Finding::blocking(
                "driver",
                format!(
                    "bound to {driver}, and {} carries the default route: this machine may not be reachable without it",
                    interface.name
                ),
                "take another port",
            ),
            Some(interface) => Finding::blocking(
                "driver",
                format!("bound to {driver}, and {} is up", interface.name),
                format!("ip link set {} down && {bind}", interface.name),
            ),
            None => Finding::blocking("driver", format!("bound to {driver}, not to vfio-pci"), bind),
        }
    }

    fn group(&self, info: &FunctionInfo) -> Finding {
        let Some(group) = info.iommu_group else {
            let hidden = if self.access.unsafe_noiommu { Finding::warning } else { Finding::blocking };
            return hidden(
                "group",
                "in no IOMMU group".to_owned(),
                "see the finding on the IOMMU".to_owned(),
            );
        };
        if info.no_iommu && !self.access.unsafe_noiommu {
            let found = "in VFIO's no-IOMMU mode: it can read and write all of this machine's memory";
            return Finding::blocking(
                "group",
                found,
                "turn on the IOMMU, or accept that with --unsafe-noiommu",
            );
        }
        let members = info.group_members.iter().filter_map(|&member| self.sysfs.function(member).ok());
        let held: Vec<FunctionInfo> = members.filter(FunctionInfo::holds_group).collect();
        if held.is_empty() {
            return Finding::fine(
                "group",
                format!("group {group} has nothing else in it that the kernel drives"),
            );
        }
        let names: Vec<String> = held.iter().map(|member| member.address.to_string()).collect();
        let drivers: Vec<String> = held
            .iter()
            .map(|member| {
                format!("{} (bound to {})", member.address, member.driver.as_deref().unwrap_or_default())
            })
            .collect();
        Finding::blocking(
            "group",
            format!("group {group} goes to one program as a whole, and has {} in it", drivers.join(", ")),
            format!("pagewire dev bind {}", names.join(" ")),
        )
    }

    /// Whether this user may open what a program would: that is decided as `pagewire_pci` decides it.
    fn permission(&self, info: &FunctionInfo) -> Finding {
        let mend = format!("pagewire dev bind {} --user {}", info.address, self.who.user);
        let (own, groups): (Vec<_>, Vec<_>) = self
            .sysfs
            .nodes(info)
            .into_iter()
            .filter(|node| node.exists())
            .partition(|node| node.starts_with(self.root.join("dev/vfio/devices")));
        let iommufd = self.root.join("dev/iommu");
        let by_itself = match self.access.backend() {
            Backend::Group => false,
            Backend::Iommufd => true,
            Backend::Auto => !own.is_empty() && self.who.may_open(&iommufd),
        };
        let mut wanted = if by_itself && !info.no_iommu { own } else { groups };
        if wanted.is_empty() && self.access.backend() == Backend::Iommufd {
            let found = "--vfio iommufd is asked for, and it has no node below /dev/vfio/devices";
            return Finding::blocking("permission", found, "leave out --vfio iommufd");
        }
        if by_itself {
            wanted.push(iommufd);
        }
        match wanted.iter().find(|node| !self.who.may_open(node)) {
            _ if wanted.is_empty() => Finding::blocking("permission", "it has no node below /dev/vfio", mend),
            Some(node) => {
                let found = format!("user {} may not open {}", self.who.user, self.below(node));
                Finding::blocking("permission", found, mend)
            }
            None => {
                let all: Vec<String> = wanted.iter().map(|node| self.below(node)).collect();
                Finding::fine("permission", format!("{} may be opened", all.join(" and ")))
            }
        }
    }

    fn users(&self, info: &FunctionInfo) -> Finding {
        let mut holders: Vec<String> =
            self.sysfs.nodes(info).iter().flat_map(|node| self.sysfs.holders(node)).collect();
        holders.sort();
        holders.dedup();
        match holders.first() {
            None => Finding::fine("in-use", "by nobody, as far as this user may see"),
            // "pid 812 (testpmd)".
            Some(first) => Finding::blocking(
                "in-use",
                format!("by {}", holders.join(", ")),
                format!("kill {}", first.split(' ').nth(1).unwrap_or_default()),
            ),
        }
    }

    fn node(&self, info: &FunctionInfo) -> Finding {
        let Some(node) = info.numa_node else {
            return Finding::fine("numa", "no NUMA node is nearer than another");
        };
        let near = self.cpu_list(&format!("sys/devices/system/node/node{node}/cpulist"));
        let far: Vec<usize> = self.cpus.iter().copied().filter(|cpu| !near.contains(cpu)).collect();
        if far.is_empty() {
            return Finding::fine("numa", format!("on node {node}, as the cores are"));
        }
        let mut usable: Vec<usize> = near.into_iter().filter(|cpu| self.who.cpus.contains(cpu)).collect();
        usable.truncate(self.cpus.len());
        let mend = match usable.is_empty() {
            true => {
                format!("let this process run on a core of node {node}, or move the card to another slot")
            }
            false => format!("--cores {}", list(&usable)),
        };
        Finding::warning(
            "numa",
            format!("on node {node}, far from CPUs {}: every packet crosses over", list(&far)),
            mend,
        )
    }

    /// Whether the memory that is nearest to the card has enough huge pages.
    fn memory_of_node(&self, info: &FunctionInfo) -> Finding {
        let (size, check) = (self.page_size(), "node-memory");
        let spec = [PortSpec::Pci(info.address)];
        let (Some(node), true) = (info.numa_node, size.is_huge()) else {
            return Finding::fine(check, "any memory is as near");
        };
        let needed = self.needs(&spec).count(size);
        match memory::Sysfs::new(&self.root).counts(size, Some(node)) {
            Ok(counts) => match Shortage::of(needed, counts) {
                None => Finding::fine(check, format!("node {node} has {needed} free huge pages of {size}")),
                Some(shortage) => Finding::warning(check, shortage.found(), shortage.command()),
            },
            Err(error) => Finding::warning(check, error, "run a kernel with CONFIG_HUGETLBFS"),
        }
    }

    fn link(&self, info: &FunctionInfo) -> Finding {
        let Some(link) = self.sysfs.express_link(info.address) else {
            return Finding::fine("pcie", "no PCI Express link to speak of");
        };
        let now = format!("x{} at {} GT/s", link.width, link.speed);
        if !link.is_reduced() {
            return Finding::fine("pcie", now);
        }
        Finding::warning(
            "pcie",
            format!("{now}, of x{} at {} GT/s that the card can do", link.max_width, link.max_speed),
            format!("put the card, firmly, into a slot with {} lanes", link.max_width),
        )
    }

    /// A card that another process serves.
    pub(super) fn socket(&self, path: &Path) -> Finding {
        let place = path.strip_prefix("/").map_or(path.to_owned(), |below| self.root.join(below));
        let finding = match place.exists() {
            false => Finding::blocking("socket", "there is no such socket", ports::start_model(path)),
            true if !self.who.may_open(&place) => Finding::blocking(
                "socket",
                "this user may not connect to it",
                "become the user whose server it is",
            ),
            true => Finding::fine("socket", "it is there"),
        };
        finding.of(format!("vfio-user:{}", path.display()))
    }

    /// A path without the root that is looked below.
    fn below(&self, path: &Path) -> String {
        format!("/{}", path.strip_prefix(&self.root).unwrap_or(path).display())
    }
}

/// Whether there is a driver of our own for it.
fn known(info: &FunctionInfo) -> Finding {
    match ports::device_name(info.vendor_id, info.device_id) {
        Ok(name) => Finding::fine("device", name),
        Err(error) => Finding::blocking("device", format!("{error:#}"), "take another port"),
    }
}
