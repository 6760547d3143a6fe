//! The model of the 82599 under a driver that knows nothing of it: Linux's ixgbe, as Debian ships it, behind a virtual IOMMU.
//!
//! Two models are wired to each other, and their ports are in network namespaces of their own, so that what the guest sends
//! itself goes over the wire.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pagewire_tests::{Guest, GuestOptions, Link, Nic, programs};

const PATIENCE: Duration = Duration::from_secs(30);
/// Queues that each port has, one a processor.
const QUEUES: u32 = 4;

#[test]
fn linux_drives_the_model_by_messages() -> Result<()> {
    linux(false)
}

#[test]
fn linux_drives_the_model_by_mapped_doorbells() -> Result<()> {
    linux(true)
}

/// Without message-signalled interrupts the driver makes do with one queue, and the line that each card pulls.
#[test]
fn linux_makes_do_with_interrupt_lines() -> Result<()> {
    let mut ports = Ports::boot(false, "pci=nomsi")?;
    ports.load()?;
    ports.up()?;
    let interrupts = ports.guest.check("grep -E 'IO-APIC.* eth[01]$' /proc/interrupts")?;
    assert_eq!(interrupts.lines().count(), 2, "{interrupts}");
    ports.ping(20)?;
    // It says what it does without.
    ports.unharmed(&["Failed to allocate MSI", "Disabling SR-IOV support", "Disabling RSS support"])
}

fn linux(mapped: bool) -> Result<()> {
    let mut ports = Ports::boot(mapped, "")?;
    ports.load()?;
    ports.up()?;
    for (port, name) in NAMES.into_iter().enumerate() {
        assert_eq!(ports.check(port, &format!("cat /sys/class/net/{name}/speed"))?, "10000\n");
        let queues = ports.check(port, &format!("ls /sys/class/net/{name}/queues"))?;
        assert_eq!(queues.matches("rx-").count(), QUEUES as usize, "{queues}");
    }
    ports.ping(20)?;
    ports.copy(100 << 20)?;
    ports.spread()?;
    ports.statistics_agree()?;

    for (port, name) in NAMES.into_iter().enumerate() {
        // Each end in turn; the other end's light goes out with it.
        ports.guest.models()[port].control.set_cable(false);
        ports.carrier(false)?;
        let lost = ports.run(port, &format!("ping -c 1 -W 1 {}", address(1 - port)))?;
        ensure!(lost.status != 0, "through a pulled cable at {name}: {lost}");
        ports.guest.models()[port].control.set_cable(true);
        ports.carrier(true)?;
    }
    ports.ping(5)?;

    for _ in 0..10 {
        ports.guest.check("rmmod ixgbe")?;
        ports.load()?;
    }
    ports.up()?;
    ports.ping(5)?;
    ports.guest.check("rmmod ixgbe")?;
    ports.unharmed(&[])
}

const NAMES: [&str; 2] = ["eth0", "eth1"];

fn address(port: usize) -> String {
    format!("10.0.0.{}", port + 1)
}

/// Packets that each receive queue has got, by the driver's own count.
fn queues(statistics: &HashMap<String, u64>) -> Result<Vec<u64>> {
    let of = |queue| statistics.get(&format!("rx_queue_{queue}_packets")).copied();
    (0..QUEUES).map(of).collect::<Option<_>>().context("a queue without statistics")
}

/// Two ports of Linux's, each in a network namespace.
struct Ports {
    guest: Guest,
    /// What goes in front of a command to run it where a port is.
    inside: [String; 2],
    namespaces: [String; 2],
}

impl Ports {
    fn boot(mapped: bool, kernel_argument: &str) -> Result<Self> {
        let nics = vec![Nic::ixgbe(mapped, Link::Pair); 2];
        let kernel_arguments = vec![kernel_argument.to_owned()];
        let options = GuestOptions {
            nics,
            processors: QUEUES,
            hugepages: 0,
            kernel_arguments,
            ..GuestOptions::default()
        };
        let mut guest = programs::boot(options)?;
        let mut namespace = || -> Result<String> {
            // Its own view of /sys too, which has the ports of one namespace only; and no solicitations of IPv6.
            let hold = "mount -t sysfs sysfs /sys && echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 &&
                echo ready && exec sleep 999999";
            let holder = guest.start(&format!("exec unshare -n -m sh -c '{hold}'"))?;
            guest.wait_for(&holder, "ready", PATIENCE)?;
            Ok(guest.check(&format!("cat {}", holder.pid_file()))?.trim().to_owned())
        };
        let namespaces = [namespace()?, namespace()?];
        let inside = namespaces.each_ref().map(|pid| format!("nsenter -t {pid} -n -m"));
        guest.check(
"for module in libphy mdio mdio_devres xfrm_algo; do insmod /lib/modules/$module.ko || exit; done; dmesg -c")?;
        Ok(Self { guest, inside, namespaces })
    }

    /// Loads the driver, which must find both cards and complain of nothing.
    fn load(&mut self) -> Result<()> {
        self.guest.check("insmod /lib/modules/ixgbe.ko")?;
        for (port, name) in NAMES.into_iter().enumerate() {
            let mac = self.guest.check(&format!("cat /sys/class/net/{name}/address"))?;
            assert_eq!(mac, format!("52:54:00:00:00:{port:02x}\n"));
        }
        Ok(())
    }

    /// Gives the ports their addresses and waits for the link.
    fn up(&mut self) -> Result<()> {
        for (port, name) in NAMES.into_iter().enumerate() {
            self.guest.check(&format!("ip link set {name} netns {}", self.namespaces[port]))?;
            self.check(port, &format!("ip addr add {}/24 dev {name}", address(port)))?;
            self.check(port, &format!("ip link set {name} mtu 9000 up"))?;
        }
        self.carrier(true)
    }

    /// Waits until the kernel has noticed that both ports have a link, or have none.
    fn carrier(&mut self, up: bool) -> Result<()> {
        for (inside, name) in self.inside.iter().zip(NAMES) {
            let carrier = format!("[ $({inside} cat /sys/class/net/{name}/carrier) = {} ]", u8::from(up));
            self.guest.until(&carrier, PATIENCE)?;
        }
        Ok(())
    }

    fn run(&mut self, port: usize, command: &str) -> Result<pagewire_tests::Output> {
        self.guest.run(&format!("{} {command}", self.inside[port]))
    }

    fn check(&mut self, port: usize, command: &str) -> Result<String> {
        self.guest.check(&format!("{} {command}", self.inside[port]))
    }

    /// Sends pings, of which none may be lost, once the first has gone through.
    fn ping(&mut self, count: u32) -> Result<()> {
        let to = address(1);
        // While addresses are asked for, and the link is new, some may be.
        self.guest.until(&format!("{} ping -c 1 -W 1 {to}", self.inside[0]), PATIENCE)?;
        let output = self.check(0, &format!("ping -q -c {count} -i 0.05 {to}"))?;
        ensure!(output.contains(&format!(" {count} packets received, 0% packet loss")), "{output}");
        Ok(())
    }

    /// Copies random bytes from port 0 to port 1 by TCP.
    fn copy(&mut self, bytes: u64) -> Result<()> {
        let [from, to] = self.inside.clone();
        // The receiver's own input never ends; else it would hang up.
        let script = format!(
            "head -c {bytes} /dev/urandom >/tmp/in && mkfifo /tmp/never || exit
             {to} nc -l -p 5000 <>/tmp/never >/tmp/out &
             until {to} netstat -ltn | grep -q :5000; do usleep 10000; done
             {from} nc {} 5000 </tmp/in && wait && cmp /tmp/in /tmp/out && wc -c </tmp/out; rm /tmp/*",
            address(1)
        );
        let output = self.guest.run_within(&script, Duration::from_secs(200))?;
        assert_eq!((output.status, output.text.trim()), (0, bytes.to_string().as_str()), "{output}");
        Ok(())
    }

    /// Opens many connections, each of which is a flow of its own: both ports' queues must have got some.
    fn spread(&mut self) -> Result<()> {
        let before = [queues(&self.statistics(0)?)?, queues(&self.statistics(1)?)?];
        // Nobody listens, so each is two packets, one each way. That 64 flows miss a queue of four is a matter of 10⁻⁸.
        let connect = format!("n=0; while [ $n -lt 64 ]; do nc {} 9; n=$((n+1)); done", address(1));
        self.run(0, &format!("sh -c '{connect}' 2>/dev/null"))?;
        for (port, before) in before.into_iter().enumerate() {
            let after = queues(&self.statistics(port)?)?;
            let more = before.iter().zip(&after).all(|(before, after)| after > before);
            ensure!(more, "the queues of port {port} have {after:?} packets, before 64 flows {before:?}");
        }
        Ok(())
    }

    /// What the driver has read from the card's registers, and counted itself.
    fn statistics(&mut self, port: usize) -> Result<HashMap<String, u64>> {
        let ethtool = programs::command(Path::new(programs::IN_GUEST), "sbin/ethtool");
        let text = self.check(port, &format!("{ethtool} -S {}", NAMES[port]))?;
        let line = |line: &str| {
            let (name, value) = line.trim().split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    /// The driver's statistics must be what passed on the wire, once what is under way has arrived.
    fn statistics_agree(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.statistics_differ() {
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(200)),
                compared => return compared,
            }
        }
    }

    /// An error that says which differs.
    fn statistics_differ(&mut self) -> Result<()> {
        for port in 0..2 {
            let statistics = self.statistics(port)?;
            let counts = &self.guest.models()[port].counts;
            let (sent, received) = (counts.sent.load(Relaxed), counts.received.load(Relaxed));
            // The card's byte counts include the check sequence.
            let sent_bytes = counts.sent_bytes.load(Relaxed) + 4 * sent;
            let received_bytes = counts.received_bytes.load(Relaxed) + 4 * received;
            for (name, expected) in [
                ("tx_pkts_nic", sent),
                ("tx_bytes_nic", sent_bytes),
                ("rx_pkts_nic", received),
                ("rx_bytes_nic", received_bytes),
                ("tx_packets", sent),
                ("rx_packets", received),
            ] {
                let shown = statistics.get(name).copied();
                ensure!(shown == Some(expected), "port {port}: {name} is {shown:?}, on the wire {expected}");
            }
            // `tx_dropped` is not the card's: it counts what the kernel wanted to send before there was a link.
            for (name, count) in &statistics {
                let bad = ["error", "missed", "rx_dropped", "no_buffer", "timeout", "failed"]
                    .iter()
                    .any(|bad| name.contains(bad));
                ensure!(!bad || *count == 0, "port {port}: {name} is {count}");
            }
            let queues: u64 = queues(&statistics)?.iter().sum();
            ensure!(queues == received, "port {port}: its queues got {queues}, on the wire {received}");
        }
        Ok(())
    }

    /// Neither the models nor the IOMMU have anything to complain of, nor has the kernel, but for messages with these words.
    fn unharmed(&mut self, expected: &[&str]) -> Result<()> {
        let log = self.guest.check("dmesg -r")?;
        // The digits are facility and level; 4 is a warning, less is worse.
        let level =
            |line: &str| line.strip_prefix('<')?.split('>').next()?.parse::<u32>().ok().map(|n| n % 8);
        // When the guest's processors have to wait for the host's, its clocks notice.
        let busy_host =
            |line: &str| ["hrtimer: interrupt took", "clocksource: "].iter().any(|s| line.contains(s));
        let bad = |line: &&str| level(line).is_none_or(|level| level <= 4) && !busy_host(line);
        let (foreseen, bad): (Vec<_>, Vec<_>) =
            log.lines().filter(bad).partition(|line| expected.iter().any(|words| line.contains(words)));
        ensure!(bad.is_empty(), "the kernel says {bad:#?}");
        ensure!(foreseen.is_empty() == expected.is_empty(), "the kernel does not say {expected:?}");
        assert_eq!(self.guest.iommu_faults(), Vec::<String>::new());
        self.guest.check_models()
    }
}
