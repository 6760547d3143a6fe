//! A driver's side and a card's side of the protocol, against one another.

// Memory that a card reads and writes is reached by pointer.
#![allow(unsafe_code)]

mod common;

use std::time::Duration;

use common::{
    ANSWER, DONE, DOORBELL, ECHO, FAR, IOVA, LEN, RAISE, REFUSED, RESETS, SCRATCH, eventually, serve, space,
};
use pagewire_hugepages::{PageSize, Segment, SegmentOptions};
use pagewire_models::server::{Server, ServerError, ServerOptions, run_together};
use pagewire_pci::vfio_user::ListenError;
use pagewire_pci::{Bar, Error, Function};

fn write(pointer: *mut u8, bytes: impl Iterator<Item = u8>) {
    // SAFETY: the tests write inside the memory that they mapped.
    bytes.enumerate().for_each(|(at, byte)| unsafe { pointer.add(at).write_volatile(byte) });
}

fn read(pointer: *mut u8, len: usize) -> Vec<u8> {
    // SAFETY: the tests read inside the memory that they mapped.
    (0..len).map(|at| unsafe { pointer.add(at).read_volatile() }).collect()
}

fn echo(bar: &Bar, iova: u64, len: usize) {
    bar.write32(IOVA, iova as u32);
    bar.write32(IOVA + 4, (iova >> 32) as u32);
    bar.write32(LEN, len as u32);
    bar.write32(ECHO, 1);
}

fn open(running: &common::Running) -> (pagewire_pci::AddressSpace, Function, Bar) {
    let space = space();
    let function = space.open_vfio_user(&running.path).unwrap();
    let bar = function.bar(0).unwrap();
    (space, function, bar)
}

#[test]
fn a_function_is_known_by_its_configuration_space_and_its_socket() {
    let running = serve(true);
    let (_space, function, bar) = open(&running);
    let info = function.info();
    assert_eq!((info.vendor_id, info.device_id, info.class, info.revision), (0x8086, 0x10fb, 0x020000, 1));
    assert_eq!((info.subsystem_vendor_id, info.subsystem_device_id), (0x1234, 0x5678));
    assert_eq!(info.vendor_name.as_deref(), Some("Intel Corporation"));
    assert!(info.device_name.as_deref().is_some_and(|name| name.contains("82599")));
    assert_eq!(info.name(), running.path.display().to_string());
    assert!(info.address.to_string().starts_with("vfio-user:"), "{}", info.address);
    assert_eq!((bar.len(), function.config().len()), (0x4000, 256));
    assert_eq!(function.config().capabilities().unwrap().msix.unwrap().vectors, 20);
    for none in [1, 2, 4, 5] {
        assert!(matches!(function.bar(none), Err(Error::NoBar { .. })), "{none}");
    }
}

#[test]
fn registers_are_reached_by_message_and_in_place() {
    for mappable in [false, true] {
        let running = serve(mappable);
        let (_space, _function, bar) = open(&running);
        bar.write32(SCRATCH, 0x1234_5678);
        bar.write32(FAR, 0x9abc_def0);
        assert_eq!((bar.read32(SCRATCH), bar.read32(FAR)), (0x1234_5678, 0x9abc_def0));
        bar.doorbell(FAR).unwrap().ring(3);
        assert_eq!(bar.read32(FAR), 3);
        // The card learns of what is stored in an area either way, by looking.
        let doorbell = bar.doorbell(DOORBELL).unwrap();
        for value in [7, 8, u32::MAX] {
            doorbell.ring(value);
            eventually("an answer", || bar.read32(ANSWER) == value.wrapping_add(1));
        }
    }
}

#[test]
fn memory_is_read_and_written_both_before_and_after_it_is_shared() {
    let running = serve(true);
    let space = space();
    let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "early".into() };
    let early = Segment::allocate(64 << 10, &options).unwrap();
    space.map(early.clone()).unwrap();
    let function = space.open_vfio_user(&running.path).unwrap();
    let bar = function.bar(0).unwrap();
    function.set_bus_master(true).unwrap();
    let late = space.allocate_dma(8192, 64).unwrap();
    let places =
        [(early.as_ptr().as_ptr(), space.iova(&early, 0).unwrap()), (late.as_ptr().as_ptr(), late.iova())];
    let mut done = 0;
    for (pointer, iova) in places {
        for (offset, len) in [(0, 1), (3, 13), (8, 16), (0, 64), (1, 65), (7, 2000), (0, 4096)] {
            // SAFETY: inside either piece of memory.
            let pointer = unsafe { pointer.add(offset) };
            write(pointer, (0..len).map(|at| (at * 7 + offset) as u8));
            echo(&bar, iova + offset as u64, len);
            done += 1;
            assert_eq!(bar.read32(DONE), done, "{len} bytes at {offset}");
            let expected: Vec<u8> = read(pointer, len).iter().map(|byte| byte.wrapping_add(1)).collect();
            // SAFETY: as above; twice the length is inside too.
            assert_eq!(read(unsafe { pointer.add(len) }, len), expected, "{len} bytes at {offset}");
        }
    }
    assert_eq!(running.count(|counters| &counters.refused_dma), 0);
}

#[test]
fn what_is_not_mapped_or_without_bus_mastering_is_refused() {
    let running = serve(true);
    let (space, function, bar) = open(&running);
    let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "dma".into() };
    let segment = Segment::allocate(4096, &options).unwrap();
    space.map(segment.clone()).unwrap();
    let iova = space.iova(&segment, 0).unwrap();
    let mut refused = 0;
    let mut refuses = |iova: u64, len: usize| {
        echo(&bar, iova, len);
        refused += 1;
        assert_eq!(bar.read32(REFUSED), refused, "{len} bytes at {iova:#x}");
    };
    refuses(iova, 16);
    function.set_bus_master(true).unwrap();
    for (iova, len) in [
        (iova - 1, 16),
        (iova + 4096, 1),
        (iova + 4083, 7),
        (iova + 4090, 7),
        (iova + 4095, 1),
        (0, 8),
        (u64::MAX - 3, 8),
    ] {
        refuses(iova, len);
    }
    echo(&bar, iova, 2048);
    assert_eq!(bar.read32(DONE), 1);
    space.unmap(&segment).unwrap();
    echo(&bar, iova, 16);
    assert_eq!((bar.read32(DONE), bar.read32(REFUSED)), (1, 9));
    space.map(segment).unwrap();
    echo(&bar, iova, 16);
    assert_eq!(bar.read32(DONE), 2);
    assert_eq!(running.count(|counters| &counters.refused_dma), 9);
}

#[test]
fn interrupts_arrive_at_their_vector() {
    let running = serve(true);
    let (_space, function, bar) = open(&running);
    function.set_bus_master(true).unwrap();
    // More than fit one message.
    let vectors = function.enable_msix(20).unwrap();
    let second = Some(Duration::from_secs(5));
    for number in [0, 7, 8, 19] {
        bar.write32(RAISE, number as u32);
        assert_eq!(vectors[number].wait(second).unwrap(), Some(1), "vector {number}");
    }
    bar.write32(RAISE, 20);
    assert!(vectors.iter().all(|vector| vector.try_read().unwrap().is_none()), "there is no vector 20");
    function.set_bus_master(false).unwrap();
    bar.write32(RAISE, 1);
    assert_eq!(vectors[1].try_read().unwrap(), None, "a message is a write to memory");

    // The line is masked each time it fires, and fires once more for what came meanwhile.
    let line = function.enable_intx().unwrap();
    for _ in 0..3 {
        bar.write32(RAISE, 0);
    }
    assert_eq!(line.wait(second).unwrap(), Some(1));
    line.unmask().unwrap();
    assert_eq!(line.wait(second).unwrap(), Some(1));
    line.unmask().unwrap();
    assert_eq!(line.try_read().unwrap(), None);
    assert!(matches!(function.enable_msi(1), Err(Error::TooFewInterrupts { available: 0, .. })));
    assert!(matches!(function.enable_msix(21), Err(Error::TooFewInterrupts { available: 20, .. })));
    function.disable_interrupts().unwrap();
    bar.write32(RAISE, 0);
    assert_eq!(line.try_read().unwrap(), None);
}

#[test]
fn a_reset_clears_registers_and_keeps_configuration_space() {
    let running = serve(true);
    let (_space, function, bar) = open(&running);
    function.set_bus_master(true).unwrap();
    function.config().write32(0x10, 0xfebc_0000).unwrap();
    bar.write32(SCRATCH, 1);
    bar.write32(DOORBELL, 5);
    eventually("an answer", || bar.read32(ANSWER) == 6);
    let resets = bar.read32(RESETS);
    function.reset().unwrap();
    assert_eq!((bar.read32(SCRATCH), bar.read32(RESETS)), (0, resets + 1));
    assert_eq!((bar.read32(DOORBELL), bar.read32(ANSWER)), (0, 0));
    assert_eq!(function.config().read16(4).unwrap() & 7, 6, "memory and bus mastering are on as before");
    assert_eq!(function.config().read32(0x10).unwrap(), 0xfebc_0000);
}

#[test]
fn one_client_after_the_other_finds_a_card_that_was_reset() {
    let running = serve(true);
    for round in 0..5 {
        let (space, function, bar) = open(&running);
        assert_eq!((bar.read32(SCRATCH), bar.read32(DOORBELL)), (0, 0), "round {round}");
        assert_eq!(function.config().read16(4).unwrap() & 7, 2, "bus mastering is off");
        bar.write32(SCRATCH, 1);
        bar.write32(DOORBELL, 9);
        function.set_bus_master(true).unwrap();
        drop(space.allocate_dma(4096, 64).unwrap());
    }
    assert_eq!(running.count(|counters| &counters.clients), 5);
    assert_eq!(running.count(|counters| &counters.dropped), 0);
}

#[test]
fn two_functions_of_a_space_see_the_same_memory() {
    let (one, two) = (serve(true), serve(false));
    let space = space();
    let functions = [&one, &two].map(|running| space.open_vfio_user(&running.path).unwrap());
    let ring = space.allocate_dma(4096, 64).unwrap();
    for function in &functions {
        function.set_bus_master(true).unwrap();
        let bar = function.bar(0).unwrap();
        echo(&bar, ring.iova(), 16);
        assert_eq!(bar.read32(DONE), 1);
    }
    assert_ne!(functions[0].info().address, functions[1].info().address);
}

#[test]
fn a_socket_is_one_servers() {
    let running = serve(true);
    let again = Server::bind(&running.path, ServerOptions::default());
    assert!(matches!(again, Err(ServerError::Listen(ListenError::InUse(path))) if path == running.path));
    let stale = running.path.with_file_name("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    drop(Server::bind(&stale, ServerOptions::default()).unwrap());
    assert!(!stale.exists(), "a server takes its socket with it");
    std::fs::write(&stale, "a file").unwrap();
    let error = Server::bind(&stale, ServerOptions::default()).err().unwrap().to_string();
    assert!(error.contains("no socket") && error.contains(stale.to_str().unwrap()), "{error}");
    assert_eq!(std::fs::read(&stale).unwrap(), b"a file", "what is no socket stays");
    // A server whose path was taken from it leaves the new owner's socket alone.
    let path = running.path.with_file_name("taken");
    let first = Server::bind(&path, ServerOptions::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Server::bind(&path, ServerOptions::default()).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn one_thread_serves_two_functions_side_by_side() {
    let folder = tempfile::TempDir::new().unwrap();
    let paths = [folder.path().join("a"), folder.path().join("b")];
    // Long enough to tell waiting for a client from a busy machine.
    let timeout = Duration::from_secs(4);
    let servers = paths
        .clone()
        .map(|path| Server::bind(&path, ServerOptions { timeout, ..ServerOptions::default() }).unwrap());
    let (stopper, counters) = (servers[1].stopper(), servers[0].counters());
    let thread = std::thread::spawn(move || {
        let (mut a, mut b) = (common::Card::new(), common::Card::new());
        run_together(vec![(&servers[0], &mut a), (&servers[1], &mut b)]).unwrap();
    });
    // Two clients at once, each with its own card.
    let space = space();
    let functions = [0, 1].map(|at: usize| space.open_vfio_user(&paths[at]).unwrap());
    let bars = [0, 1].map(|at: usize| functions[at].bar(0).unwrap());
    for round in 0..100 {
        (0..2).for_each(|at| bars[at].write32(SCRATCH, round * 2 + at as u32));
        (0..2).for_each(|at| assert_eq!(bars[at].read32(SCRATCH), round * 2 + at as u32));
    }
    // One goes and another comes that says nothing: it is dropped in the end, and the other one is served all the time.
    let [one, other] = bars;
    let [function, _kept] = functions;
    drop((one, function));
    let mute = std::os::unix::net::UnixStream::connect(&paths[0]).unwrap();
    eventually("the mute client is dropped", || {
        let start = std::time::Instant::now();
        other.write32(SCRATCH, 5);
        assert_eq!(other.read32(SCRATCH), 5);
        assert!(start.elapsed() < timeout * 3 / 4, "held up by a client of another function");
        counters.dropped.load(std::sync::atomic::Ordering::Relaxed) == 1
    });
    drop(mute);
    stopper.stop();
    thread.join().unwrap();
}
