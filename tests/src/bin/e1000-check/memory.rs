//! What the kernel's IOMMU is asked for, by the kernel's own record, its trace events of each map and unmap; and packets in the memory of
//! another device.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use pagewire_ethdev::{Pool, RxQueue};
use pagewire_pci::{Address, AddressSpace, AddressSpaceOptions};
use pagewire_pool::{DeviceMemory, Error, PageSize, PoolConfig};

use crate::pair::{Options, Pair, Side, frame};
use crate::{Cards, Case};

pub(crate) const CASES: &[Case] = &[
    ("a-pool-in-a-1-gib-page-is-mapped-by-one-call", |cards| {
        pool_is_mapped(cards, PageSize::Size1G, 1 << 19)
    }),
    ("a-pool-in-2-mib-pages-takes-a-map-for-each-at-most", |cards| {
        pool_is_mapped(cards, PageSize::Size2M, 16 << 10)
    }),
    ("a-1-gib-page-too-many-is-an-error-that-says-what-to-do", no_page),
    ("frames-come-to-lie-in-another-devices-memory-and-go-out-from-there", other_devices_memory),
];

/// The kernel's records of maps and unmaps, switched on while this lives.
struct Trace;

impl Trace {
    const ROOT: &str = "/sys/kernel/tracing";

    fn start() -> Result<Trace> {
        if !Path::new(Self::ROOT).join("events").exists() {
            let status = Command::new("mount").args(["-t", "tracefs", "tracefs", Self::ROOT]).status()?;
            ensure!(status.success(), "mounting tracefs: {status}");
        }
        let trace = Trace;
        for event in ["map", "unmap"] {
            Self::write(&format!("events/iommu/{event}/enable"), "1")?;
        }
        trace.take()?;
        Ok(trace)
    }

    /// The lengths of what was mapped and unmapped since the last time, the kernel's own devices' kilobytes included.
    fn take(&self) -> Result<(Vec<usize>, Vec<usize>)> {
        let text = fs::read_to_string(Path::new(Self::ROOT).join("trace")).context("the kernel's trace")?;
        Self::write("trace", "")?;
        let lengths = |event: &str| -> Result<Vec<usize>> {
            let events = text.lines().filter_map(|line| line.split_once(event)?.1.split_once(" size="));
            let lengths = events.map(|(_, rest)| Ok(rest.split(' ').next().unwrap_or(rest).parse()?));
            lengths.collect()
        };
        Ok((lengths(" map: ")?, lengths(" unmap: ")?))
    }

    fn write(file: &str, text: &str) -> Result<()> {
        fs::write(Path::new(Self::ROOT).join(file), text)
            .with_context(|| format!("{file} of the kernel's traces"))
    }
}

/// Those that a pool makes.
fn large((maps, unmaps): (Vec<usize>, Vec<usize>)) -> (Vec<usize>, Vec<usize>) {
    let large =
        |lengths: Vec<usize>| lengths.into_iter().filter(|&len| len >= PageSize::Size2M.bytes()).collect();
    (large(maps), large(unmaps))
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Best effort: the guest is about to end.
        let _ = Self::write("events/iommu/enable", "0");
    }
}

/// At most one call a page maps all of a pool of `fragments`; none is made while frames are sent from it, and all of it is unmapped.
fn pool_is_mapped(cards: &Cards, backing: PageSize, fragments: usize) -> Result<()> {
    let mut pair = Pair::new(cards, &Options::default())?;
    let trace = Trace::start()?;
    let config = PoolConfig { fragments, backing, name: "measured".into(), ..PoolConfig::default() };
    let (bytes, pages) = (fragments * 2048, fragments * 2048 / backing.bytes());
    pair.a.packets = Pool::new(&config, &pair.space)?;
    let (maps, unmaps) = large(trace.take()?);
    // What it replaced was unmapped.
    ensure!(!unmaps.is_empty(), "the kernel's trace has no unmap: this would see nothing");
    ensure!(
        (1..=pages).contains(&maps.len()) && maps.iter().sum::<usize>() == bytes,
        "{bytes} bytes in {pages} pages were mapped in pieces of {maps:?}"
    );
    // Around all of a small pool, and far into a large one.
    const FRAMES: u32 = 2000;
    for number in 0..FRAMES {
        let sent = frame(pair.b.mac(), pair.a.mac(), 60, number);
        pair.a.send_frame(&sent)?;
        pair.b.expect(&sent)?;
    }
    let (maps, unmaps) = trace.take()?;
    let of_all = maps.len() + unmaps.len();
    let of_ours = large((maps, unmaps));
    // Small ones are the kernel's, of the device that this is reported through; a map for each frame would be seen among them.
    ensure!(
        of_ours == (vec![], vec![]) && of_all < FRAMES as usize / 4,
        "while frames were sent: {of_all}, {of_ours:?}"
    );
    pair.stop()?;
    let (maps, unmaps) = large(trace.take()?);
    ensure!(maps.is_empty() && unmaps.iter().sum::<usize>() >= bytes, "at the end: {maps:?}, {unmaps:?}");
    Ok(())
}

fn no_page(cards: &Cards) -> Result<()> {
    let pair = Pair::new(cards, &Options::default())?;
    let config = PoolConfig { fragments: 1 << 19, backing: PageSize::Size1G, ..PoolConfig::default() };
    let held = Pool::new(&config, &pair.space)?;
    let error = Pool::new(&config, &pair.space).err().context("two pools have the one page")?.to_string();
    ensure!(error.contains("pagewire hugepages reserve --size 1G"), "{error}");
    drop(held);
    drop(Pool::new(&config, &pair.space).context("the page was given back")?);
    pair.stop()
}

/// The function whose BAR 2 is nothing but memory: QEMU's ivshmem.
fn memory_device() -> Result<Address> {
    for device in fs::read_dir("/sys/bus/pci/devices")? {
        let device = device?;
        let id = |file| fs::read_to_string(device.path().join(file));
        if (id("vendor")?.trim(), id("device")?.trim()) == ("0x1af4", "0x1110") {
            return Ok(device.file_name().to_string_lossy().parse()?);
        }
    }
    bail!("there is no ivshmem (1af4:1110)")
}

/// B receives into it and sends from it; the CPU has no part in that.
fn other_devices_memory(cards: &Cards) -> Result<()> {
    let space = AddressSpace::new(AddressSpaceOptions::default())?;
    let function = space.open(memory_device()?)?;
    let bar = function.bar(2)?;
    let memory = Arc::new(DeviceMemory::bar(&bar, 0..2 << 20)?);
    let mut a = Side::open(&space, cards.a, &Options::default())?;
    let mut b = Options { rx_ring: 64, provider: Some(memory.clone()), ..Options::default() };
    b.pool.fragments = 1024;
    let mut b = Side::open(&space, cards.b, &b)?;
    for number in 0..3000 {
        let sent = frame(b.mac(), a.mac(), 60 + number as usize % 1400, number);
        a.send_frame(&sent)?;
        let packet = b.receive().with_context(|| format!("frame {number}"))?;
        ensure!(packet.len() == sent.len() && packet.as_slice().is_none(), "the CPU is shown {packet:?}");
        ensure!(matches!(packet.copy_to(&mut Vec::new()), Err(Error::Unreadable { .. })), "it was copied");
        // That it is there is seen through the device's own registers.
        let segment = b.rx.pool().segments()[0].clone();
        let start = memory.offset(&segment).context("a segment of the device's memory")?;
        let at = start + (packet.iova() - space.iova(&segment, 0)?);
        let there = bar.read32(at as usize).to_le_bytes();
        ensure!(there == sent[..4], "at {at:#x} of the BAR is {there:02x?}, {:02x?} was sent", &sent[..4]);
        b.send(packet)?;
        a.expect(&sent)?;
    }
    a.stop()?;
    b.stop()?;
    Ok(())
}
