use std::net::IpAddr;

use crate::config::PortInfo;
use crate::error::Error;

/// Packets that go to a queue of their own whatever RSS says, or nowhere: all that have what is given here. What is not given is not
/// looked at. A fragment has no ports and no protocol that is looked at.
///
/// Rules are for packets of IP: without addresses for both versions, or for IPv4 alone where the port's [`FlowLimits::ipv6`] says so (the
/// 82599). Everything else RSS sees to.
///
/// Of several rules that a packet satisfies the one of the highest priority counts; of several of that priority the device chooses
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRule {
    /// Source address.
    pub source: Option<IpAddr>,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// Protocol over IP.
    pub protocol: Option<FlowProtocol>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
    /// Below [`FlowLimits::priorities`]; the higher number wins.
    pub priority: u8,
    /// Where they go.
    pub action: FlowAction,
}

/// A protocol that rules can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// What becomes of a rule's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// They come to this receive queue.
    Queue(u16),
    /// The device drops them, and counts them apart.
    Drop,
}

/// What rules a port can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Most at a time; 0 if there are none.
    pub rules: usize,
    /// Number of priorities.
    pub priorities: u8,
    /// Whether they apply to IPv6 too: if not, an address of it is refused, and a rule without addresses leaves its packets alone.
    pub ipv6: bool,
    /// Whether they can drop.
    pub drop: bool,
}

impl FlowLimits {
    /// A port without rules.
    pub const NONE: FlowLimits = FlowLimits { rules: 0, priorities: 0, ipv6: false, drop: false };
}

impl FlowRule {
    /// All packets, of the lowest priority, to `action`: to be narrowed.
    pub fn new(action: FlowAction) -> FlowRule {
        FlowRule {
            source: None,
            destination: None,
            protocol: None,
            source_port: None,
            destination_port: None,
            priority: 0,
            action,
        }
    }

    /// Compare what rules ask for with what the port can do, started with so many receive queues.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] with the first thing that it cannot.
    pub fn check_all(rules: &[FlowRule], info: &PortInfo, queues: usize) -> Result<(), Error> {
        let can = info.capabilities.flow;
        if rules.len() > can.rules {
            return Err(info.unsupported("number of flow rules", rules.len(), can.rules));
        }
        rules.iter().try_for_each(|rule| rule.check(info, queues))
    }

    fn check(&self, info: &PortInfo, queues: usize) -> Result<(), Error> {
        let can = info.capabilities.flow;
        let addresses = [self.source, self.destination];
        if let Some(address) = addresses.into_iter().flatten().find(|address| address.is_ipv6() && !can.ipv6)
        {
            return Err(info.unsupported("flow rule for address", address, "rules for IPv4"));
        }
        if let [Some(source), Some(destination)] = addresses
            && source.is_ipv4() != destination.is_ipv4()
        {
            let asked = format!("from {source} to {destination}");
            return Err(info.unsupported("flow rule", asked, "rules for one version of IP at a time"));
        }
        if self.priority >= can.priorities {
            let limit = format!("priorities 0 to {}", can.priorities.saturating_sub(1));
            return Err(info.unsupported("flow rule of priority", self.priority, limit));
        }
        match self.action {
            FlowAction::Queue(queue) if usize::from(queue) >= queues => Err(info.unsupported(
                "flow rule to queue",
                queue,
                format!("{queues} receive queues as it was started"),
            )),
            FlowAction::Drop if !can.drop => {
                Err(info.unsupported("flow rule", "that drops", "rules that lead to queues"))
            }
            _ => Ok(()),
        }
    }
}
