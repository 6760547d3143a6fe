//! `pagewire check`: whether this machine is ready for ports, and the command that mends what is not.
//!
//! All of it is read from files below one root, `/` except in tests: nothing is opened, bound or changed.

mod finding;
mod machine;
mod port;
#[cfg(test)]
mod tests;
mod who;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use pagewire_hugepages::PageSize;
use pagewire_pci::{Address, FunctionInfo, Sysfs};
use pagewire_pool::PoolConfig;
use serde_json::{Value, json};

use crate::lanes::{CpuList, Lanes};
use crate::memory::Needs;
use crate::ports::{Access, PortSpec};
use crate::{cores, run};
use finding::{Finding, Severity};
use who::Who;

const EXAMPLES: &str = "\
Examples:
  pagewire check                                          this machine, and every device that is bound to vfio-pci
  pagewire check --port 01:00.0 --port 02:00.0            what these two ports need
  pagewire check --port 01:00.0 --queues 4 --cores 2-5    with the queues and cores that they are to have
  pagewire check --json | jq '.findings[] | select(.severity == \"blocking\")'";

/// Of the JSON that is printed. A field that is added is no new version; one that is gone or means something else is.
const VERSION: u64 = 1;

/// What `pagewire check` is asked to do.
///
/// Find what keeps ports from running on this machine, or makes them slow, with the command that mends it. Nothing is changed.
///
/// The exit code is 1 if a finding is blocking: the ports will not open. Warnings, which cost speed or safety, leave it 0.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, verbatim_doc_comment)]
pub(crate) struct Args {
    /// A port, once for each: as of `pagewire l2fwd`. By default every device that is bound to vfio-pci
    #[arg(long = "port", value_name = "ADDR")]
    ports: Vec<PortSpec>,

    #[command(flatten)]
    lanes: Lanes,

    #[command(flatten)]
    access: Access,

    /// Report as JSON: one object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let findings = Check::new(&args, Path::new("/"))?.all();
    run::print(&match args.json {
        true => format!("{:#}\n", document(&findings)),
        false => text(&findings),
    })?;
    match findings.iter().filter(|finding| finding.severity == Severity::Blocking).count() {
        0 => Ok(()),
        1 => bail!("1 finding is blocking"),
        count => bail!("{count} findings are blocking"),
    }
}

fn document(findings: &[Finding]) -> Value {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    json!({
        "version": VERSION,
        "blocking": count(Severity::Blocking),
        "warnings": count(Severity::Warning),
        "findings": findings,
    })
}

fn text(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect()
}

/// What is looked at, and for what.
struct Check<'a> {
    root: PathBuf,
    sysfs: Sysfs,
    who: Who,
    access: &'a Access,
    /// With what is given to a port by default, if none is named.
    specs: Vec<PortSpec>,
    /// Those of the specs that are functions of this machine; the error is that of one that is not there.
    functions: Vec<Result<FunctionInfo, pagewire_pci::Error>>,
    cpus: Vec<usize>,
    lanes: &'a Lanes,
}

impl Check<'_> {
    fn new<'a>(args: &'a Args, root: &Path) -> Result<Check<'a>> {
        let sysfs = Sysfs::at(root);
        let who = Who::read(root);
        let mut specs = args.ports.clone();
        if specs.is_empty() {
            let bound = sysfs.functions()?.into_iter().filter(|info| info.is_network() && info.is_vfio());
            specs.extend(bound.map(|info| PortSpec::Pci(info.address)));
        }
        let addresses = specs.iter().filter_map(|spec| match spec {
            PortSpec::Pci(address) => Some(*address),
            _ => None,
        });
        let functions = addresses.map(|address| sysfs.function(address)).collect();
        let lanes = specs.len().max(1) * usize::from(args.lanes.queues);
        let cpus = match &args.lanes.cores {
            Some(list) => list.0.clone(),
            None => cores::spare(who.cpus.clone(), lanes),
        };
        Ok(Check {
            root: root.into(),
            sysfs,
            who,
            access: &args.access,
            specs,
            functions,
            cpus,
            lanes: &args.lanes,
        })
    }

    /// Everything, what concerns all of the machine first.
    fn all(&self) -> Vec<Finding> {
        let mut findings = self.machine();
        for function in &self.functions {
            match function {
                Ok(info) => findings.extend(self.port(info)),
                Err(error) => findings.push(Finding::blocking("device", error, "pagewire dev list")),
            }
        }
        let sockets = self.specs.iter().filter_map(|spec| match spec {
            PortSpec::VfioUser(path) => Some(self.socket(path)),
            _ => None,
        });
        findings.extend(sockets);
        findings
    }

    /// Whether a port is a card of this machine, or none was named, and so one may be.
    fn wants_hardware(&self) -> bool {
        self.specs.is_empty() || self.specs.iter().any(PortSpec::is_hardware)
    }

    /// The ports, or one card if there are none: what memory is to be for.
    fn assumed(&self) -> Vec<PortSpec> {
        match self.specs.is_empty() {
            true => vec![PortSpec::Pci(Address { domain: 0, bus: 0, device: 0, function: 0 })],
            false => self.specs.clone(),
        }
    }

    /// What these ports take of memory in `pagewire l2fwd`.
    fn needs<'a>(&self, specs: &'a [PortSpec]) -> Needs<'a> {
        Needs {
            ports: specs,
            paired: specs.len(),
            queues: self.lanes.queues,
            pages: self.access.pages,
            descriptors: self.lanes.rx_ring + self.lanes.tx_ring,
            elsewhere: 2 * usize::from(self.lanes.burst),
            fragments: self.lanes.fragments,
            headroom: PoolConfig::HEADROOM,
            tx_pools: 0,
            tx_longest: 0,
        }
    }

    fn page_size(&self) -> PageSize {
        self.access.pages.unwrap_or(PageSize::Size2M)
    }

    /// A file's text without its newline; nothing where it cannot be read.
    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap_or_default().trim_end().to_owned()
    }

    /// The CPUs that a file lists.
    fn cpu_list(&self, path: &str) -> Vec<usize> {
        self.text(path).parse().map_or_else(|_| Vec::new(), |CpuList(list)| list)
    }
}
