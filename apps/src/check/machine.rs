//! What concerns all ports: IOMMU, VFIO, memory, cores, the folder of sockets.

use std::fmt::Write as _;

use pagewire_hugepages as memory;

use super::{Check, Finding};
use crate::stats;

impl Check<'_> {
    pub(super) fn machine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.wants_hardware() {
            findings.extend([self.iommu(), self.vfio()]);
        }
        findings.extend([self.huge_pages(), self.memlock(), self.allowed_cores()]);
        findings.extend([self.isolation(), self.governor(), self.sockets()]);
        if self.specs.is_empty() {
            let candidates =
                self.sysfs.functions().unwrap_or_default().into_iter().filter(|info| info.is_network());
            let mend = match candidates.map(|info| info.address.to_string()).collect::<Vec<_>>().join(" or ")
            {
                none if none.is_empty() => "put a card into the machine".into(),
                list => format!("pagewire dev bind ADDRESS, for example {list}"),
            };
            findings.push(Finding::warning(
                "device",
                "no port is named, and no network device is bound to vfio-pci",
                mend,
            ));
        }
        findings
    }

    fn iommu(&self) -> Finding {
        let none = "no IOMMU is in use: nothing keeps a card from all of this machine's memory";
        let unsafe_mode = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
        match (self.sysfs.has_iommu(), self.access.unsafe_noiommu) {
            (true, _) => Finding::fine("iommu", "in use"),
            (false, true) if self.text(unsafe_mode) == "Y" => {
                Finding::warning("iommu", format!("{none}, as --unsafe-noiommu accepts"), self.iommu_on())
            }
            (false, true) => Finding::blocking(
                "iommu",
                format!("{none}, and VFIO is not to do without"),
                format!("modprobe vfio && echo 1 > /{unsafe_mode}"),
            ),
            (false, false) => Finding::blocking("iommu", none, self.iommu_on()),
        }
    }

    fn iommu_on(&self) -> String {
        match self.text("proc/cpuinfo").contains("AuthenticAMD") {
            true => "turn on AMD-Vi (IOMMU) in the firmware, and restart".into(),
            false => format!("turn on VT-d in the firmware; {}", self.boot_with("intel_iommu=on iommu=pt")),
        }
    }

    /// How the kernel gets arguments at its next start.
    fn boot_with(&self, arguments: &str) -> String {
        let there = |path: &str| self.root.join(path).exists();
        match () {
            () if there("usr/sbin/grubby") || there("sbin/grubby") => {
                format!("grubby --update-kernel=ALL --args=\"{arguments}\" && reboot")
            }
            () if there("etc/default/grub") => format!(
                "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {arguments}\"' >> /etc/default/grub && update-grub && reboot"
            ),
            () => format!("restart with the kernel arguments {arguments}"),
        }
    }

    fn vfio(&self) -> Finding {
        let missing: Vec<&str> = ["dev/vfio/vfio", "sys/bus/pci/drivers/vfio-pci"]
            .into_iter()
            .filter(|path| !self.root.join(path).exists())
            .collect();
        match missing.as_slice() {
            [] => Finding::fine("vfio", "vfio-pci is loaded"),
            list => Finding::blocking(
                "vfio",
                format!("vfio-pci is not loaded: there is no /{}", list.join(" and no /")),
                "modprobe vfio-pci",
            ),
        }
    }

    fn huge_pages(&self) -> Finding {
        let size = self.page_size();
        if !size.is_huge() {
            return Finding::warning("huge-pages", "pages of 4 KiB cost TLB misses", "leave out --pages 4K");
        }
        let lack = if self.wants_hardware() || self.access.pages.is_some() {
            Finding::blocking
        } else {
            Finding::warning
        };
        let specs = self.assumed();
        let needs = self.needs(&specs);
        match needs.shortage(&memory::Sysfs::new(&self.root), size) {
            Ok(None) => {
                Finding::fine("huge-pages", format!("{} of {size} are needed and free", needs.count(size)))
            }
            Ok(Some(shortage)) => lack("huge-pages", shortage.found(), shortage.command()),
            Err(error) => lack("huge-pages", error.to_string(), "run a kernel with CONFIG_HUGETLBFS".into()),
        }
    }

    fn memlock(&self) -> Finding {
        let size = self.page_size();
        let bytes = self.needs(&self.assumed()).count(size) * size.bytes() as u64;
        match memory::Sysfs::new(&self.root).check_memlock(bytes) {
            Err(memory::Error::Memlock { limit, locked, needed }) => {
                let mend = "prlimit --pid $$ --memlock=unlimited:unlimited (as root, of the shell that starts pagewire)";
                let found = format!(
                    "{needed} bytes have to be locked; the limit is {limit}, {locked} of them in use"
                );
                match self.wants_hardware() {
                    true => Finding::blocking("memlock", found, mend),
                    false => Finding::fine(
                        "memlock",
                        format!("{found}, which only cards of this machine count against"),
                    ),
                }
            }
            _ => Finding::fine("memlock", format!("{bytes} bytes may be locked")),
        }
    }

    fn allowed_cores(&self) -> Finding {
        let Check { cpus, who, .. } = self;
        if let Some(cpu) = cpus.iter().find(|cpu| !who.cpus.contains(cpu)) {
            return Finding::blocking(
                "cores",
                format!("this process may not run on CPU {cpu}, only on {}", list(&who.cpus)),
                format!("taskset --cpu-list --pid {} $$ (of the shell that starts pagewire)", list(cpus)),
            );
        }
        match who.cpus.len() {
            0 | 1 => Finding::warning(
                "cores",
                format!(
                    "everything is to run on CPU {}: a loop that polls leaves nothing for the rest",
                    list(&who.cpus)
                ),
                "give the machine a second CPU, or use --interrupts",
            ),
            _ => Finding::fine("cores", format!("loops run on {}", list(cpus))),
        }
    }

    fn isolation(&self) -> Finding {
        let isolated = self.cpu_list("sys/devices/system/cpu/isolated");
        let shared: Vec<usize> = self.cpus.iter().copied().filter(|cpu| !isolated.contains(cpu)).collect();
        if shared.is_empty() {
            return Finding::fine("isolation", "no other process runs on these cores");
        }
        let all = list(&self.cpus);
        Finding::warning(
            "isolation",
            format!(
                "CPUs {} are not isolated: other processes and timer ticks interrupt the loops",
                list(&shared)
            ),
            self.boot_with(&format!("isolcpus={all} nohz_full={all} rcu_nocbs={all}")),
        )
    }

    fn governor(&self) -> Finding {
        let file = |cpu: &usize| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
        let slow: Vec<(usize, String)> = self.cpus.iter().map(|cpu| (*cpu, self.text(&file(cpu)))).collect();
        let slow: Vec<_> =
            slow.into_iter().filter(|(_, now)| !now.is_empty() && now != "performance").collect();
        if slow.is_empty() {
            return Finding::fine("governor", "nothing slows the cores down");
        }
        let found: Vec<String> = slow.iter().map(|(cpu, now)| format!("CPU {cpu} has {now}")).collect();
        let files = slow.iter().fold(String::new(), |mut files, (cpu, _)| {
            let _ = write!(files, " /{}", file(cpu));
            files
        });
        Finding::warning(
            "governor",
            format!("{}: a core that speeds up only when it is busy loses packets", found.join(", ")),
            format!("echo performance | tee{files}"),
        )
    }

    fn sockets(&self) -> Finding {
        match stats::check_folder(&self.root) {
            Ok(folder) => Finding::fine("sockets", format!("statistics are served in {}", folder.display())),
            Err((folder, why)) => Finding::warning(
                "sockets",
                format!("no statistics will be served: {why:#}"),
                format!("rm -r {} (it is made anew)", folder.display()),
            ),
        }
    }
}

/// CPUs as the kernel's arguments have them.
pub(super) fn list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(usize::to_string).collect(),
    });
    runs.collect::<Vec<_>>().join(",")
}
