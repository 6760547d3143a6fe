//! Which packets are written: of one way, that match an expression, one of so many.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use pagewire_models::wire::Direction;
use pktbaffle::ast::{Expr, Primitive, Proto};
use pktbaffle::{LinkType, bpf, codegen};

/// What the names of producers end in that show what is sent. All others show what is received.
pub(crate) const SEND: &str = "-send";

/// The longest expression: the parser calls itself for each parenthesis.
const LONGEST: usize = 1024;

/// What is wanted of what comes.
#[derive(Args, Clone, Debug)]
pub(super) struct Selection {
    /// Write only packets that match this expression, in the language of tcpdump: see docs/capture.md
    #[arg(long, value_name = "EXPR")]
    pub(super) filter: Option<Filter>,

    /// Write one of so many packets
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) sample: u64,

    /// With --from: write only what went this way, of what the process hands over
    #[arg(long, value_enum, default_value_t = Way::Both, conflicts_with = "port")]
    pub(super) direction: Way,
}

/// Which packets of a port are meant.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Those that it receives
    Receive,
    /// Those that it sends
    Send,
    /// All of them
    Both,
}

impl Way {
    pub(crate) fn receives(self) -> bool {
        self != Way::Send
    }

    pub(crate) fn sends(self) -> bool {
        self != Way::Receive
    }

    /// Whether packets that went this way are meant.
    pub(super) fn has(self, direction: Direction) -> bool {
        match direction {
            Direction::In => self.receives(),
            Direction::Out => self.sends(),
        }
    }
}

/// Which way packets of a producer went.
pub(super) fn direction(producer: &str) -> Direction {
    if producer.ends_with(SEND) { Direction::Out } else { Direction::In }
}

/// A filter in the language of tcpdump, compiled to BPF.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    program: bpf::Program,
    pub(super) text: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        if text.len() > LONGEST {
            return Err(format!("an expression of more than {LONGEST} bytes"));
        }
        let program = pktbaffle::parse(text)
            .and_then(|expression| codegen::compile(&both_families(expression), LinkType::Ethernet))
            .map_err(|error| format!("{error}; expected something like 'udp and dst port 53'"))?;
        Ok(Filter { program, text: text.into() })
    }
}

/// As tcpdump has it, `udp` is of both IPv4 and IPv6; here of IPv4, unless ports follow.
fn both_families(expression: Expr) -> Expr {
    let each = |one: Box<Expr>| Box::new(both_families(*one));
    let number = match &expression {
        Expr::Primitive(Primitive::Proto(Proto::Tcp)) => 6,
        Expr::Primitive(Primitive::Proto(Proto::Udp)) => 17,
        Expr::Primitive(Primitive::Proto(Proto::Sctp)) => 132,
        _ => {
            return match expression {
                Expr::And(a, b) => Expr::And(each(a), each(b)),
                Expr::Or(a, b) => Expr::Or(each(a), each(b)),
                Expr::Not(a) => Expr::Not(each(a)),
                other => other,
            };
        }
    };
    let six = Expr::Primitive(Primitive::Proto(Proto::Ip6Proto(number)));
    Expr::Or(Box::new(expression), Box::new(six))
}

impl Filter {
    pub(super) fn matches(&self, frame: &[u8]) -> bool {
        self.program.matches(frame)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// Frames with known headers, and a name for each.
    fn frames() -> Vec<(&'static str, Vec<u8>)> {
        let ethernet = || PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let v4 = |from, to| ethernet().ipv4(from, to, 64);
        let done = |builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>, length: usize| {
            let mut frame = Vec::new();
            builder.write(&mut frame, &vec![0; length]).expect("it fits");
            frame
        };
        let dns = done(v4([10, 0, 0, 1], [10, 0, 1, 9]).udp(4000, 53), 30);
        let big = done(v4([10, 9, 0, 1], [192, 168, 0, 1]).udp(53, 6000), 1000);
        let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let six = done(ethernet().ipv6(v6, [0xfe; 16], 64).udp(1, 53), 10);
        let tagged = done(
            ethernet().single_vlan(7.try_into().expect("12 bits")).ipv4([10, 0, 0, 1], [1; 4], 64).udp(5, 6),
            10,
        );
        let mut web = Vec::new();
        v4([10, 0, 0, 2], [10, 0, 1, 9]).tcp(5000, 443, 1, 1).syn().write(&mut web, &[]).expect("it fits");
        let mut arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        arp.resize(60, 0);
        vec![("dns", dns), ("big", big), ("six", six), ("tagged", tagged), ("web", web), ("arp", arp)]
    }

    /// What tcpdump's language means, from its manual.
    #[test]
    fn expressions_match_what_they_say() {
        let frames = frames();
        for (expression, expected) in [
            ("udp", "dns big six"),
            ("ip", "dns big web"),
            ("ip6", "six"),
            ("arp", "arp"),
            ("tcp", "web"),
            ("not ip", "six tagged arp"),
            ("port 53", "dns big six"),
            ("dst port 53", "dns six"),
            ("udp src port 53", "big"),
            ("tcp port 443", "web"),
            ("portrange 5000-6000", "big web"),
            ("host 10.0.0.1", "dns"),
            ("src net 10.0.0.0/16", "dns web"),
            ("dst host 10.0.1.9 and not tcp", "dns"),
            ("net 10.9.0.0/16 or ip6", "big six"),
            ("host 2001:db8::1", "six"),
            ("(tcp or udp) and greater 500", "big"),
            ("less 60", "tagged web arp"),
            ("ether src 02:00:00:00:00:01 and ip", "dns big web"),
            ("ether dst 02:00:00:00:00:02 and tcp", "web"),
            ("ether broadcast", "arp"),
            ("ether multicast", "arp"),
            ("ip6 and udp", "six"),
            ("not udp", "tagged web arp"),
            ("ether[0] & 1 != 0", "arp"),
            ("vlan", "tagged"),
            ("vlan 7 and udp", "tagged"),
            ("vlan 8", ""),
            ("ip[8] = 64", "dns big web"),
            ("tcp[13] & 2 != 0", "web"),
            ("tcp[tcpflags] & tcp-syn != 0", "web"),
            ("arp or tcp and port 443", "web arp"),
        ] {
            let filter: Filter = expression.parse().unwrap_or_else(|error| panic!("{expression}: {error}"));
            let found: Vec<_> =
                frames.iter().filter(|(_, frame)| filter.matches(frame)).map(|(name, _)| *name).collect();
            assert_eq!(found.join(" "), expected, "{expression}");
        }
    }

    #[test]
    fn frames_of_any_length_and_content_are_taken_and_bad_expressions_are_refused() {
        let filters: Vec<Filter> =
            ["tcp[100] = 1", "ip[65535] = 0", "udp port 1", "vlan and ip6", "ip[6:2] & 0x1fff = 1"]
                .iter()
                .map(|text| text.parse().expect("an expression"))
                .collect();
        for (_, frame) in frames() {
            for filter in &filters {
                let mut cut = (0..=frame.len().min(80)).filter(|end| filter.matches(&frame[..*end]));
                assert!(cut.next().is_none_or(|end| end > 14), "of a frame without a header");
                (0..frame.len().min(80)).for_each(|at| {
                    let mut broken = frame.clone();
                    broken[at] = 0xff;
                    filter.matches(&broken);
                });
            }
        }
        for bad in ["", "udp and", "port", "port 99999", "frob", "udp )", "\u{e9}", "inbound"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad:?} is taken");
        }
        assert!("udp ".repeat(300).parse::<Filter>().unwrap_err().contains("more than 1024"));
        assert!("(".repeat(1024).parse::<Filter>().is_err(), "and the stack is left as it is");
        assert!("not ".repeat(250).parse::<Filter>().is_err());
    }
}
