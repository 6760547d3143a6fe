//! The debug mode: what it finds is named with the place that is to blame. It is there in builds with debug assertions.
#![cfg(debug_assertions)]
// Does what safe code cannot: drops twice, writes late.
#![allow(unsafe_code)]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::{env, ptr};

use common::*;
use pagewire_pool::{Packet, PacketFlags, Pool, PoolConfig};

const CHILD: &str = "PAGEWIRE_TEST_CHECKED";

/// Run a test of this file once more, by itself and with the checks on.
fn checked(test: &str) -> Output {
    let mut child = Command::new(env::current_exe().expect("a test"));
    child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").env("PAGEWIRE_POOL_CHECKS", "1");
    // The address sanitizer, if it is in there, leaves faults to the kernel.
    child.env("ASAN_OPTIONS", "handle_segv=0");
    child.output().expect("the test once more")
}

/// What a child that panicked said.
fn panicked(test: &str) -> String {
    let output = checked(test);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("panicked"), "{:?}: {said}", output.status);
    said
}

fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

fn pool() -> Pool {
    Pool::new(&config(64), &Bench::new().space).expect("a small pool")
}

#[inline(never)]
fn the_first_to_drop(packet: Packet) {
    drop(packet);
}

#[inline(never)]
fn the_second_to_drop(packet: Packet) {
    drop(packet);
}

#[test]
fn a_fragment_that_is_dropped_twice_names_both_places() {
    if is_child() {
        let packet = pool().alloc_packet().expect("one");
        // SAFETY: none; this is the mistake that is to be found.
        let copy = unsafe { ptr::read(&packet) };
        the_first_to_drop(packet);
        return the_second_to_drop(copy);
    }
    let said = panicked("a_fragment_that_is_dropped_twice_names_both_places");
    let line = said.lines().find(|line| line.contains("dropped twice")).expect("it says so");
    let (second, first) = line.split_once("before that").expect("both");
    assert!(second.contains("the_second_to_drop") && first.contains("the_first_to_drop"), "{line}");
    assert!(first.contains("checks.rs:"), "with its line: {line}");
}

#[test]
fn a_fragment_that_is_written_after_it_was_dropped_names_who_dropped_it() {
    if is_child() {
        let mut pool = pool();
        let mut packet = pool.alloc_packet().expect("one");
        packet.extend_from_slice(b"kept").expect("room");
        let late = packet.as_mut_slice().expect("host memory").as_mut_ptr();
        the_first_to_drop(packet);
        // SAFETY: none but that the memory is mapped; this is the mistake that is to be found.
        unsafe { late.write(b'!') };
        drop(all(&mut pool));
        return;
    }
    let said = panicked("a_fragment_that_is_written_after_it_was_dropped_names_who_dropped_it");
    let line = said.lines().find(|line| line.contains("written after it was dropped")).expect("it says so");
    assert!(line.contains("byte 256 is 0x21") && line.contains("the_first_to_drop"), "{line}");
}

#[test]
fn a_page_in_quarantine_faults_when_it_is_touched() {
    if is_child() {
        let mut pool = pool();
        let mut packets = all(&mut pool);
        let mut bad = packets.swap_remove(0);
        bad.extend_from_slice(b"kept").expect("room");
        let late = bad.as_mut_slice().expect("host memory").as_mut_ptr();
        pool.quarantine(bad).expect("the pool's own");
        drop(packets);
        pool.trim();
        eprintln!("touching");
        // SAFETY: none; this is the mistake that is to be found.
        unsafe { late.write_volatile(b'!') };
        return;
    }
    let output = checked("a_page_in_quarantine_faults_when_it_is_touched");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("touching") && output.status.signal() == Some(11), "{:?}: {said}", output.status);
}

#[test]
fn what_is_right_passes() {
    if is_child() {
        let config = PoolConfig { page_size: 8192, ..config(64) };
        let mut pool = Pool::new(&config, &Bench::new().space).expect("a small pool");
        for round in 0..50 {
            let large = pool.alloc_len(5000).expect("a page");
            let mut large = large.complete(0, 0, PacketFlags::empty()).expect("nothing fits");
            large.extend_from_slice(&[1; 5000]).expect("room");
            let mut packets = all(&mut pool);
            packets.iter_mut().for_each(|packet| packet.extend_from_slice(&[2; 100]).expect("room"));
            drop(large);
            if round % 2 == 0 {
                drop_elsewhere(packets)
            } else {
                drop(packets)
            }
            // Another segment has other memory.
            pool.shrink(0);
            pool.grow().expect("the only segment again");
        }
        return eprintln!("all is well");
    }
    let output = checked("what_is_right_passes");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("all is well"), "{said}");
}
