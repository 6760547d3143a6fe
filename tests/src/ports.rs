//! Two ports of a guest's kernel, each in a network namespace of its own, so that what the guest sends itself leaves it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Guest, GuestOptions, Output, programs};

const PATIENCE: Duration = Duration::from_secs(30);

/// What the kernel calls the ports.
pub const NAMES: [&str; 2] = ["eth0", "eth1"];

/// The address of a port.
pub fn address(port: usize) -> String {
    format!("10.0.0.{}", port + 1)
}

/// Two ports of Linux's, each in a network namespace.
pub struct Ports {
    /// Where they are.
    pub guest: Guest,
    /// What goes in front of a command to run it where a port is.
    inside: [String; 2],
    namespaces: [String; 2],
    driver: &'static str,
}

impl Ports {
    /// Boots a guest with two cards, for a driver.
    pub fn boot(driver: &'static str, options: GuestOptions) -> Result<Self> {
        let mut guest = programs::boot(GuestOptions { hugepages: 0, ..options })?;
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
        guest.load(&["libphy", "mdio", "mdio_devres", "xfrm_algo"])?;
        guest.check("dmesg -c")?;
        Ok(Self { guest, inside, namespaces, driver })
    }

    /// Loads the driver, which must find both cards. Returns their addresses.
    pub fn load(&mut self) -> Result<[String; 2]> {
        self.guest.load(&[self.driver])?;
        let mut address = |name| -> Result<String> {
            Ok(self.guest.check(&format!("cat /sys/class/net/{name}/address"))?.trim().to_owned())
        };
        Ok([address(NAMES[0])?, address(NAMES[1])?])
    }

    /// Unloads it.
    pub fn unload(&mut self) -> Result<()> {
        self.guest.check(&format!("rmmod {}", self.driver)).map(drop)
    }

    /// Gives the ports their addresses and waits for the link.
    pub fn up(&mut self, mtu: u32) -> Result<()> {
        for (port, name) in NAMES.into_iter().enumerate() {
            self.guest.check(&format!("ip link set {name} netns {}", self.namespaces[port]))?;
            self.check(port, &format!("ip addr add {}/24 dev {name}", address(port)))?;
            self.check(port, "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")?;
            self.check(port, &format!("ip link set {name} mtu {mtu} up"))?;
        }
        self.wait_link(true)
    }

    /// Tells both ports each other's addresses for good, so that neither asks for them: Linux resets a card whose ring has a
    /// frame in it when the link goes, and one more question may follow an unanswered ping at any time.
    pub fn introduce(&mut self) -> Result<()> {
        for (port, name) in NAMES.into_iter().enumerate() {
            let hardware = self.check(port, &format!("cat /sys/class/net/{name}/address"))?;
            self.check(1 - port, &format!("arp -s {} {}", address(port), hardware.trim()))?;
        }
        Ok(())
    }

    /// Waits until the kernel has noticed that both ports have a link, or have none, and acts upon it: a port has its carrier,
    /// or lacks it, before the queue in front of it is opened, or closed.
    pub fn wait_link(&mut self, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        for (inside, name) in self.inside.iter().zip(NAMES) {
            let found = format!("$({inside} cat /sys/class/net/{name}/operstate)");
            self.guest.until(&format!("[ {found} = {state} ]"), PATIENCE)?;
        }
        Ok(())
    }

    /// Runs a command where a port is.
    pub fn run(&mut self, port: usize, command: &str) -> Result<Output> {
        self.guest.run(&format!("{} {command}", self.inside[port]))
    }

    /// The same of one that must succeed; returns what it printed.
    pub fn check(&mut self, port: usize, command: &str) -> Result<String> {
        self.guest.check(&format!("{} {command}", self.inside[port]))
    }

    /// Sends pings, of which none may be lost, once the first has gone through.
    pub fn ping(&mut self, count: u32) -> Result<()> {
        let to = address(1);
        // While addresses are asked for, and the link is new, some may be.
        self.guest.until(&format!("{} ping -c 1 -W 1 {to}", self.inside[0]), PATIENCE)?;
        let output = self.check(0, &format!("ping -q -c {count} -i 0.05 {to}"))?;
        ensure!(output.contains(&format!(" {count} packets received, 0% packet loss")), "{output}");
        Ok(())
    }

    /// Copies random bytes from port 0 to port 1 by TCP.
    pub fn copy(&mut self, bytes: u64) -> Result<()> {
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

    /// Neither the models nor the IOMMU have anything to complain of, nor has the kernel, but for messages with these words.
    pub fn unharmed(&mut self, expected: &[&str]) -> Result<()> {
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
