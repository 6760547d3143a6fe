//! VLAN tags that the card inserts and takes out.

use anyhow::{Result, ensure};
use pagewire_ethdev::{PacketFlags, RxOffloads, TxOffloads};

use crate::Case;
use crate::pair::{Options, Pair, bytes, frame, same};

/// Identifier 5, priority 5, drop eligible: all 16 bits count.
const TCI: u16 = 0xb005;

pub(crate) const CASES: &[Case] = &[
    ("vlan-tags-are-inserted", |cards| inserted(Pair::with(cards, &inserting(), &Options::default())?)),
    ("vlan-tags-are-stripped", |cards| stripped(Pair::with(cards, &Options::default(), &stripping())?)),
    ("vlan-tags-are-inserted-and-stripped", |cards| both(Pair::with(cards, &inserting(), &stripping())?)),
    ("vlan-tags-are-left-alone", |cards| left_alone(Pair::new(cards, &Options::default())?)),
];

fn inserting() -> Options {
    Options { tx_offloads: TxOffloads::VLAN_INSERT | TxOffloads::MULTI_SEGS, ..Options::default() }
}

fn stripping() -> Options {
    Options { rx_offloads: RxOffloads::VLAN_STRIP, ..Options::default() }
}

/// A frame with its tag in place.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &TCI.to_be_bytes(), &frame[12..]].concat()
}

fn plain(pair: &Pair, len: usize) -> Vec<u8> {
    frame(pair.b.mac(), pair.a.mac(), len, len as u32)
}

fn send_inserting(pair: &mut Pair, frame: &[u8], most: usize) -> Result<u64> {
    let mut packet = pair.a.cut(frame, most)?;
    packet.set_flags(PacketFlags::TX_VLAN_INSERT);
    packet.set_vlan_tci(TCI);
    pair.a.try_send(packet)
}

fn inserted(mut pair: Pair) -> Result<()> {
    for (len, most) in [(60, 60), (61, 20), (1514, 1514), (1514, 100)] {
        let frame = plain(&pair, len);
        ensure!(send_inserting(&mut pair, &frame, most)? == 0, "{len} bytes were refused");
        pair.b.expect(&tagged(&frame))?;
    }
    // One frame is tagged on request, the next not.
    let frame = plain(&pair, 100);
    pair.a.send_frame(&frame)?;
    pair.b.expect(&frame)?;
    // The tag counts: with it this frame is longer than the link takes.
    let long = plain(&pair, 1515);
    ensure!(send_inserting(&mut pair, &long, 1515)? == 1, "1515 bytes and a tag were sent");
    pair.stop()
}

fn stripped(mut pair: Pair) -> Result<()> {
    for len in [60, 61, 1514] {
        let frame = plain(&pair, len);
        pair.a.send_frame(&tagged(&frame))?;
        let packet = pair.b.receive()?;
        same(&bytes(&packet)?, &frame)?;
        ensure!(packet.flags() == PacketFlags::RX_VLAN_STRIPPED, "{:?}", packet.flags());
        ensure!(packet.vlan_tci() == TCI, "tag {:#06x}, expected {TCI:#06x}", packet.vlan_tci());
        pair.a.send_frame(&frame)?;
        let flags = pair.b.expect(&frame)?;
        ensure!(flags.is_empty(), "a frame without a tag has flags {flags:?}");
    }
    pair.stop()
}

fn both(mut pair: Pair) -> Result<()> {
    let frame = plain(&pair, 200);
    ensure!(send_inserting(&mut pair, &frame, 200)? == 0, "refused");
    let packet = pair.b.receive()?;
    same(&bytes(&packet)?, &frame)?;
    ensure!(packet.flags() == PacketFlags::RX_VLAN_STRIPPED && packet.vlan_tci() == TCI, "{packet:?}");
    drop(packet);
    pair.stop()
}

fn left_alone(mut pair: Pair) -> Result<()> {
    let frame = tagged(&plain(&pair, 1514));
    pair.a.send_frame(&frame)?;
    let flags = pair.b.expect(&frame)?;
    ensure!(flags.is_empty(), "{flags:?}");
    ensure!(send_inserting(&mut pair, &plain_frame(), 100)? == 1, "a tag was inserted without the offload");
    pair.stop()
}

fn plain_frame() -> Vec<u8> {
    frame(pagewire_ethdev::MacAddr::BROADCAST, pagewire_ethdev::MacAddr([2; 6]), 100, 0)
}
