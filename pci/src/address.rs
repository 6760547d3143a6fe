//! Where a function sits on the bus.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A PCI function's place: domain, bus, device and function, written `0000:01:00.0`.
///
/// Addresses order as they are written, so a sorted list reads like `lspci`.
///
/// A function behind a socket sits on no bus. It has an address all the same, one that no machine has and that a program
/// gives once: it is written `vfio-user:0` and cannot be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The PCI domain ("segment" in ACPI); almost always 0.
    pub domain: u32,
    /// The bus.
    pub bus: u8,
    /// The device on the bus, 0–31.
    pub device: u8,
    /// The function of the device, 0–7.
    pub function: u8,
}

/// From here on domains are ours: the kernel's are `int`s.
const VFIO_USER: u32 = 1 << 31;

impl Address {
    /// The address of the function behind a socket that was opened as number `number`.
    pub(crate) fn vfio_user(number: u32) -> Address {
        Address { domain: number | VFIO_USER, bus: 0, device: 0, function: 0 }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.domain >= VFIO_USER {
            return f.pad(&format!("vfio-user:{}", self.domain - VFIO_USER));
        }
        // `pad` so that a width in the caller's format string is honoured.
        f.pad(&format!("{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function))
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `0000:01:00.0`, or `01:00.0` in domain 0.
    fn from_str(text: &str) -> Result<Address, Error> {
        parse(text).ok_or_else(|| Error::BadAddress { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Address> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    Some(Address {
        // The kernel writes at least four digits, and more where a host bridge (VMD) has a domain above 0xffff.
        domain: hex(domain, 4..=8).filter(|&domain| domain < VFIO_USER)?,
        bus: hex(bus, 1..=2)?.try_into().ok()?,
        device: hex(device, 1..=2)?.try_into().ok().filter(|&device: &u8| device < 32)?,
        function: hex(function, 1..=1)?.try_into().ok().filter(|&function: &u8| function < 8)?,
    })
}

/// Digits only: `from_str_radix` alone would let a sign through.
fn hex(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let plain = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(domain: u32, bus: u8, device: u8, function: u8) -> Address {
        Address { domain, bus, device, function }
    }

    #[test]
    fn reads_both_forms_and_writes_the_long_one() {
        for (text, expected, written) in [
            ("0000:01:00.0", address(0, 1, 0, 0), "0000:01:00.0"),
            ("01:00.0", address(0, 1, 0, 0), "0000:01:00.0"),
            ("0001:Af:1f.7", address(1, 0xaf, 0x1f, 7), "0001:af:1f.7"),
            ("10000:e1:00.0", address(0x10000, 0xe1, 0, 0), "10000:e1:00.0"),
        ] {
            let parsed: Address = text.parse().unwrap();
            assert_eq!(parsed, expected, "{text}");
            assert_eq!(parsed.to_string(), written);
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            "eth0",
            "01:00",
            "01:00.8",
            "01:20.0",
            "100:00.0",
            ":00.0",
            "+1:00.0",
            "0000:01:00.0 ",
            "0:0000:01:00.0",
            "80000000:00:00.0",
            "vfio-user:0",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(
                error.to_string().contains("0000:01:00.0"),
                "the error for `{text}` shows an example: {error}"
            );
        }
    }

    #[test]
    fn says_which_socket() {
        assert_eq!(Address::vfio_user(0).to_string(), "vfio-user:0");
        assert_eq!(format!("{:>14}", Address::vfio_user(12)), "  vfio-user:12");
    }

    #[test]
    fn orders_like_the_bus() {
        let mut list = [address(1, 0, 0, 0), address(0, 2, 0, 0), address(0, 1, 0, 1), address(0, 1, 0, 0)];
        list.sort();
        assert_eq!(
            list.map(|a| a.to_string()),
            ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0001:00:00.0"]
        );
    }
}
