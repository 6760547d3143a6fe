//! Our driver and Linux's, back to back: in this process ours drives a model of the 82599, in the guest Linux's ixgbe drives another, at
//! the two ends of one cable. What one has its card do, the other checks and counts.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use pagewire_ethdev::{PacketFlags, Port};
use pagewire_models::ixgbe::Offload;
use pagewire_tests::counters::{Counters, agree, counted, eventually, of_driver, of_port, of_protocols};
use pagewire_tests::tcp::{Connection, MSS, by_card};
use pagewire_tests::{GOOD, Guest, GuestOptions, Link, Nic, Peer, programs};

const PATIENCE: Duration = Duration::from_secs(30);
/// Priority 3, VLAN 5.
const TCI: u16 = 0x6005;
/// The VLAN's bits of a tag.
const VLAN: u16 = 0xfff;
/// The address of Linux's port.
const LINUX: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0];
/// What goes through a connection, each way.
const BYTES: usize = (1 << 20) + 1;
/// Frames of each kind: fewer than fit in any ring on their way.
const FRAMES: u64 = 40;

#[test]
fn what_our_driver_has_its_card_do_linux_accepts_and_the_other_way_round() -> Result<()> {
    let nics = vec![Nic::ixgbe(false, Link::Peer)];
    let mut guest = programs::boot(GuestOptions { nics, hugepages: 0, ..GuestOptions::default() })?;
    let mut peer = guest.peers.remove(0);
    set_up(&mut guest, &peer)?;
    // Once Linux believes what its card says of checksums, once it looks itself.
    for by_card in [true, false] {
        checksums(&mut guest, &mut peer, by_card)?;
    }
    tags(&mut guest, &mut peer)?;
    for vlan in [None, Some(TCI)] {
        segments(&mut guest, &mut peer, vlan)?;
    }
    eventually(|| statistics_agree(&mut guest, &mut peer))?;
    guest.check_models()?;
    drop(guest);
    peer.finish()
}

/// Linux's port has two addresses, without a tag and with one; it asks nobody for ours, and answers everything.
fn set_up(guest: &mut Guest, peer: &Peer) -> Result<()> {
    // Debian's default drops what waits for long.
    guest.check("echo pfifo_fast >/proc/sys/net/core/default_qdisc")?;
    guest.load(&["libphy", "mdio", "mdio_devres", "xfrm_algo", "ixgbe", "garp", "mrp", "8021q"])?;
    let mac = peer.port.info().mac;
    guest.check(&format!(
        "cd /proc/sys/net/ipv4 && echo 0 >icmp_ratelimit && echo 9999 >icmp_msgs_per_sec && echo 9999 >icmp_msgs_burst &&
         ip link set eth0 up && ip addr add 10.0.0.2/24 dev eth0 && arp -s 10.0.0.1 {mac} &&
         vconfig add eth0 5 && vconfig set_egress_map eth0.5 0 {} &&
         ip link set eth0.5 up && ip addr add 10.0.5.2/24 dev eth0.5 && arp -i eth0.5 -s 10.0.5.1 {mac}",
        TCI >> 13
    ))?;
    // Linux counts segments as they come, not as it would put them together.
    ethtool(guest, "-K eth0 gro off lro off")?;
    // With a carrier alone it may still throw away what it has to send.
    guest.until("[ $(cat /sys/class/net/eth0/operstate) = up ]", PATIENCE)
}

fn ethtool(guest: &mut Guest, arguments: &str) -> Result<String> {
    let program = programs::command(Path::new(programs::IN_GUEST), "sbin/ethtool");
    guest.check(&format!("{program} {arguments}"))
}

/// All that Linux counts: its driver, its protocols, and the VLAN's interface.
fn counters(guest: &mut Guest) -> Result<Counters> {
    let mut counters = of_driver(&ethtool(guest, "-S eth0")?);
    counters.extend(of_protocols(&guest.check("cat /proc/net/snmp /proc/net/netstat")?));
    let tagged = guest.check("cat /sys/class/net/eth0.5/statistics/rx_packets")?;
    counters.insert("vlan.rx_packets".into(), tagged.trim().parse()?);
    // `OutSegs` is without those that were sent again, which a busy machine may make Linux do.
    counters.insert("Tcp.SentSegs".into(), counters["Tcp.OutSegs"] + counters["Tcp.RetransSegs"]);
    Ok(counters)
}

/// A frame to one of Linux's addresses, from ours beside it, to a port where nobody listens.
fn frame(peer: &Peer, l4: PacketFlags, net: u8, number: u64) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    let ip =
        PacketBuilder::ethernet2(peer.port.info().mac.0, LINUX).ipv4([10, 0, net, 1], [10, 0, net, 2], 64);
    // Odd and even lengths, from a short frame to a long one.
    let payload = vec![number as u8; 1 + 37 * number as usize];
    match l4 {
        PacketFlags::TX_UDP_CSUM => ip.udp(9, 9).write(&mut frame, &payload)?,
        _ => ip.tcp(9, 9, 0, 0).write(&mut frame, &payload)?,
    }
    Ok(frame)
}

/// Right checksums that our card makes, and wrong ones that it leaves alone: Linux counts each as what it is. Linux's answers, whose
/// checksums its card makes, are right for ours.
fn checksums(guest: &mut Guest, peer: &mut Peer, linux_by_card: bool) -> Result<()> {
    ethtool(guest, &format!("-K eth0 rx {}", if linux_by_card { "on" } else { "off" }))?;
    let before = counters(guest)?;
    let made = peer.model.control.offloads(Offload::Checksum);
    for number in 0..FRAMES {
        for l4 in [PacketFlags::TX_UDP_CSUM, PacketFlags::TX_TCP_CSUM] {
            let right = frame(peer, l4, 0, number)?;
            let packet = by_card(peer, &mut right.clone(), l4, None)?;
            peer.send(packet)?;
            let mut wrong = right;
            *wrong.last_mut().expect("a frame is not empty") ^= 1;
            let packet = peer.packet(&wrong)?;
            peer.send(packet)?;
        }
        let mut wrong = frame(peer, PacketFlags::TX_UDP_CSUM, 0, number)?;
        wrong[14 + 8] -= 1; // Time to live.
        let packet = peer.packet(&wrong)?;
        peer.send(packet)?;
    }
    counted(
        || counters(guest),
        &before,
        &[
            ("Udp.NoPorts", FRAMES),
            ("Udp.InCsumErrors", FRAMES),
            ("Tcp.OutRsts", FRAMES),
            ("Tcp.InCsumErrors", FRAMES),
            ("IpExt.InCsumErrors", FRAMES),
            // For all that, Linux does not take an 82599's word for UDP: of a datagram without checksum it says the same.
            ("rx_csum_offload_errors", if linux_by_card { 2 * FRAMES } else { 0 }),
        ],
    )?;
    assert_eq!(peer.model.control.offloads(Offload::Checksum) - made, 2 * FRAMES);
    // Each right one has an answer. Nobody checks what is within ICMP.
    let answers = (0..2 * FRAMES).map(|_| Ok(peer.receive()?.flags())).collect::<Result<Vec<_>>>()?;
    let of = |flags| answers.iter().filter(|found| **found == flags).count() as u64;
    assert_eq!((of(GOOD), of(PacketFlags::RX_IP_CSUM_GOOD)), (FRAMES, FRAMES), "{answers:?}");
    Ok(())
}

/// Tags that our card puts in, and Linux's takes out, lead to the VLAN's interface. Its answers' tags are put in by Linux's card, and taken
/// out by ours.
fn tags(guest: &mut Guest, peer: &mut Peer) -> Result<()> {
    let before = counters(guest)?;
    let cards = [peer.model.control.clone(), guest.models()[0].control.clone()];
    let offloads = || {
        cards
            .each_ref()
            .map(|card| [Offload::TagInsertion, Offload::TagStripping].map(|which| card.offloads(which)))
    };
    let expected = offloads().map(|card| card.map(|count| count + FRAMES));
    for number in 0..FRAMES {
        let mut frame = frame(peer, PacketFlags::TX_UDP_CSUM, 5, number)?;
        let packet = by_card(peer, &mut frame, PacketFlags::TX_UDP_CSUM, Some(TCI))?;
        peer.send(packet)?;
    }
    counted(
        || counters(guest),
        &before,
        &[("vlan.rx_packets", FRAMES), ("Udp.NoPorts", FRAMES), ("Udp.InCsumErrors", 0)],
    )?;
    for _ in 0..FRAMES {
        let answer = peer.receive()?;
        let flags = PacketFlags::RX_IP_CSUM_GOOD | PacketFlags::RX_VLAN_STRIPPED;
        // ICMP has a priority of its own.
        assert_eq!((answer.flags(), answer.vlan_tci() & VLAN), (flags, TCI & VLAN));
    }
    assert_eq!(offloads(), expected);
    Ok(())
}

/// A connection of Linux's, which sends us what it then gets back: each end's card cuts what it sends, and tags it.
fn segments(guest: &mut Guest, peer: &mut Peer, vlan: Option<u16>) -> Result<()> {
    let (before, stats) = (counters(guest)?, peer.port.stats());
    let net = if vlan.is_some() { 5 } else { 0 };
    let cards = [peer.model.control.clone(), guest.models()[0].control.clone()];
    let offloads = |which| cards.each_ref().map(|card| card.offloads(which));
    let cut = offloads(Offload::Segmentation);
    let command =
        format!("head -c {BYTES} /dev/urandom >/tmp/in && exec nc 10.0.{net}.1 7 </tmp/in >/tmp/out");
    let job = guest.start(&command)?;
    let mut connection = Connection::accept(peer, 7, vlan)?;
    let (bytes, lengths) = connection.read(peer, BYTES)?;
    let to_cut = connection.write(peer, &bytes)?;
    connection.close(peer)?;
    let output = guest.wait(&job, PATIENCE)?;
    ensure!(output.status == 0, "nc: {output}");
    guest.check("cmp /tmp/in /tmp/out && rm /tmp/in /tmp/out")?;

    // Linux ends a packet before its last byte here and there; all else is full.
    let full = lengths.iter().filter(|length| **length == MSS).count();
    ensure!(lengths.iter().max() == Some(&MSS) && 2 * full > lengths.len(), "segments of {lengths:?} bytes");
    let now = offloads(Offload::Segmentation);
    assert_eq!(now[0] - cut[0], to_cut);
    ensure!(now[1] > cut[1] + 10, "Linux's card has cut only {} packets", now[1] - cut[1]);
    let (then, stats) = (stats, peer.port.stats());
    let (sent, received) = (stats.tx_packets - then.tx_packets, stats.rx_packets - then.rx_packets);
    let of = now[1] - cut[1];
    println!(
        "VLAN {vlan:?}: we sent {sent} segments, cut from {to_cut} packets; {received} came, cut from {of}"
    );
    let tagged = |count| if vlan.is_some() { count } else { 0 };
    counted(
        || counters(guest),
        &before,
        &[
            ("Tcp.InSegs", sent),
            ("Tcp.InErrs", 0),
            ("Tcp.SentSegs", received),
            ("rx_packets", sent),
            ("tx_packets", received),
            ("vlan.rx_packets", tagged(sent)),
        ],
    )
}

/// What both drivers have read from their cards, and counted themselves, is what both cards have put on the wire and taken from it.
fn statistics_agree(guest: &mut Guest, peer: &mut Peer) -> Result<()> {
    let driver = of_driver(&ethtool(guest, "-S eth0")?);
    let (ours, linux) = (&peer.model.counts, &guest.models()[0].counts);
    agree(&driver, linux).context("Linux")?;
    agree(&of_port(&mut peer.port), ours).context("we")?;
    for (sent, received) in [
        (&ours.sent, &linux.received),
        (&ours.sent_bytes, &linux.received_bytes),
        (&linux.sent, &ours.received),
        (&linux.sent_bytes, &ours.received_bytes),
    ] {
        let (sent, received) = (sent.load(Relaxed), received.load(Relaxed));
        ensure!(sent == received, "of {sent} that one card has sent the other has {received}");
    }
    let stats = peer.port.stats();
    ensure!(stats.rx_missed + stats.rx_errors + stats.tx_errors == 0, "{stats:?}");
    Ok(())
}
