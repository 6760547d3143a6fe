//! Descriptors and mappings that come back. Alone in its program: both are counted for all of the process.

mod common;

use std::os::fd::AsFd;

use common::raw::Raw;
use common::{DOORBELL, serve, space};
use pagewire_pci::vfio_user::wire::{Command, SetIrqs};

/// Open descriptors, and mappings of files in memory.
fn held() -> (usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.contains("/memfd:") || line.contains("(deleted)")).count();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), mapped)
}

fn well_behaved(path: &std::path::Path) {
    let space = space();
    let function = space.open_vfio_user(path).unwrap();
    let bar = function.bar(0).unwrap();
    let ring = space.allocate_dma(1 << 16, 64).unwrap();
    let _vectors = function.enable_msix(20).unwrap();
    let _again = function.enable_msix(3).unwrap();
    function.set_bus_master(true).unwrap();
    bar.doorbell(DOORBELL).unwrap().ring(1);
    drop(ring);
}

fn ill_behaved(path: &std::path::Path) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x1000).unwrap();
    let mut raw = Raw::greeted(path);
    raw.map(0, 0x1000, 0, Some(&file));
    raw.map(0x1000, 0x1000, 0, Some(&file));
    // Refused, and not expected by the command.
    raw.map(0, 0x1000, 0, Some(&file));
    let all = [file.as_fd(); 8];
    raw.ask(Command::DeviceGetInfo as u16, &[0; 16], &all);
    let set = SetIrqs { argsz: 20, flags: 36, index: 2, start: 0, count: 8 };
    raw.ask(Command::DeviceSetIrqs as u16, &set.encode(), &all);
    raw.ask(99, &[], &all);
    raw.ask(Command::DmaMap as u16, &[0; 3], &all);
}

#[test]
fn nothing_is_left_of_clients_that_are_gone() {
    let running = serve(true);
    let settle = || {
        // Whoever is served next comes after all that was the last one's is gone.
        drop(Raw::greeted(&running.path));
        drop(Raw::greeted(&running.path));
        common::eventually("quiet", || {
            let before = held();
            std::thread::sleep(std::time::Duration::from_millis(20));
            before == held()
        });
        held()
    };
    well_behaved(&running.path);
    ill_behaved(&running.path);
    let before = settle();
    for _ in 0..30 {
        well_behaved(&running.path);
        ill_behaved(&running.path);
    }
    assert_eq!(settle(), before);
}
