//! What Linux counts, as its own files and ethtool print it, and what our drivers do.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pagewire_ethdev::Port;
use pagewire_models::wire::Counts;

/// How long whoever counts may take to: Linux's ixgbe looks at its card every two seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counters by name.
pub type Counters = HashMap<String, u64>;

/// The counters of `ethtool -S`, which Linux's driver has read from the card's registers and counted itself.
pub fn of_driver(text: &str) -> Counters {
    let line = |line: &str| {
        let (name, value) = line.trim().split_once(": ")?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// The counters of /proc/net/snmp and /proc/net/netstat, such as `Udp.InCsumErrors`: a line of names, a line of values.
pub fn of_protocols(text: &str) -> Counters {
    let lines: Vec<_> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut counters = Counters::new();
    for pair in lines.chunks_exact(2) {
        let (protocol, names) = pair[0];
        // What can be negative is none that counts.
        let values = pair[1].1.split(' ').map(|value| value.parse().ok());
        let named = names.split(' ').zip(values);
        counters.extend(named.filter_map(|(name, value)| Some((format!("{protocol}.{name}"), value?))));
    }
    counters
}

/// The counters of a port of ours with an 82599, under the names that Linux's ixgbe gives them.
pub fn of_port(port: &mut impl Port) -> Counters {
    let stats = port.stats();
    let card =
        port.xstats().into_iter().map(|stat| (stat.name.replace("_good_packets", "_pkts_nic"), stat.value));
    let card = card.map(|(name, value)| (name.replace("_good_bytes", "_bytes_nic"), value));
    let own = [("tx_packets", stats.tx_packets), ("rx_packets", stats.rx_packets)];
    card.chain(own.map(|(name, value)| (name.to_owned(), value))).collect()
}

/// Asks again and again, until there is no error or patience has an end.
pub fn eventually(mut condition: impl FnMut() -> Result<()>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(100)),
            result => return result,
        }
    }
}

/// Waits until so many more of each are counted than before.
pub fn counted(
    mut read: impl FnMut() -> Result<Counters>,
    before: &Counters,
    expected: &[(&str, u64)],
) -> Result<()> {
    eventually(|| {
        let now = read()?;
        for (name, more) in expected {
            let of = |counters: &Counters| counters.get(*name).copied();
            let found = of(&now).zip(of(before)).and_then(|(now, before)| now.checked_sub(before));
            ensure!(found == Some(*more), "{name} has risen by {found:?}, expected {more}");
        }
        Ok(())
    })
}

/// An error if what a driver says of its port, under the names of Linux's ixgbe, is not what has passed on its wire.
pub fn agree(driver: &Counters, wire: &Counts) -> Result<()> {
    let (sent, received) = (wire.sent.load(Relaxed), wire.received.load(Relaxed));
    // The card's byte counts include the check sequence.
    let sent_bytes = wire.sent_bytes.load(Relaxed) + 4 * sent;
    let received_bytes = wire.received_bytes.load(Relaxed) + 4 * received;
    for (name, expected) in [
        ("tx_pkts_nic", sent),
        ("tx_bytes_nic", sent_bytes),
        ("rx_pkts_nic", received),
        ("rx_bytes_nic", received_bytes),
        ("tx_packets", sent),
        ("rx_packets", received),
    ] {
        let shown = driver.get(name).copied();
        ensure!(shown == Some(expected), "{name} is {shown:?}, on the wire {expected}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_find_each_other() {
        let text = "Tcp: RtoMax MaxConn InSegs\nTcp: 120000 -1 7\nUdp: InCsumErrors\nUdp: 3\n";
        let found = of_protocols(text);
        assert_eq!((found.get("Tcp.InSegs"), found.get("Udp.InCsumErrors")), (Some(&7), Some(&3)));
        assert_eq!((found.get("Tcp.MaxConn"), found.len()), (None, 3));
        let found = of_driver("NIC statistics:\n     rx_packets: 12\n     tx_packets: 9\n");
        assert_eq!((found.get("rx_packets"), found.len()), (Some(&12), 2));
    }
}
