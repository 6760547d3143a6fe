use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// A locally administered address that nobody else is likely to have.
    pub fn random_local() -> MacAddr {
        // Each is keyed anew from the system's random numbers.
        let [.., a, b, c, d, e, f] = RandomState::new().build_hasher().finish().to_be_bytes();
        MacAddr([a & 0xfc | 0x02, b, c, d, e, f])
    }

    /// Whether it is a group address (broadcast included).
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether a port can have it for its own: not zero, not a group address.
    pub fn is_valid_unicast(self) -> bool {
        self.0 != [0; 6] && !self.is_multicast()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ethernet address; expected six hexadecimal bytes such as 02:00:00:00:00:01")]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<MacAddr, ParseMacError> {
        let error = || ParseMacError(text.into());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| matches!(part.len(), 1 | 2)).ok_or_else(error)?;
            // `from_str_radix` would take a sign.
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(MacAddr(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_addresses_are_local_and_differ() {
        let (a, b) = (MacAddr::random_local(), MacAddr::random_local());
        assert!(a.is_valid_unicast() && a.0[0] & 2 != 0 && a != b);
    }

    #[test]
    fn text_round_trips_and_garbage_is_refused() {
        let mac: MacAddr = "52:54:0:12:34:fF".parse().unwrap();
        assert_eq!(mac, MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0xff]));
        assert_eq!(mac.to_string(), "52:54:00:12:34:ff");
        for bad in
            ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:", "1:2:3:4:5:+6", "1:2:3:4:5:123", "gg:0:0:0:0:0"]
        {
            assert!(
                bad.parse::<MacAddr>().unwrap_err().to_string().contains("six hexadecimal bytes"),
                "{bad}"
            );
        }
    }
}
