//! From the port names of the command line to open ports.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use pagewire_e1000::I82574;
use pagewire_ethdev::nic::{Card, DeviceId, Nic};
use pagewire_ethdev::{AnyPort, Port};
use pagewire_hugepages::PageSize;
use pagewire_ixgbe::{Card82599, CardVf};
use pagewire_pci::vfio_user::transport::Broken;
use pagewire_pci::vfio_user::{VfioUserCause, VfioUserError};
use pagewire_pci::{Address, AddressSpace, AddressSpaceOptions, Backend, Function, enumerate};
use pagewire_pool::PoolConfig;
use pagewire_virtual::{Null, Pcap, PcapOptions, Ring};

/// How ports get at devices and memory.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Access {
    /// Memory pages of the pools: 2M, 1G or 4K. By default 2M; without a real device 4K has to do where there are none
    #[arg(long, value_name = "SIZE")]
    pub(crate) pages: Option<PageSize>,

    /// The kernel's interface to the devices
    #[arg(long, value_enum, default_value_t = Vfio::Auto)]
    vfio: Vfio,

    /// Accept devices without an IOMMU: they can then read and write all of the machine's memory
    #[arg(long)]
    pub(crate) unsafe_noiommu: bool,
}

impl Access {
    /// The kernel's interface that is asked for.
    pub(crate) fn backend(&self) -> Backend {
        self.vfio.into()
    }

    /// An address space for the ports, with rings in pages of a size.
    pub(crate) fn space(&self, page_size: PageSize) -> Result<AddressSpace> {
        Ok(AddressSpace::new(AddressSpaceOptions {
            backend: self.backend(),
            unsafe_noiommu: self.unsafe_noiommu,
            dma_page_size: page_size,
            ..Default::default()
        })?)
    }
}

/// `--vfio`.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Vfio {
    /// iommufd where there is one, else group and container
    Auto,
    /// Group and container
    Group,
    /// iommufd and device cdev
    Iommufd,
}

impl From<Vfio> for Backend {
    fn from(vfio: Vfio) -> Backend {
        match vfio {
            Vfio::Auto => Backend::Auto,
            Vfio::Group => Backend::Group,
            Vfio::Iommufd => Backend::Iommufd,
        }
    }
}

/// What `--port` accepts, for help texts and errors.
pub(crate) const FORMS: &str = "a PCI address (0000:01:00.0 or 01:00.0), vfio-user:SOCKET, null:, null:SIZE, pcap:IN[,OUT][,repeat=N] or ring:NAME";

/// A driver: the devices it knows, and how it takes one.
struct Driver {
    devices: &'static [DeviceId],
    take: fn(&AddressSpace, Function) -> Result<AnyPort, pagewire_ethdev::Error>,
}

/// Every driver of functions.
const DRIVERS: &[Driver] = &[driver::<I82574>(), driver::<Card82599>(), driver::<CardVf>()];

const fn driver<C: Card + 'static>() -> Driver {
    Driver {
        devices: C::DEVICES,
        take: |space, function| Ok(Nic::<C>::with_function(space, function)?.into_any()),
    }
}

/// Largest packet of a null port: what a half page holds after the headroom.
const LARGEST_NULL: u16 = 2048 - PoolConfig::HEADROOM;

/// A port as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortSpec {
    /// A function bound to vfio-pci.
    Pci(Address),
    /// `vfio-user:SOCKET`: a function that another process serves there.
    VfioUser(PathBuf),
    /// `null:` or `null:SIZE`, with the bytes of its packets.
    Null(u16),
    /// `pcap:IN[,OUT][,repeat=N]`.
    Pcap(PcapOptions),
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
        match text.strip_prefix("vfio-user:") {
            Some("") => {
                return Err("vfio-user: wants the path of a socket, such as vfio-user:/tmp/card".into());
            }
            Some(path) => return Ok(PortSpec::VfioUser(path.into())),
            None => {}
        }
        if let Some(files) = text.strip_prefix("pcap:") {
            return files.parse().map(PortSpec::Pcap);
        }
        match text.strip_prefix("ring:") {
            Some("") => Err("ring: wants a name, such as ring:a; two ports of one name are joined".into()),
            Some(name) => Ok(PortSpec::Ring(name.into())),
            None => text.parse().map(PortSpec::Pci).map_err(|_| format!("expected {FORMS}")),
        }
    }
}

impl PortSpec {
    /// Whether the port is a device of this machine's, which reaches memory through the IOMMU.
    pub(crate) fn is_hardware(&self) -> bool {
        matches!(self, PortSpec::Pci(_))
    }

    /// Whether there is a card at the other end, a modelled one included.
    pub(crate) fn is_card(&self) -> bool {
        matches!(self, PortSpec::Pci(_) | PortSpec::VfioUser(_))
    }
}

/// Open every port, in order, with one address space for those that are functions.
pub(crate) fn open(specs: &[PortSpec], space: &AddressSpace) -> Result<Vec<AnyPort>> {
    for (i, spec) in specs.iter().enumerate() {
        if spec.is_card()
            && let Some(first) = specs[..i].iter().position(|first| first == spec)
        {
            bail!("port {i} is port {first} once more");
        }
        let ends = specs.iter().filter(|other| *other == spec).count();
        if let PortSpec::Ring(name) = spec
            && ends != 2
        {
            bail!("ring:{name} is named {ends} times; a ring has two ends, name it twice");
        }
    }
    let (mut nulls, mut captures) = ((0..=u8::MAX).cycle(), (0..=u8::MAX).cycle());
    specs
        .iter()
        .map(|spec| match spec {
            PortSpec::Pci(address) => open_pci(*address, space).with_context(|| format!("port {address}")),
            PortSpec::VfioUser(path) => {
                open_vfio_user(path, space).with_context(|| format!("port vfio-user:{}", path.display()))
            }
            PortSpec::Null(size) => Ok(Null::new(nulls.next().unwrap_or(0), *size).into_any()),
            PortSpec::Pcap(options) => Ok(Pcap::new(captures.next().unwrap_or(0), options)?.into_any()),
            PortSpec::Ring(name) => Ok(Ring::new(name).into_any()),
        })
        .collect()
}

/// The driver is found first: a function that has none is left as it is.
fn open_pci(address: Address, space: &AddressSpace) -> Result<AnyPort> {
    if let Some(info) = enumerate()?.into_iter().find(|function| function.address == address) {
        driver_for(info.vendor_id, info.device_id)?;
    }
    take(space, space.open(address)?)
}

fn open_vfio_user(path: &Path, space: &AddressSpace) -> Result<AnyPort> {
    match space.open_vfio_user(path) {
        Ok(function) => take(space, function),
        Err(pagewire_pci::Error::VfioUser(error)) => Err(explain(error, path)),
        Err(error) => Err(error.into()),
    }
}

/// What keeps people from a server before it has said anything, and what mends it.
fn explain(error: VfioUserError, path: &Path) -> anyhow::Error {
    let kind = match &error.cause {
        VfioUserCause::Broken(Broken::Io(cause)) => cause.kind(),
        _ => ErrorKind::Other,
    };
    let start = format!("`{}` starts a modelled card there", start_model(path));
    match kind {
        ErrorKind::NotFound => anyhow!("there is no such socket; {start}"),
        ErrorKind::ConnectionRefused => anyhow!("nobody listens at it; {start}"),
        ErrorKind::PermissionDenied => {
            anyhow!("this user may not connect to it: become the user whose server it is")
        }
        _ => error.into(),
    }
}

/// The command that starts a modelled card at a socket.
pub(crate) fn start_model(path: &Path) -> String {
    format!("pagewire model 82599 --socket {}", path.display())
}

/// What a device is called that pagewire drives.
pub(crate) fn device_name(vendor: u16, device: u16) -> Result<&'static str> {
    let known =
        driver_for(vendor, device)?.devices.iter().find(|id| (id.vendor, id.device) == (vendor, device));
    Ok(known.map_or("", |id| id.name))
}

fn take(space: &AddressSpace, function: Function) -> Result<AnyPort> {
    let info = function.info();
    let driver = driver_for(info.vendor_id, info.device_id)?;
    Ok((driver.take)(space, function)?)
}

fn driver_for(vendor: u16, device: u16) -> Result<&'static Driver> {
    let knows = |driver: &&Driver| driver.devices.iter().any(|id| (id.vendor, id.device) == (vendor, device));
    DRIVERS.iter().find(knows).with_context(|| {
        let known: Vec<String> = DRIVERS
            .iter()
            .flat_map(|driver| driver.devices)
            .map(|known| format!("{:04x}:{:04x} ({})", known.vendor, known.device, known.name))
            .collect();
        format!("no driver for {vendor:04x}:{device:04x}; pagewire drives {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_parsed_and_bad_ones_say_what_is_expected() {
        assert_eq!("null:".parse(), Ok(PortSpec::Null(64)));
        assert_eq!("null:1500".parse(), Ok(PortSpec::Null(1500)));
        let options = PcapOptions { input: Some("a".into()), output: Some("b".into()), repeat: 0 };
        assert_eq!("pcap:a,b,repeat=0".parse(), Ok(PortSpec::Pcap(options)));
        assert_eq!("ring:a".parse(), Ok(PortSpec::Ring("a".into())));
        assert_eq!("01:00.0".parse::<PortSpec>(), Ok(PortSpec::Pci("0000:01:00.0".parse().unwrap())));
        assert_eq!("vfio-user:/a:b".parse(), Ok(PortSpec::VfioUser("/a:b".into())));
        for bad in [
            "",
            "vfio-user:",
            "null",
            "null:13",
            "null:x",
            "ring:",
            "pcap:",
            "pcap:a,b,c",
            "eth0",
            "01:00",
            "0000:01:00.8",
        ] {
            assert!(bad.parse::<PortSpec>().is_err(), "{bad}");
        }
        assert!("eth0".parse::<PortSpec>().unwrap_err().contains("PCI address"));
    }
}
