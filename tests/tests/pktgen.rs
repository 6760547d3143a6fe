//! `pagewire pktgen` against Linux's own stack. Of a guest's four e1000e pktgen drives two, the kernel the two at the other ends of their
//! cables: it takes what pktgen sends it, answers, and routes from one to the other.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use pagewire_tests::counters::{Counters, counted, of_protocols};
use pagewire_tests::{Guest, GuestOptions, Link, Nic, Output, programs};
use serde_json::Value;

const FRAMES: u64 = 1000;

/// Of a card of the guest's.
fn mac(card: u8) -> String {
    format!("52:54:00:00:00:0{card}")
}

#[test]
fn linux_accepts_what_pktgen_sends_and_pktgen_measures_what_linux_forwards() -> Result<()> {
    let on = |hub| Nic { link: Link::Hub(hub), ..Nic::on_hub("e1000e") };
    let nics = [0, 1, 0, 1].map(on).to_vec();
    let mut guest = programs::boot(GuestOptions { nics, ..GuestOptions::default() })?;
    let guest = &mut guest;
    guest.check(&format!("pagewire dev bind {} {}", Guest::address(0), Guest::address(1)))?;
    // Nobody is asked for addresses. Linux sums itself, whatever its card says; nothing that waits is dropped or overtaken.
    guest.check("echo pfifo_fast >/proc/sys/net/core/default_qdisc")?;
    let ethtool = programs::command(Path::new(programs::IN_GUEST), "sbin/ethtool");
    for (hub, port) in [(0, "eth2"), (1, "eth3")] {
        guest.check(&format!(
            "{ethtool} -K {port} rx off gro off && {ethtool} -G {port} rx 4096 tx 4096 &&
             ip addr add 10.{hub}.0.1/24 dev {port} && ip link set {port} up && arp -i {port} -s 10.{hub}.0.2 {}",
            mac(hub)
        ))?;
        guest.until(&format!("[ $(cat /sys/class/net/{port}/operstate) = up ]"), Duration::from_secs(30))?;
    }
    accepted(guest)?;
    refused(guest)?;
    routed(guest)?;
    assert_eq!(guest.iommu_faults(), Vec::<String>::new());
    Ok(())
}

/// Runs pktgen on its two cards, at a rate that a busy machine can keep up with, and returns its last report.
fn pktgen(guest: &mut Guest, arguments: &str) -> Result<(Output, Value)> {
    let (a, b) = (Guest::address(0), Guest::address(1));
    let output =
        guest.run(&format!("pagewire pktgen --port {a} --port {b} --stats-period 0 --json {arguments}"))?;
    let last = output.text.lines().rev().find(|line| line.starts_with('{'));
    let report = serde_json::from_str(last.with_context(|| format!("no report: {output}"))?)?;
    Ok((output, report))
}

fn protocols(guest: &mut Guest) -> Result<Counters> {
    Ok(of_protocols(&guest.check("cat /proc/net/snmp /proc/net/netstat")?))
}

/// What goes to Linux itself: of UDP it counts that nobody listens, each of TCP it answers, and pktgen counts the answers.
fn accepted(guest: &mut Guest) -> Result<()> {
    for checksums in ["software", "offload"] {
        for (protocol, counter) in [("udp", "Udp.NoPorts"), ("tcp", "Tcp.OutRsts")] {
            let before = protocols(guest)?;
            let (output, report) = pktgen(
                guest,
                &format!(
                    "--rx-port 0 --src-ip 10.0.0.2 --dst-ip 10.0.0.1 --dst-mac {} --size 'random 76-1518' --src-port '1024-4096'
                     --payload random --protocol {protocol} --checksums {checksums} --rate 2kpps --count {FRAMES}",
                    mac(2)
                ).replace('\n', " "),
            )?;
            ensure!(output.status == 0, "{output}");
            let stream = &report["streams"][0];
            ensure!(stream["sent"] == FRAMES && stream["received"] == 0, "{report}");
            let answers = report["unmatched"]["foreign"].as_u64().context("no count of foreign frames")?;
            // Of ICMP it sends a few a second.
            ensure!(
                if protocol == "tcp" { answers == FRAMES } else { answers > 0 },
                "{answers} answers: {report}"
            );
            counted(
                || protocols(guest),
                &before,
                &[
                    (counter, FRAMES),
                    ("Udp.InCsumErrors", 0),
                    ("Tcp.InCsumErrors", 0),
                    ("IpExt.InCsumErrors", 0),
                ],
            )?;
        }
    }
    Ok(())
}

/// Wrong checksums, of IP, of UDP and of TCP, Linux counts as such, and answers none.
fn refused(guest: &mut Guest) -> Result<()> {
    const EACH: u64 = 100;
    let ends = ([0x52, 0x54, 0, 0, 0, 0], [0x52, 0x54, 0, 0, 0, 2]);
    let ip = || PacketBuilder::ethernet2(ends.0, ends.1).ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64);
    let (mut header, mut udp, mut tcp) = (Vec::new(), Vec::new(), Vec::new());
    ip().udp(9, 9).write(&mut header, b"wrong above")?;
    ip().udp(9, 9).write(&mut udp, b"wrong here")?;
    ip().tcp(9, 9, 0, 0).write(&mut tcp, b"wrong here")?;
    header[14 + 8] ^= 1;
    for frame in [&mut udp, &mut tcp] {
        *frame.last_mut().expect("a frame is not empty") ^= 1;
    }
    let frames: String = [header, udp, tcp]
        .iter()
        .map(|frame| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        .map(|hex| format!("[[stream.frame]]\\nbytes = \"{hex}\"\\n"))
        .collect();
    guest.check(&format!(
        "printf '[[stream]]\\nsignature = false\\nrx = 0\\nrate = \"1kpps\"\\ncount = {}\\n{frames}' >/tmp/wrong.toml",
        3 * EACH
    ))?;
    let before = protocols(guest)?;
    let (output, report) = pktgen(guest, "--scenario /tmp/wrong.toml")?;
    ensure!(output.status == 0 && report["streams"][0]["sent"] == 3 * EACH, "{output}");
    ensure!(report["unmatched"]["foreign"] == 0, "{report}");
    counted(
        || protocols(guest),
        &before,
        &[
            ("IpExt.InCsumErrors", EACH),
            ("Udp.InCsumErrors", EACH),
            ("Tcp.InCsumErrors", EACH),
            ("Udp.NoPorts", 0),
            ("Tcp.OutRsts", 0),
        ],
    )
}

/// What Linux routes from one port to the other is measured: whole, in order, none lost, and late by what Linux takes.
fn routed(guest: &mut Guest) -> Result<()> {
    let traffic = format!(
        "--src-ip 10.0.0.2 --dst-ip 10.1.0.2 --dst-mac {} --size imix --payload increment --rate 2kpps --count {FRAMES} --max-loss 0",
        mac(2)
    );
    // Linux does not do so unasked: then all are lost, and pktgen says so.
    let (output, report) = pktgen(guest, &traffic)?;
    ensure!(output.status == 3 && report["streams"][0]["lost"] == FRAMES, "{output}");

    guest.check("echo 1 >/proc/sys/net/ipv4/ip_forward")?;
    let before = protocols(guest)?;
    let (output, report) = pktgen(guest, &traffic)?;
    ensure!(output.status == 0, "{output}");
    let stream = &report["streams"][0];
    for (what, expected) in [
        ("sent", FRAMES),
        ("received", FRAMES),
        ("lost", 0),
        ("reordered", 0),
        ("duplicates", 0),
        ("corrupt", 0),
    ] {
        ensure!(stream[what] == expected, "{what} is not {expected}: {report}");
    }
    let latency = |which| stream["latency"][which].as_u64().context("no latency");
    let (least, median) = (latency("min_ns")?, latency("p50_ns")?);
    println!("through Linux: at least {least} ns, half within {median} ns, jitter {}", stream["jitter"]);
    ensure!(0 < least && least <= median, "{report}");
    counted(|| protocols(guest), &before, &[("Ip.ForwDatagrams", FRAMES), ("Ip.InHdrErrors", 0)])
}
