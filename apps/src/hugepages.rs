//! `pagewire hugepages`: show, reserve and release huge pages.

use std::{fmt::Write as _, io::Write as _};

use anyhow::Context as _;
use pagewire_hugepages::{Counts, PageSize, Sysfs, User};
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  pagewire hugepages
      Show what every NUMA node has
  pagewire hugepages reserve --size 2M --count 512 --node 0
      Make it 512 pages of 2 MiB, 1 GiB of memory, on node 0
  pagewire hugepages reserve --size 1G --count 4
      Make it 4 pages of 1 GiB in all; the kernel spreads them over the nodes
  pagewire hugepages release --size 2M
      Give the pages of 2 MiB back to ordinary memory

A reservation lasts until the machine is restarted. To have it at every boot, before memory is in pieces, use the kernel \
arguments `hugepagesz=1G hugepages=4`.";

/// What `pagewire hugepages` is asked to do.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Report as JSON: one object, sizes in bytes
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the huge pages of every NUMA node (the default)
    #[command(after_help = EXAMPLES)]
    Show,
    /// Set how many huge pages are reserved
    ///
    /// The count is the total, as in the kernel's nr_hugepages: running the command twice reserves no more than once, and a
    /// smaller count than before releases pages. Needs root.
    #[command(after_help = EXAMPLES)]
    Reserve {
        /// Size of the pages: 2M or 1G
        #[arg(long, value_name = "SIZE", default_value = "2M")]
        size: PageSize,
        /// Number of pages there are to be, those in use included
        #[arg(long, value_name = "N")]
        count: u64,
        /// The NUMA node. By default the count is for the whole machine, and the kernel spreads it evenly
        #[arg(long, value_name = "NODE")]
        node: Option<u32>,
    },
    /// Give reserved huge pages back to ordinary memory
    ///
    /// Pages in use go back as soon as their user is done with them; until then they are shown as surplus. Needs root.
    #[command(after_help = EXAMPLES)]
    Release {
        /// Size of the pages: 2M or 1G. By default both
        #[arg(long, value_name = "SIZE")]
        size: Option<PageSize>,
        /// The NUMA node. By default all of them
        #[arg(long, value_name = "NODE")]
        node: Option<u32>,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let text = answer(&Sysfs::default(), args)?;
    std::io::stdout().write_all(text.as_bytes()).context("could not print")
}

/// Does what is asked, and says what there is afterwards.
fn answer(sysfs: &Sysfs, args: Args) -> anyhow::Result<String> {
    let (size, node, asked_users) = match args.command {
        None | Some(Command::Show) => (None, None, false),
        Some(Command::Reserve { size, count, node }) => {
            sysfs.reserve(count, size, node)?;
            (Some(size), node, false)
        }
        Some(Command::Release { size, node }) => {
            node.map_or(Ok(()), |node| sysfs.check_node(node))?;
            for size in size.map_or_else(|| sizes(sysfs, node), |size| Ok(vec![size]))? {
                sysfs.release(size, node)?;
            }
            (size, node, true)
        }
    };
    let counts = chosen(sysfs, size, node)?;
    let used = asked_users && counts.iter().any(|counts| counts.used() > 0);
    let mut users = if used { sysfs.users() } else { Vec::new() };
    users.retain(|user| size.is_none_or(|size| size == user.page_size));
    Ok(if args.json {
        let mut object = json!({ "huge_pages": counts.iter().map(counts_json).collect::<Vec<_>>() });
        if asked_users {
            object["users"] = users.iter().map(user_json).collect();
        }
        format!("{object:#}\n")
    } else {
        let mut text = table(&counts);
        if used {
            text += &still_in_use(&counts, &users);
        }
        text
    })
}

/// The counts of one size, or of all, on one node, or on all.
fn chosen(sysfs: &Sysfs, size: Option<PageSize>, node: Option<u32>) -> anyhow::Result<Vec<Counts>> {
    let mut list = sysfs.list()?;
    list.retain(|counts| {
        size.is_none_or(|size| size == counts.page_size) && (node.is_none() || node == counts.node)
    });
    Ok(list)
}

/// The sizes of huge page that there are on one node, or on any.
fn sizes(sysfs: &Sysfs, node: Option<u32>) -> anyhow::Result<Vec<PageSize>> {
    let mut sizes: Vec<PageSize> = chosen(sysfs, None, node)?.iter().map(|counts| counts.page_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

/// Bytes that are huge pages now, whoever has them.
fn bytes(counts: &Counts) -> u64 {
    (counts.reserved + counts.surplus) * counts.page_size.bytes() as u64
}

fn table(list: &[Counts]) -> String {
    if list.is_empty() {
        return "this machine has no huge pages: its kernel needs CONFIG_HUGETLBFS\n".into();
    }
    let mut text = String::from("NODE   SIZE  RESERVED      FREE      USED   SURPLUS      MEMORY\n");
    for counts in list {
        let node = counts.node.map_or("-".into(), |node| node.to_string());
        let Counts { page_size, reserved, free, surplus, .. } = counts;
        let (used, memory) = (counts.used(), human(bytes(counts)));
        let _ = writeln!(
            text,
            "{node:>4} {page_size:>6} {reserved:>9} {free:>9} {used:>9} {surplus:>9} {memory:>11}"
        );
    }
    text
}

fn still_in_use(list: &[Counts], users: &[User]) -> String {
    let mut text = String::new();
    for counts in list.iter().filter(|counts| counts.used() > 0) {
        let node = counts.node.map_or(String::new(), |node| format!(" of node {node}"));
        let _ = writeln!(text, "still in use: {} pages of {}{node}", counts.used(), counts.page_size);
    }
    if users.is_empty() {
        text += "  by no process that can be seen: look for files in `findmnt -t hugetlbfs`, and for open memfds as root\n";
    }
    for User { pid, command, page_size, bytes } in users {
        let _ = writeln!(text, "  by process {pid} ({command}): {} in pages of {page_size}", human(*bytes));
    }
    text
}

/// Bytes in MiB, and in GiB when that is exact: huge pages have no other amounts.
fn human(bytes: u64) -> String {
    match bytes >> 20 {
        mib if mib >= 1024 && mib % 1024 == 0 => format!("{} GiB", mib / 1024),
        mib => format!("{mib} MiB"),
    }
}

fn counts_json(counts: &Counts) -> Value {
    json!({
        "node": counts.node,
        "page_size": counts.page_size.bytes(),
        "reserved": counts.reserved,
        "free": counts.free,
        "used": counts.used(),
        "surplus": counts.surplus,
        "bytes": bytes(counts),
    })
}

fn user_json(user: &User) -> Value {
    json!({
        "pid": user.pid,
        "command": user.command,
        "page_size": user.page_size.bytes(),
        "bytes": user.bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// A made-up machine with two nodes, removed when dropped. Its files keep what is written to them.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Self {
            let machine =
                Machine(std::env::temp_dir().join(format!("pagewire-{}-{name}", std::process::id())));
            for (node, size, numbers) in [
                ("system/node/node0", 2048, [12, 2, 2]),
                ("system/node/node1", 2048, [520, 520, 0]),
                ("system/node/node0", 1 << 20, [0, 0, 0]),
                ("system/node/node1", 1 << 20, [4, 3, 0]),
            ] {
                machine.pool(&format!("sys/devices/{node}/hugepages/hugepages-{size}kB"), numbers);
            }
            machine.pool("sys/kernel/mm/hugepages/hugepages-2048kB", [532, 522, 2]);
            machine.pool("sys/kernel/mm/hugepages/hugepages-1048576kB", [4, 3, 0]);
            machine.write("proc/320/comm", "l2fwd\n");
            machine.write("proc/320/smaps", "KernelPageSize:  2048 kB\nShared_Hugetlb:  20480 kB\n");
            machine.write("proc/41/comm", "qemu\n");
            machine.write("proc/41/smaps", "KernelPageSize:  1048576 kB\nPrivate_Hugetlb:  1048576 kB\n");
            machine
        }

        fn pool(&self, directory: &str, [all, free, surplus]: [u64; 3]) {
            for (name, number) in [("nr", all), ("free", free), ("surplus", surplus), ("resv", 0)] {
                self.write(&format!("{directory}/{name}_hugepages"), &number.to_string());
            }
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn reserved(&self, directory: &str) -> String {
            fs::read_to_string(self.0.join("sys").join(directory).join("nr_hugepages")).unwrap()
        }

        fn run(&self, arguments: &str) -> anyhow::Result<String> {
            let arguments = ["hugepages"].into_iter().chain(arguments.split_ascii_whitespace());
            answer(&Sysfs::new(&self.0), Cli::try_parse_from(arguments)?.args)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn show_is_a_table_of_nodes_and_sizes() {
        let machine = Machine::new("show");
        let table = "\
NODE   SIZE  RESERVED      FREE      USED   SURPLUS      MEMORY
   0  2 MiB        10         2        10         2      24 MiB
   0  1 GiB         0         0         0         0       0 MiB
   1  2 MiB       520       520         0         0    1040 MiB
   1  1 GiB         4         3         1         0       4 GiB
";
        assert_eq!(machine.run("").unwrap(), table);
        assert_eq!(machine.run("show").unwrap(), table);
    }

    #[test]
    fn json_is_one_object_in_bytes() {
        let machine = Machine::new("json");
        let parse = |arguments| serde_json::from_str::<Value>(&machine.run(arguments).unwrap()).unwrap();
        let shown = parse("--json");
        assert_eq!(shown, parse("show --json"));
        assert_eq!(shown["huge_pages"].as_array().unwrap().len(), 4);
        assert_eq!(
            shown["huge_pages"][0],
            json!({
                "node": 0, "page_size": 2097152, "reserved": 10, "free": 2, "used": 10, "surplus": 2, "bytes": 25165824
            })
        );
        assert_eq!(shown.get("users"), None);
        let users = &parse("release --size 1G --json")["users"];
        assert_eq!(
            *users,
            json!([{ "pid": 41, "command": "qemu", "page_size": 1073741824, "bytes": 1073741824 }])
        );
    }

    #[test]
    fn reserve_sets_a_total_and_shows_it() {
        let machine = Machine::new("reserve");
        assert_eq!(
            machine.run("reserve --count 640 --node 1").unwrap(),
            "NODE   SIZE  RESERVED      FREE      USED   SURPLUS      MEMORY\n   \
             1  2 MiB       640       520       120         0    1280 MiB\n"
        );
        assert_eq!(machine.reserved("devices/system/node/node1/hugepages/hugepages-2048kB"), "640");
        machine.run("reserve --size 1G --count 8").unwrap();
        assert_eq!(machine.reserved("kernel/mm/hugepages/hugepages-1048576kB"), "8");
        assert_eq!(machine.reserved("devices/system/node/node1/hugepages/hugepages-1048576kB"), "4");
    }

    #[test]
    fn release_says_what_is_in_use_and_by_whom() {
        let machine = Machine::new("release");
        // On a real machine pages in use turn into surplus; here the count of what is free just stays.
        machine.pool("sys/devices/system/node/node0/hugepages/hugepages-2048kB", [12, 2, 12]);
        assert_eq!(
            machine.run("release --size 2M").unwrap(),
            "NODE   SIZE  RESERVED      FREE      USED   SURPLUS      MEMORY\n   \
             0  2 MiB         0         2        10        12      24 MiB\n   \
             1  2 MiB       520       520         0         0    1040 MiB\n\
             still in use: 10 pages of 2 MiB of node 0\n  \
             by process 320 (l2fwd): 20 MiB in pages of 2 MiB\n"
        );
        assert_eq!(machine.reserved("kernel/mm/hugepages/hugepages-2048kB"), "0");
        assert_eq!(
            machine.reserved("kernel/mm/hugepages/hugepages-1048576kB"),
            "4",
            "the other size is as it was"
        );
        machine.run("release").unwrap();
        assert_eq!(machine.reserved("kernel/mm/hugepages/hugepages-1048576kB"), "0");
    }

    #[test]
    fn mistakes_are_named() {
        let machine = Machine::new("mistakes");
        let mistake = |arguments| format!("{:#}", machine.run(arguments).unwrap_err());
        assert!(
            mistake("reserve --size 3M --count 1").contains("'3M' is not a page size: give 4K, 2M or 1G")
        );
        assert!(mistake("reserve").contains("--count <N>"));
        assert!(mistake("reserve --count -1").contains("unexpected argument '-1'"));
        assert!(mistake("reserve --size 4K --count 1").contains("give --size 2M or --size 1G"));
        for arguments in ["reserve --count 1 --node 7", "release --node 7", "release --size 1G --node 7"] {
            assert_eq!(mistake(arguments), "this machine has no NUMA node 7, it has 0, 1: name one of these");
        }
        let none = Machine(std::env::temp_dir().join("pagewire-no-such-machine"));
        assert_eq!(
            none.run("").unwrap(),
            "this machine has no huge pages: its kernel needs CONFIG_HUGETLBFS\n"
        );
    }
}
