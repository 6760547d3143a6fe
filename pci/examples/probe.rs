//! Opens a function, shows what it has, and tries each thing a driver needs once:
//!
//! ```text
//! pagewire dev bind 0000:01:00.0
//! cargo run -p pagewire-pci --example probe -- 0000:01:00.0
//! ```
//!
//! The register shown is the STATUS register of Intel's network cards (offset 8 of BAR 0).

use std::error::Error;
use std::process::ExitCode;

use pagewire_hugepages::{PageSize, Segment, SegmentOptions};
use pagewire_pci::{Address, AddressSpace, AddressSpaceOptions, Backend};

fn main() -> ExitCode {
    match probe() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn probe() -> Result<(), Box<dyn Error>> {
    let mut options = AddressSpaceOptions::default();
    let mut addresses: Vec<Address> = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--group" => options.backend = Backend::Group,
            "--iommufd" => options.backend = Backend::Iommufd,
            "--unsafe-noiommu" => options.unsafe_noiommu = true,
            "--small-pages" => options.dma_page_size = PageSize::Size4K,
            address => addresses.push(address.parse()?),
        }
    }
    if addresses.is_empty() {
        return Err("usage: probe [--group | --iommufd] [--unsafe-noiommu] [--small-pages] ADDRESS...".into());
    }
    let page_size = options.dma_page_size;
    let space = AddressSpace::new(options)?;
    // All first: only then is every device's view of memory known.
    let functions =
        addresses.into_iter().map(|address| space.open(address)).collect::<Result<Vec<_>, _>>()?;

    let segment =
        Segment::allocate(4 << 20, &SegmentOptions { page_size, node: None, name: "probe".into() })?;
    space.map(segment.clone())?;
    println!("{} bytes of packets at IOVA {:#x}", segment.len(), space.iova(&segment, 0)?);
    let ring = space.allocate_dma(4096, 128)?;
    println!("{} bytes of ring at IOVA {:#x}", ring.len(), ring.iova());

    for function in &functions {
        println!(
            "{}: driver {}",
            function.info().address,
            function.info().driver.as_deref().unwrap_or("none")
        );
        let capabilities = function.config().capabilities()?;
        for capability in &capabilities.list {
            let list = if capability.extended { "extended capability" } else { "capability" };
            println!("  {list} {:#04x} at {:#05x}", capability.id, capability.offset);
        }
        let registers = function.bar(0)?;
        println!("  BAR 0: {:#x} bytes, STATUS {:#010x}", registers.len(), registers.read32(0x8));
        if let Some(msix) = capabilities.msix {
            let vectors = function.enable_msix(msix.vectors)?;
            println!("  MSI-X: {} vectors on", vectors.len());
            function.disable_interrupts()?;
        }
        function.set_bus_master(true)?;
        function.set_bus_master(false)?;
        match function.reset() {
            Ok(()) => println!("  reset; STATUS {:#010x}", registers.read32(0x8)),
            Err(error) => println!("  {error}"),
        }
    }
    drop(functions);
    space.unmap(&segment)?;
    println!("closed");
    Ok(())
}
