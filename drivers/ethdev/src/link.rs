use std::fmt;

/// State of a port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No carrier.
    Down,
    /// Carrier.
    Up {
        /// Megabits per second.
        mbps: u32,
        /// Both directions at once.
        full_duplex: bool,
    },
}

impl Link {
    /// Whether there is a carrier.
    pub fn is_up(self) -> bool {
        matches!(self, Link::Up { .. })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::Down => write!(f, "down"),
            Link::Up { mbps, full_duplex } => {
                write!(f, "up, {mbps} Mb/s {} duplex", if *full_duplex { "full" } else { "half" })
            }
        }
    }
}
