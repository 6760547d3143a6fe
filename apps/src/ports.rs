//! From the port names of the command line to open ports.

use anyhow::{Context, Result, bail};
use pagewire_e1000::E1000;
use pagewire_ethdev::{AnyPort, Port};
use pagewire_pci::{Address, AddressSpace, enumerate};
use pagewire_pool::PoolConfig;
use pagewire_virtual::{Null, Ring};

/// What `--port` accepts, for help texts and errors.
pub(crate) const FORMS: &str = "a PCI address (0000:01:00.0 or 01:00.0), null:, null:SIZE or ring:NAME";

/// Largest packet of a null port: what a half page holds after the headroom.
const LARGEST_NULL: u16 = 2048 - PoolConfig::HEADROOM;

/// A port as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortSpec {
    /// A function bound to vfio-pci.
    Pci(Address),
    /// `null:` or `null:SIZE`, with the bytes of its packets.
    Null(u16),
    /// `ring:NAME`.
    Ring(String),
}

impl std::str::FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<PortSpec, String> {
        if let Some(size) = text.strip_prefix("null:") {
            return match size {
                "" => Ok(PortSpec::Null(Null::PACKET_SIZE)),
                size => match size.parse() {
                    Ok(size @ 14..=LARGEST_NULL) => Ok(PortSpec::Null(size)),
                    _ => Err(format!("null:{size}: the size of its packets is 14 to {LARGEST_NULL} bytes")),
                },
            };
        }
        match text.strip_prefix("ring:") {
            Some("") => Err("ring: wants a name, such as ring:a; two ports of one name are joined".into()),
            Some(name) => Ok(PortSpec::Ring(name.into())),
            None => text.parse().map(PortSpec::Pci).map_err(|_| format!("expected {FORMS}")),
        }
    }
}

impl PortSpec {
    /// Whether the port is a device that needs an IOMMU.
    pub(crate) fn is_hardware(&self) -> bool {
        matches!(self, PortSpec::Pci(_))
    }
}

/// Open every port, in order, with one address space for those that are hardware.
pub(crate) fn open(specs: &[PortSpec], space: &AddressSpace) -> Result<Vec<AnyPort>> {
    for (i, spec) in specs.iter().enumerate() {
        if spec.is_hardware() && specs[..i].contains(spec) {
            let first = specs.iter().position(|first| first == spec).unwrap_or(0);
            bail!("port {i} is port {first} once more");
        }
        let ends = specs.iter().filter(|other| *other == spec).count();
        if let PortSpec::Ring(name) = spec
            && ends != 2
        {
            bail!("ring:{name} is named {ends} times; a ring has two ends, name it twice");
        }
    }
    let mut nulls = (0..=u8::MAX).cycle();
    specs
        .iter()
        .map(|spec| match spec {
            PortSpec::Pci(address) => open_pci(*address, space).with_context(|| format!("port {address}")),
            PortSpec::Null(size) => Ok(Null::new(nulls.next().unwrap_or(0), *size).into_any()),
            PortSpec::Ring(name) => Ok(Ring::new(name).into_any()),
        })
        .collect()
}

/// Find the driver for a function by its identifiers, before it is touched.
fn open_pci(address: Address, space: &AddressSpace) -> Result<AnyPort> {
    if let Some(info) = enumerate()?.into_iter().find(|function| function.address == address) {
        let ids = (info.vendor_id, info.device_id);
        if !pagewire_e1000::DEVICES.iter().any(|known| (known.vendor, known.device) == ids) {
            bail!(
                "no driver for {:04x}:{:04x}; pagewire drives {}",
                ids.0,
                ids.1,
                pagewire_e1000::DEVICES
                    .iter()
                    .map(|known| format!("{:04x}:{:04x} ({})", known.vendor, known.device, known.name))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
    }
    Ok(E1000::open(space, address)?.into_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_parsed_and_bad_ones_say_what_is_expected() {
        assert_eq!("null:".parse(), Ok(PortSpec::Null(64)));
        assert_eq!("null:1500".parse(), Ok(PortSpec::Null(1500)));
        assert_eq!("ring:a".parse(), Ok(PortSpec::Ring("a".into())));
        assert_eq!("01:00.0".parse::<PortSpec>(), Ok(PortSpec::Pci("0000:01:00.0".parse().unwrap())));
        for bad in ["", "null", "null:13", "null:x", "ring:", "eth0", "01:00", "0000:01:00.8"] {
            assert!(bad.parse::<PortSpec>().is_err(), "{bad}");
        }
        assert!("eth0".parse::<PortSpec>().unwrap_err().contains("PCI address"));
    }
}
