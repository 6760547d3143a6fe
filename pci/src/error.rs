//! What can go wrong, said so that it can be mended.

use std::io;
use std::path::PathBuf;

use crate::Address;

/// An error of this crate. Each names the object, what was expected, what was found and, where a person can mend it,
/// the command that does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a PCI address.
    #[error(
        "`{text}` is not a PCI address: expected [domain:]bus:device.function in hexadecimal, such as 0000:01:00.0"
    )]
    BadAddress {
        /// What was given.
        text: String,
    },
    /// No function sits at the address.
    #[error("no PCI device {address}; the network devices here are: {present}")]
    NoSuchDevice {
        /// The address asked for.
        address: Address,
        /// The network devices there are, or a word for none.
        present: String,
    },
    /// The function is not bound to a VFIO driver.
    #[error("{address} is not bound to vfio-pci but to {found}; bind it with: pagewire dev bind {address}", found = driver.as_deref().unwrap_or("no driver"))]
    NotBound {
        /// The function.
        address: Address,
        /// The driver it is bound to.
        driver: Option<String>,
    },
    /// The function is in no IOMMU group.
    #[error(
        "{address} is in no IOMMU group, so the kernel will not hand it to a program (see /sys/kernel/iommu_groups); \
         turn on VT-d or AMD-Vi in the firmware and, with Intel, boot with the kernel argument intel_iommu=on"
    )]
    NoIommu {
        /// The function.
        address: Address,
    },
    /// The function is in VFIO's no-IOMMU mode and that was not asked for.
    #[error(
        "{address} has no IOMMU: it is in VFIO's no-IOMMU mode, where the card can read and write all of this machine's \
         memory, whatever its driver or a frame makes it do; turn on the IOMMU (VT-d or AMD-Vi in the firmware, \
         intel_iommu=on), or accept the danger with --unsafe-noiommu"
    )]
    NoIommuMode {
        /// The function.
        address: Address,
    },
    /// Functions with and without an IOMMU cannot share one address space.
    #[error(
        "{address} has {} IOMMU, unlike what else this machine has: one address space cannot hold both kinds of device, \
         since the same memory would need two addresses",
        if *no_iommu { "no" } else { "an" }
    )]
    MixedIommu {
        /// The function.
        address: Address,
        /// It is the one without.
        no_iommu: bool,
    },
    /// Another function of the group is held by a kernel driver.
    #[error(
        "IOMMU group {group} of {address} cannot be used yet: {members}; a group goes to one program as a whole: \
         pagewire dev bind {addresses}"
    )]
    GroupNotViable {
        /// The function asked for.
        address: Address,
        /// Its IOMMU group.
        group: u32,
        /// The other members that are held, and by whom.
        members: String,
        /// What is to be bound.
        addresses: String,
    },
    /// A VFIO node may not be opened by this user.
    #[error("{path} may not be opened by this user ({cause}); as root: pagewire dev bind {address} --user NAME", path = path.display())]
    Permission {
        /// The node.
        path: PathBuf,
        /// The function it leads to.
        address: Address,
        /// The kernel's answer. Part of the message, hence no `source` that would be printed once more.
        cause: io::Error,
    },
    /// Another process has the group or the device open.
    #[error("{path} is in use by {holders}; VFIO lets one process have it: end that one first", path = path.display())]
    Busy {
        /// The node.
        path: PathBuf,
        /// Who holds it, as far as `/proc` tells.
        holders: String,
    },
    /// The function is open in this address space.
    #[error(
        "{address} is open already, in this program: a function has one driver at a time, so drop that Function and its Bars first"
    )]
    AlreadyOpen {
        /// The function.
        address: Address,
    },
    /// A module that is needed is not in the running kernel.
    #[error("{path} does not exist, so the module {module} is not loaded; as root: modprobe {module}", path = path.display())]
    ModuleMissing {
        /// The node looked for.
        path: PathBuf,
        /// The module that makes it.
        module: String,
    },
    /// The platform cannot isolate interrupts.
    #[error(
        "IOMMU group {group} was refused because this platform has no interrupt remapping, without which a device can forge \
         interrupts; turn it on (firmware; QEMU: -device intel-iommu,intremap=on), or accept that, as root: \
         echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"
    )]
    NoInterruptRemapping {
        /// The group.
        group: u32,
    },
    /// No room in the address space the devices share.
    #[error(
        "{what} needs the addresses {first:#x}–{last:#x} of the device, outside what its IOMMU lets it use: {usable}; \
         open every device before memory is mapped, so that an address all of them have is chosen"
    )]
    IovaUnusable {
        /// What was to be mapped.
        what: String,
        /// The first address.
        first: u64,
        /// The last address.
        last: u64,
        /// The ranges that are usable.
        usable: String,
    },
    /// The container's limit of DMA maps is reached.
    #[error(
        "mapping {what}: the container has no DMA map left (one is used per segment); use larger segments, \
         or raise the limit as root: echo 131072 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit"
    )]
    MapsExhausted {
        /// What was to be mapped.
        what: String,
    },
    /// Memory was not mapped in this address space.
    #[error(
        "the segment at window offset {window_offset:#x} is not mapped in this address space, or is shorter than {offset:#x}"
    )]
    NotMapped {
        /// Where the segment is in the window.
        window_offset: usize,
        /// The offset asked for.
        offset: usize,
    },
    /// The segment could not be unmapped before, and so stays mapped.
    #[error(
        "a segment of {len} bytes could not be unmapped before, and stays mapped until its address space is gone"
    )]
    StaysMapped {
        /// Bytes.
        len: usize,
    },
    /// A DMA buffer that cannot be contiguous for the device.
    #[error("a DMA buffer of {len} bytes aligned to {align}: {why}")]
    BadDmaBuffer {
        /// The length asked for, in bytes.
        len: usize,
        /// The alignment asked for, in bytes.
        align: usize,
        /// What forbids it.
        why: &'static str,
    },
    /// The function has no such BAR.
    #[error("{address} has no BAR {index}")]
    NoBar {
        /// The function.
        address: Address,
        /// The BAR asked for.
        index: u8,
    },
    /// A part of a BAR that no other device can be let at.
    #[error(
        "{start:#x} to {end:#x} of BAR {index} of {address} ({len:#x} bytes) is no memory for other devices: it takes whole \
         pages that can be mapped, outside the MSI-X table"
    )]
    NoBarMemory {
        /// The function.
        address: Address,
        /// The BAR.
        index: u8,
        /// Its length in bytes.
        len: usize,
        /// Where the part begins, in bytes.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// An offset is unaligned or outside the BAR.
    #[error("BAR {index} of {address} ({len:#x} bytes) has no 32-bit register at {offset:#x}")]
    NoDoorbell {
        /// The function.
        address: Address,
        /// The BAR.
        index: u8,
        /// Its length in bytes.
        len: usize,
        /// The offset asked for.
        offset: usize,
    },
    /// Configuration space has no such register.
    #[error("the configuration space of {address} ({len} bytes) has no {width}-byte register at {offset:#x}")]
    NoConfigRegister {
        /// The function.
        address: Address,
        /// The offset asked for.
        offset: usize,
        /// The width of the access in bytes.
        width: usize,
        /// The length of configuration space in bytes.
        len: usize,
    },
    /// The kernel knows no way to reset this function.
    #[error(
        "{address} has no reset the kernel can use (no FLR, no power-management or bus reset of its own); reset it through its registers"
    )]
    ResetUnsupported {
        /// The function.
        address: Address,
    },
    /// Fewer interrupts than asked for.
    #[error("{address} has {available} {kind} interrupt vectors, {wanted} were asked for")]
    TooFewInterrupts {
        /// The function.
        address: Address,
        /// MSI-X, MSI or INTx.
        kind: crate::InterruptKind,
        /// How many were asked for.
        wanted: u16,
        /// How many there are.
        available: u32,
    },
    /// Binding would cut a network interface off.
    #[error(
        "{address} drives {interface}, which {why}; take it down (ip link set {interface} down) or use --force"
    )]
    InterfaceInUse {
        /// The function.
        address: Address,
        /// Its interface.
        interface: String,
        /// Why it should stay.
        why: &'static str,
    },
    /// Bridges are the kernel's.
    #[error(
        "{address} is a bridge (class {class:#08x}): it stays with the kernel and does not count in its IOMMU group"
    )]
    Bridge {
        /// The function.
        address: Address,
        /// Its class code.
        class: u32,
    },
    /// A driver did not take the function.
    #[error("{address} was not taken by {driver}{hint}; {after}")]
    BindRefused {
        /// The function.
        address: Address,
        /// The driver.
        driver: String,
        /// What the reason may be.
        hint: String,
        /// What became of the function.
        after: String,
    },
    /// Only root may bind, and only root may open a function without an IOMMU.
    #[error("{path} is for root only: run the command as root", path = path.display())]
    NeedsRoot {
        /// The attribute or the node.
        path: PathBuf,
    },
    /// No such user.
    #[error("there is no user `{name}` on this machine")]
    NoSuchUser {
        /// The name given.
        name: String,
    },
    /// The memory underneath.
    #[error(transparent)]
    Memory(#[from] pagewire_hugepages::Error),
    /// iommufd was asked for by name, and the kernel has none.
    #[error(
        "iommufd is not to be had for {address}: the kernel was built without CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV; leave the interface to choice, or take the group's"
    )]
    NoIommufd {
        /// The function.
        address: Address,
    },
    /// A server of a function behind a socket.
    #[error(transparent)]
    VfioUser(#[from] crate::vfio_user::VfioUserError),
    /// Any other refusal by the operating system.
    #[error("{doing}: {cause}")]
    Io {
        /// What was being done, to which object.
        doing: String,
        /// The answer. Part of the message, hence no `source` that would be printed once more.
        cause: io::Error,
    },
}

impl Error {
    /// Wraps an operating system's answer with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        move |cause| Error::Io { doing, cause }
    }
}
