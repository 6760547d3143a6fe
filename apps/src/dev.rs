//! `pagewire dev`: list network devices, bind them to vfio-pci and give them back.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::Context as _;
use pagewire_pci::{
    Address, FunctionInfo, NetInterface, Sysfs,
    bind::{self, BindOptions},
};
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  pagewire dev
      Show the network devices of this machine
  pagewire dev bind 0000:01:00.0
      Take a card from the kernel, for programs of root
  pagewire dev bind 01:00.0 01:00.1 --user ana
      Take two, for programs of the user ana as well
  pagewire dev unbind 01:00.0 01:00.1
      Give both back to the kernel

Nothing outlasts a restart of the machine.";

/// What `pagewire dev` is asked to do.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show network devices, who drives them and what else is in their IOMMU group (the default)
    List(ListArgs),
    /// Take devices from the kernel, so that a program can drive them. Needs root
    ///
    /// A device whose network interface is up, or carries the default route, is left where it is. When vfio-pci does not
    /// take a device, its former driver gets it back.
    #[command(after_help = EXAMPLES)]
    Bind {
        /// The devices, such as 0000:01:00.0 or 01:00.0
        #[arg(required = true)]
        addresses: Vec<Address>,
        /// Take a device even if its interface is up or carries the default route
        #[arg(long)]
        force: bool,
        /// The user whose programs may open the devices, beside root's
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// The driver that hands devices to programs
        #[arg(long, value_name = "DRIVER", default_value = "vfio-pci")]
        driver: String,
    },
    /// Give devices back to the kernel's own drivers. Needs root
    #[command(after_help = EXAMPLES)]
    Unbind {
        /// The devices, such as 0000:01:00.0 or 01:00.0
        #[arg(required = true)]
        addresses: Vec<Address>,
    },
}

#[derive(clap::Args, Default)]
#[command(after_help = EXAMPLES)]
struct ListArgs {
    /// Show every PCI device, not only network devices
    #[arg(long)]
    all: bool,
    /// Report as JSON: one object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let sysfs = Sysfs::default();
    match args.command.unwrap_or(Command::List(ListArgs::default())) {
        Command::List(list) => print(&listing(&sysfs, &list)?),
        Command::Bind { addresses, force, user, driver } => {
            let options = BindOptions { driver, force, user };
            addresses.iter().try_for_each(|&address| bind(&sysfs, address, &options))?;
            if let Some(user) = &options.user {
                print(&limit_note(user))?;
            }
            for address in addresses {
                bind::warnings(&sysfs, address)?.iter().for_each(|warning| log::warn!("{warning}"));
            }
            Ok(())
        }
        Command::Unbind { addresses } => addresses.iter().try_for_each(|&address| unbind(&sysfs, address)),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("could not print")
}

fn bind(sysfs: &Sysfs, address: Address, options: &BindOptions) -> anyhow::Result<()> {
    let bound = bind::bind(sysfs, address, options)?;
    let driver = &options.driver;
    let mut text = match bound.former.as_deref() {
        Some(former) if former == driver => format!("{address} is bound to {driver} already\n"),
        former => format!("{address} is bound to {driver} (before: {})\n", former.unwrap_or("no driver")),
    };
    if let Some(user) = &options.user {
        for node in &bound.nodes {
            let _ = writeln!(text, "  {} belongs to {user}", node.display());
        }
    }
    print(&text)
}

/// Owning the nodes is not enough: what a program maps for a card counts as locked memory.
fn limit_note(user: &str) -> String {
    format!(
        "{user} needs a limit on locked memory (ulimit -l) of at least the packet memory that its programs use; for 4 GiB, \
         put\n  {user} - memlock {}\nin /etc/security/limits.d/pagewire.conf, and log in as {user} again\n",
        4 << 20
    )
}

fn unbind(sysfs: &Sysfs, address: Address) -> anyhow::Result<()> {
    let unbound = bind::unbind(sysfs, address)?;
    print(&match (unbound.former, unbound.driver) {
        (former, Some(driver)) if former.as_ref() == Some(&driver) => {
            format!("{address} is with {driver}, a driver of the kernel's, already\n")
        }
        (_, Some(driver)) => format!("{address} is back with {driver}\n"),
        (_, None) => format!(
            "{address} is free, but no driver of the kernel's took it: its module may not be loaded\n"
        ),
    })
}

fn listing(sysfs: &Sysfs, args: &ListArgs) -> anyhow::Result<String> {
    let all = sysfs.functions()?;
    let shown: Vec<&FunctionInfo> = all.iter().filter(|function| args.all || function.is_network()).collect();
    if args.json {
        let devices: Vec<Value> = shown.iter().map(|function| device_json(function)).collect();
        return Ok(format!("{:#}\n", json!({ "devices": devices })));
    }
    if shown.is_empty() {
        return Ok("this machine has no PCI network devices (--all shows the others)\n".to_owned());
    }
    Ok(table(&shown) + &groups(&shown, &all))
}

fn table(functions: &[&FunctionInfo]) -> String {
    let mut rows =
        vec![["ADDRESS", "ID", "DRIVER", "GROUP", "NODE", "INTERFACE", "DEVICE"].map(str::to_owned)];
    rows.extend(functions.iter().map(|function| {
        let or_dash =
            |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let mut group = or_dash(function.iommu_group);
        if function.no_iommu {
            group += " (no IOMMU)";
        }
        let interfaces: Vec<String> = function.interfaces.iter().map(state).collect();
        [
            function.address.to_string(),
            id(function),
            function.driver.clone().unwrap_or_else(|| "-".to_owned()),
            group,
            or_dash(function.numa_node),
            if interfaces.is_empty() { "-".to_owned() } else { interfaces.join("; ") },
            name(function),
        ]
    }));
    let widths: [usize; 6] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", row[widths.len()]);
    }
    text
}

/// One line a group that has more in it than is seen at a glance: all of it, bridges aside, goes to programs together.
fn groups(shown: &[&FunctionInfo], all: &[FunctionInfo]) -> String {
    let mut text = String::new();
    let mut ids: Vec<u32> = shown.iter().filter_map(|function| function.iommu_group).collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let members: Vec<&FunctionInfo> =
            all.iter().filter(|function| function.iommu_group == Some(id)).collect();
        if members.len() < 2 {
            continue;
        }
        let describe = |function: &&FunctionInfo| {
            let driver = function.driver.as_deref().unwrap_or("no driver");
            let bridge = if function.is_bridge() { "bridge, " } else { "" };
            format!("{} ({bridge}{driver})", function.address)
        };
        let list: Vec<String> = members.iter().map(describe).collect();
        let _ = writeln!(text, "group {id}: {}", list.join(", "));
    }
    if text.is_empty() {
        text
    } else {
        format!("\nShared IOMMU groups, used by one program at a time:\n{text}")
    }
}

fn state(interface: &NetInterface) -> String {
    let link = match (interface.up, interface.carrier) {
        (false, _) => "down",
        (true, false) => "up, no carrier",
        (true, true) => "up",
    };
    let route = if interface.default_route { ", default route" } else { "" };
    format!("{} {link}{route}", interface.name)
}

fn id(function: &FunctionInfo) -> String {
    format!("{:04x}:{:04x}", function.vendor_id, function.device_id)
}

fn name(function: &FunctionInfo) -> String {
    let class = || format!("class {:06x}", function.class);
    let names = [&function.vendor_name, &function.device_name].map(Option::as_deref);
    let names: Vec<&str> = names.into_iter().flatten().collect();
    if names.is_empty() { class() } else { names.join(" ") }
}

fn device_json(function: &FunctionInfo) -> Value {
    let interface = |interface: &NetInterface| {
        json!({
            "name": interface.name,
            "up": interface.up,
            "carrier": interface.carrier,
            "default_route": interface.default_route,
            "mac": interface.mac,
        })
    };
    json!({
        "address": function.address.to_string(),
        "vendor_id": function.vendor_id,
        "device_id": function.device_id,
        "subsystem_vendor_id": function.subsystem_vendor_id,
        "subsystem_device_id": function.subsystem_device_id,
        "class": function.class,
        "revision": function.revision,
        "vendor": function.vendor_name,
        "device": function.device_name,
        "driver": function.driver,
        "iommu_group": function.iommu_group,
        "no_iommu": function.no_iommu,
        "group_members": function.group_members.iter().map(Address::to_string).collect::<Vec<_>>(),
        "numa_node": function.numa_node,
        "interfaces": function.interfaces.iter().map(interface).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::testing::Machine;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn list(machine: &Machine, arguments: &[&str]) -> String {
        let arguments = [&["dev", "list"], arguments].concat();
        let Some(Command::List(args)) = Cli::try_parse_from(arguments).unwrap().args.command else {
            panic!("not a list")
        };
        listing(&Sysfs::at(machine.path()), &args).unwrap()
    }

    fn machine() -> Machine {
        let machine = Machine::new();
        machine.add("0000:00:02.0", ["0x8086", "0x29c0"], "0x060400", Some("pcieport"), 7);
        machine.add("0000:01:00.0", ["0x8086", "0x10d3"], "0x020000", Some("vfio-pci"), 7);
        machine.add("0000:02:00.0", ["0x1af4", "0x1041"], "0x020000", Some("virtio-pci"), 8);
        machine.add("0000:03:00.0", ["0x8086", "0x10fb"], "0x020000", None, 9);
        machine.interface("0000:02:00.0", "eth0", "0x1003", "1");
        machine
    }

    #[test]
    fn the_list_is_aligned_and_names_who_shares_a_group() {
        let text = list(&machine(), &[]);
        let expected = "\
ADDRESS       ID         DRIVER      GROUP  NODE  INTERFACE  DEVICE
0000:01:00.0  8086:10d3  vfio-pci    7      0     -          Intel Corporation 82574L Gigabit Network Connection
0000:02:00.0  1af4:1041  virtio-pci  8      0     eth0 up    class 020000
0000:03:00.0  8086:10fb  -           9      0     -          Intel Corporation 82599ES 10-Gigabit SFI/SFP+ Network Connection

Shared IOMMU groups, used by one program at a time:
group 7: 0000:00:02.0 (bridge, pcieport), 0000:01:00.0 (vfio-pci)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn all_shows_the_rest_too() {
        let machine = machine();
        assert!(!list(&machine, &[]).contains("\n0000:00:02.0 "));
        assert!(list(&machine, &["--all"]).contains("\n0000:00:02.0 "));
    }

    #[test]
    fn no_device_is_said_in_words() {
        let machine = Machine::new();
        assert!(list(&machine, &[]).contains("no PCI network devices"));
        let object: Value = serde_json::from_str(&list(&machine, &["--json"])).unwrap();
        assert_eq!(object, json!({ "devices": [] }));
    }

    #[test]
    fn json_has_what_the_list_has() {
        let object: Value = serde_json::from_str(&list(&machine(), &["--json"])).unwrap();
        assert_eq!(object["devices"].as_array().unwrap().len(), 3);
        let card = &object["devices"][0];
        assert_eq!(card["address"], "0000:01:00.0");
        assert_eq!(card["vendor_id"], 0x8086);
        assert_eq!(card["device"], "82574L Gigabit Network Connection");
        assert_eq!(card["driver"], "vfio-pci");
        assert_eq!((&card["iommu_group"], &card["group_members"]), (&json!(7), &json!(["0000:00:02.0"])));
        let interface = &object["devices"][1]["interfaces"][0];
        assert_eq!(
            (&interface["name"], &interface["up"], &interface["carrier"]),
            (&json!("eth0"), &json!(true), &json!(true))
        );
        assert_eq!(object["devices"][2]["driver"], Value::Null);
    }

    #[test]
    fn the_state_of_an_interface_reads_in_words() {
        let machine = machine();
        machine.interface("0000:03:00.0", "eth1", "0x1002", "");
        machine.interface("0000:03:00.0", "eth2", "0x1003", "0");
        machine.file("proc/net/route", "eth0\t00000000\t01\t0003\t0\t0\t0\t00000000\t0\t0\t0");
        let text = list(&machine, &[]);
        assert!(text.contains("eth1 down; eth2 up, no carrier"), "{text}");
        assert!(text.contains("eth0 up, default route"), "{text}");
    }

    #[test]
    fn an_address_is_checked_before_anything_is_done() {
        for wrong in [&["dev", "bind", "eth0"][..], &["dev", "bind"], &["dev", "unbind", "01:00.9"]] {
            assert!(Cli::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
        let parsed =
            Cli::try_parse_from(["dev", "bind", "01:00.0", "0000:02:00.1", "--user", "ana", "--force"]);
        let Some(Command::Bind { addresses, force, user, driver }) = parsed.unwrap().args.command else {
            panic!()
        };
        assert_eq!(
            addresses.iter().map(Address::to_string).collect::<Vec<_>>(),
            ["0000:01:00.0", "0000:02:00.1"]
        );
        assert_eq!((force, user.as_deref(), driver.as_str()), (true, Some("ana"), "vfio-pci"));
    }
}
