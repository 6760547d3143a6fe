//! Which frames a port lets in.

use anyhow::{Result, ensure};
use pagewire_ethdev::{Link, MacAddr, Port};

use crate::Case;
use crate::pair::{Options, Pair, frame};

pub(crate) const CASES: &[Case] = &[
    ("filters-let-in-what-is-asked-for", let_in),
    ("filters-survive-a-restart", survive),
    ("bad-addresses-are-refused", refused),
    ("the-link-is-up", |cards| {
        let mut pair = Pair::new(cards, &Options::default())?;
        let link = pair.a.port.link();
        ensure!(link == Link::Up { mbps: 1000, full_duplex: true }, "the link is {link}");
        pair.stop()
    }),
];

const STRANGER: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x77]);
const OTHER: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x78]);
const GROUP: MacAddr = MacAddr([0x01, 0x00, 0x5e, 0x01, 0x02, 0x03]);
const OTHER_GROUP: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 0x99]);

fn exact() -> Options {
    Options { promiscuous: false, ..Options::default() }
}

/// Whether B lets in frames to each of these, in order.
fn check(pair: &mut Pair, when: &str, expected: &[(MacAddr, bool)]) -> Result<()> {
    for &(to, expected) in expected {
        let sent = frame(to, pair.a.mac(), 64, 7);
        let passed = pair.passes(&sent)?;
        ensure!(
            passed == expected,
            "{when}: a frame to {to} {}",
            if passed { "came in" } else { "was dropped" }
        );
    }
    Ok(())
}

fn let_in(cards: &crate::Cards) -> Result<()> {
    let mut pair = Pair::with(cards, &Options::default(), &exact())?;
    let own = pair.b.mac();
    let strict = [(own, true), (MacAddr::BROADCAST, true), (STRANGER, false), (OTHER, false), (GROUP, false)];
    check(&mut pair, "after start", &strict)?;

    pair.b.port.set_extra_unicast(&[STRANGER])?;
    check(&mut pair, "with an extra address", &[(own, true), (STRANGER, true), (OTHER, false)])?;
    // As many as there are: each counts, the last too.
    let extra: Vec<_> = (0..14).map(|last| MacAddr([2, 0, 0, 0, 9, last])).collect();
    pair.b.port.set_extra_unicast(&extra)?;
    check(&mut pair, "with 14 extra addresses", &[(extra[0], true), (extra[13], true), (STRANGER, false)])?;
    pair.b.port.set_extra_unicast(&[])?;
    check(&mut pair, "without extra addresses", &strict)?;

    pair.b.port.set_mac(STRANGER)?;
    ensure!(pair.b.port.info().mac == STRANGER, "info() has the old address");
    check(&mut pair, "with another address", &[(STRANGER, true), (own, false), (MacAddr::BROADCAST, true)])?;
    pair.b.port.set_mac(own)?;
    check(&mut pair, "with the old address again", &strict)?;

    pair.b.port.set_multicast(&[GROUP])?;
    check(&mut pair, "in a group", &[(GROUP, true), (OTHER_GROUP, false), (own, true), (STRANGER, false)])?;
    pair.b.port.set_multicast(&[OTHER_GROUP])?;
    check(&mut pair, "in another group", &[(GROUP, false), (OTHER_GROUP, true)])?;
    pair.b.port.set_all_multicast(true)?;
    check(&mut pair, "in all groups", &[(GROUP, true), (OTHER_GROUP, true), (STRANGER, false)])?;
    pair.b.port.set_all_multicast(false)?;
    check(&mut pair, "no longer in all groups", &[(GROUP, false), (OTHER_GROUP, true)])?;
    pair.b.port.set_multicast(&[])?;

    pair.b.port.set_promiscuous(true)?;
    check(&mut pair, "promiscuous", &[(STRANGER, true), (GROUP, true), (own, true)])?;
    pair.b.port.set_promiscuous(false)?;
    check(&mut pair, "no longer promiscuous", &strict)?;
    pair.stop()
}

fn survive(cards: &crate::Cards) -> Result<()> {
    let mut pair = Pair::with(cards, &Options::default(), &exact())?;
    let own = pair.b.mac();
    pair.b.port.set_mac(STRANGER)?;
    pair.b.port.set_extra_unicast(&[OTHER])?;
    pair.b.port.set_multicast(&[GROUP])?;
    let port = pair.b.stop()?;
    let b = crate::pair::Side::start(&pair.space, port, &exact())?;
    let mut pair = Pair { a: pair.a, b, space: pair.space };
    let expected = [(STRANGER, true), (OTHER, true), (GROUP, true), (own, false), (OTHER_GROUP, false)];
    check(&mut pair, "after a restart", &expected)?;
    pair.stop()
}

fn refused(cards: &crate::Cards) -> Result<()> {
    let mut pair = Pair::new(cards, &Options::default())?;
    let port = &mut pair.a.port;
    let own = port.info().mac;
    let many: Vec<_> = (0..15).map(|last| MacAddr([2, 0, 0, 0, 9, last])).collect();
    let groups = vec![GROUP; 513];
    for (result, message) in [
        (port.set_mac(GROUP), "address 01:00:5e:01:02:03 is not possible; the port has unicast addresses"),
        (port.set_mac(MacAddr([0; 6])), "address 00:00:00:00:00:00 is not possible"),
        (port.set_extra_unicast(&[MacAddr::BROADCAST]), "address ff:ff:ff:ff:ff:ff is not possible"),
        (port.set_extra_unicast(&many), "number of extra addresses 15 is not possible; the port has 14"),
        (port.set_multicast(&[own]), "multicast address 52:54:00:00:00:00 is not possible"),
        (port.set_multicast(&groups), "number of multicast addresses 513 is not possible; the port has 512"),
    ] {
        let error = result.err().map_or("no error".into(), |error| error.to_string());
        ensure!(error.contains(message), "the error is {error:?}, expected {message:?}");
    }
    ensure!(port.info().mac == own, "a refused address is in info()");
    pair.stop()
}
