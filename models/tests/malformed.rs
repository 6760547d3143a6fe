//! Clients that send what no client should: each costs its connection at most, soon, and the next is served.

mod common;

use std::fs::File;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::raw::{Came, Raw};
use common::{DONE, ECHO, IOVA, LEN, REFUSED, Running, SCRATCH, eventually, serve, space};
use pagewire_pci::vfio_user::transport::Wait;
use pagewire_pci::vfio_user::wire::{
    self, Command, DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, RegionAccess, RegionInfo, SetIrqs,
};

/// A client as it should be is served.
fn next_is_served(running: &Running, after: &str) {
    let start = Instant::now();
    let function = space().open_vfio_user(&running.path).unwrap_or_else(|error| panic!("{after}: {error}"));
    let bar = function.bar(0).unwrap();
    bar.write32(SCRATCH, 77);
    assert_eq!(bar.read32(SCRATCH), 77, "{after}");
    assert!(start.elapsed() < Duration::from_secs(5), "{after}: {:?}", start.elapsed());
}

fn header(size: u32, command: u16, flags: u32) -> Vec<u8> {
    Header { id: 1, command, size, flags, error: 0 }.encode().to_vec()
}

#[test]
fn a_client_that_does_not_introduce_itself_is_dropped() {
    let running = serve(true);
    let version = |body: &[u8]| [header(16 + body.len() as u32, 1, 0).as_slice(), body].concat();
    let cases: &[(&str, Vec<u8>)] = &[
        ("nothing", Vec::new()),
        ("half a header", header(16, 1, 0)[..7].to_vec()),
        ("half a body", header(32, 1, 0)),
        ("zeroes", vec![0; 64]),
        ("ones", vec![0xff; 64]),
        ("text", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("a body that is too large", header(u32::MAX, 1, 0)),
        ("a message without a header", header(3, 1, 0)),
        ("a reply", header(20, 1, wire::REPLY)),
        ("an unknown type", header(16, 1, 9)),
        ("another command", header(16, 13, 0)),
        ("no version", version(&[])),
        ("half a version", version(&[0, 0, 0])),
        ("another version", version(&[1, 0, 0, 0])),
        ("no JSON", version(b"\0\0\x01\0{\"capabilities\"\0")),
        ("no object", version(b"\0\0\x01\0[1,2,3]\0")),
        ("limits of another type", version(b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":{}}}\0")),
        ("brackets", version(&[&[0, 0, 1, 0], [b'['; 60_000].as_slice()].concat())),
    ];
    for (number, (what, bytes)) in cases.iter().enumerate() {
        let start = Instant::now();
        let mut raw = Raw::connect(&running.path);
        raw.send(bytes);
        assert_eq!(raw.came(0), Came::Dropped, "{what}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
        next_is_served(&running, what);
        assert_eq!(running.count(|counters| &counters.dropped), number as u64 + 1, "{what}");
    }
    // Gone before a word was said: no fault of anybody's.
    drop(Raw::connect(&running.path));
    next_is_served(&running, "gone at once");
    assert_eq!(running.count(|counters| &counters.dropped), cases.len() as u64);
}

#[test]
fn a_client_out_of_step_is_dropped() {
    let running = serve(true);
    let write = |count: u32, data: usize| {
        let access = RegionAccess { offset: 0, region: 0, count };
        [access.encode().as_slice(), &vec![0; data]].concat()
    };
    let file = tempfile::tempfile().unwrap();
    let two = [file.as_fd(), file.as_fd()];
    let map = DmaMap { argsz: 32, flags: 3, offset: 0, address: 0x1000, size: 0x1000 };
    let short = |len: usize| vec![0; len - 1];
    let cases = [
        (Command::Version, vec![0; 4], [].as_slice()),
        (Command::DmaMap, short(DmaMap::LEN), &[]),
        (Command::DmaMap, map.encode().to_vec(), &two),
        (Command::DmaUnmap, short(DmaUnmap::LEN), &[]),
        (Command::DeviceGetInfo, short(DeviceInfo::LEN), &[]),
        (Command::DeviceGetRegionInfo, short(RegionInfo::LEN), &[]),
        (Command::DeviceGetIrqInfo, short(IrqInfo::LEN), &[]),
        (Command::DeviceSetIrqs, short(SetIrqs::LEN), &[]),
        (Command::RegionRead, short(RegionAccess::LEN), &[]),
        (Command::RegionWrite, short(RegionAccess::LEN), &[]),
        (Command::RegionWrite, write(4, 3), &[]),
        (Command::RegionWrite, write(4, 5), &[]),
        (Command::RegionWrite, write(u32::MAX, 4), &[]),
    ];
    for (command, body, fds) in cases {
        let what = format!("{command} with {} bytes, {} descriptors", body.len(), fds.len());
        assert_eq!(Raw::greeted(&running.path).ask(command as u16, &body, fds), Came::Dropped, "{what}");
        next_is_served(&running, &what);
    }
    for (what, bytes) in [
        ("a reply", header(16, 9, wire::REPLY)),
        ("an unknown type", header(16, 9, 2)),
        ("too short", header(0, 9, 0)),
        ("too long", header(wire::MAX_MESSAGE as u32 + 1, 9, 0)),
        ("half a header", header(16, 9, 0)[..15].to_vec()),
        ("half a body", [header(64, 10, 0), vec![0; 20]].concat()),
    ] {
        let start = Instant::now();
        let mut raw = Raw::greeted(&running.path);
        raw.send(&bytes);
        assert_eq!(raw.came(0), Came::Dropped, "{what}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
        next_is_served(&running, what);
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_the_connection_goes_on() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    let mut refuses = |command: u16, body: &[u8], fds: &[std::os::fd::BorrowedFd<'_>], errno: i32| {
        let came = raw.ask(command, body, fds);
        assert_eq!(came, Came::Errno(errno), "command {command}: {body:x?}");
        // Still in step.
        assert_eq!(raw.read(0, SCRATCH as u64), 0);
    };
    for unknown in [0, 6, 11, 12, 14, 15, 16, 17, 18, 255, u16::MAX] {
        refuses(unknown, &[7; 100], &[], libc::ENOTSUP);
    }
    let access = |region, offset, count| RegionAccess { offset, region, count }.encode();
    for (region, offset, count) in [
        (0, 0x4000, 1),
        (0, 0x3fff, 2),
        (0, u64::MAX, 1),
        (0, u64::MAX - 3, 8),
        (0, 0, u32::MAX),
        (1, 0, 1),
        (6, 0, 1),
        (8, 0, 4),
        (9, 0, 4),
        (u32::MAX, 0, 4),
        (7, 256, 1),
    ] {
        refuses(9, &access(region, offset, count), &[], libc::EINVAL);
        if count <= 8 {
            refuses(
                10,
                &[&access(region, offset, count), [0; 8].as_slice()].concat()[..16 + count as usize],
                &[],
                libc::EINVAL,
            );
        }
    }
    let info = |argsz, index| RegionInfo { argsz, index, ..RegionInfo::default() }.encode();
    for (argsz, index) in [(0, 0), (31, 0), (32, 9), (32, u32::MAX)] {
        refuses(5, &info(argsz, index), &[], libc::EINVAL);
    }
    for index in [5, u32::MAX] {
        refuses(7, &IrqInfo { argsz: 16, index, ..IrqInfo::default() }.encode(), &[], libc::EINVAL);
    }
    let null = File::open("/dev/null").unwrap();
    let short = tempfile::tempfile().unwrap();
    short.set_len(0x1000).unwrap();
    let map = |address, size, offset| DmaMap { argsz: 32, flags: 3, offset, address, size }.encode();
    for (address, size, offset) in
        [(0, 0, 0), (u64::MAX, 2, 0), (1, u64::MAX, 0), (0, 0x1001, 0), (0, 0x1000, 1), (0, 1, u64::MAX)]
    {
        refuses(2, &map(address, size, offset), &[short.as_fd()], libc::EINVAL);
    }
    refuses(2, &map(0, 0x1000, 0), &[null.as_fd()], libc::EINVAL);
    refuses(2, &DmaMap { flags: 0xff, size: 1, ..DmaMap::default() }.encode(), &[], libc::EINVAL);
    let set = |flags, index, start, count| SetIrqs { argsz: 20, flags, index, start, count }.encode();
    let eventfd = wire::IRQ_DATA_EVENTFD | wire::IRQ_TRIGGER;
    for (flags, index, start, count) in [
        (eventfd, 3, 0, 1),
        (eventfd, u32::MAX, 0, 1),
        (eventfd, 2, 20, 1),
        (eventfd, 2, 0, 21),
        (eventfd, 2, u32::MAX, u32::MAX),
        (eventfd, 2, 0, 2),
        (eventfd, 2, 0, 1),
        (0, 2, 0, 1),
        (wire::IRQ_TRIGGER, 2, 0, 1),
        (wire::IRQ_DATA_NONE, 2, 0, 1),
        (u32::MAX, 2, 0, 1),
        (wire::IRQ_DATA_BOOL | wire::IRQ_TRIGGER, 2, 0, 2),
        (wire::IRQ_DATA_NONE | wire::IRQ_MASK, 2, 0, 1),
    ] {
        // One descriptor, and that is no eventfd.
        refuses(8, &set(flags, index, start, count), &[null.as_fd()], libc::EINVAL);
    }

    assert_eq!(raw.map(0x10_0000, 0x2000, 0, None), Came::Reply(Vec::new()));
    for (address, size) in [(0x10_0000, 0x2000), (0x10_1fff, 1), (0xf_f000, 0x1001), (0, u64::MAX)] {
        assert_eq!(raw.map(address, size, 0, None), Came::Errno(libc::EEXIST), "{address:#x}");
    }
    let mut unmap = |address, size, flags| {
        let unmap = DmaUnmap { argsz: 24, flags, address, size };
        match raw.ask(3, &unmap.encode(), &[]) {
            Came::Reply(reply) => assert_eq!(reply, unmap.encode()),
            Came::Errno(errno) => return errno,
            Came::Dropped => panic!("{address:#x}"),
        }
        0
    };
    for (address, size) in
        [(0x10_0000, 0x1000), (0x10_1000, 0x1000), (0x10_1000, 0x9000), (0, 0), (2, u64::MAX)]
    {
        assert_eq!(unmap(address, size, 0), libc::EINVAL, "{address:#x} {size:#x}");
    }
    assert_eq!(unmap(0, 0x1000, 0), 0, "as the kernel has it, nothing may be there");
    assert_eq!((unmap(0, 0x4000_0000, 0), unmap(0, 0, wire::UNMAP_ALL)), (0, 0));
    assert_eq!(unmap(1, 0, wire::UNMAP_ALL), libc::EINVAL);
    assert_eq!(running.count(|counters| &counters.dropped), 0);
}

#[test]
fn a_command_without_a_reply_has_none() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    for command in [9, 10, 13, 99] {
        let header = Header { flags: wire::NO_REPLY, ..raw.header(command) };
        let access = RegionAccess { offset: 0, region: 0, count: 4 };
        let data: &[u8] = if command == 10 { &[1, 2, 3, 4] } else { &[] };
        raw.channel.send(header, &[&access.encode(), data], &[]).unwrap();
    }
    assert_eq!(raw.read(0, 0), 0, "the reset came after the write, and this is the first reply");
}

#[test]
fn a_client_that_takes_no_reply_is_dropped() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    let start = Instant::now();
    let access = RegionAccess { offset: 0, region: 0, count: 0x4000 };
    let asked = (0..10_000).find(|_| {
        let header = raw.header(Command::RegionRead as u16);
        raw.channel.send(header, &[&access.encode()], &[]).is_err()
    });
    assert!(asked.is_some(), "it was dropped");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    next_is_served(&running, "takes nothing");
}

/// Starts a DMA of 16 bytes at `iova`, without waiting.
fn start_echo(raw: &mut Raw, iova: u64) -> u16 {
    raw.bus_master();
    assert!(matches!(raw.write(0, IOVA as u64, &iova.to_le_bytes()), Came::Reply(_)));
    assert!(matches!(raw.write(0, LEN as u64, &16_u32.to_le_bytes()), Came::Reply(_)));
    let header = raw.header(Command::RegionWrite as u16);
    let access = RegionAccess { offset: ECHO as u64, region: 0, count: 4 };
    raw.channel.send(header, &[&access.encode(), &[1, 0, 0, 0]], &[]).unwrap();
    header.id
}

/// Takes a command that the server sends.
fn asked(raw: &Raw, command: Command) -> (Header, Vec<u8>) {
    let mut body = Vec::new();
    let (header, _) = raw.channel.receive(&mut body, Wait::All(Duration::from_secs(5))).unwrap().unwrap();
    assert_eq!((header.command, header.is_reply()), (command as u16, false));
    (Header { flags: wire::REPLY, ..header }, body)
}

#[test]
fn memory_without_a_file_is_asked_for() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    assert_eq!(raw.map(0x1000, 0x1000, 0, None), Came::Reply(Vec::new()));
    let echo = start_echo(&mut raw, 0x1100);
    let (reply, body) = asked(&raw, Command::DmaRead);
    assert_eq!(body, [0x1100_u64.to_le_bytes(), 16_u64.to_le_bytes()].concat());
    // Another command before the answer is carried out after it.
    let between = raw.header(Command::RegionRead as u16);
    let access = RegionAccess { offset: DONE as u64, region: 0, count: 4 };
    raw.channel.send(between, &[&access.encode()], &[]).unwrap();
    raw.channel.send(reply, &[&body, &[5; 16]], &[]).unwrap();
    let (reply, body) = asked(&raw, Command::DmaWrite);
    assert_eq!(body, [0x1110_u64.to_le_bytes(), 16_u64.to_le_bytes(), [6; 8], [6; 8]].concat());
    raw.channel.send(reply, &[&body[..16]], &[]).unwrap();
    assert!(matches!(raw.came(echo), Came::Reply(_)));
    let Came::Reply(done) = raw.came(between.id) else { panic!() };
    assert_eq!(done[16..], [1, 0, 0, 0]);

    // A refusal is the model's to bear.
    let echo = start_echo(&mut raw, 0x1100);
    let (reply, _) = asked(&raw, Command::DmaRead);
    let refusal = Header { flags: wire::REPLY | wire::ERROR, error: libc::EFAULT as u32, ..reply };
    raw.channel.send(refusal, &[], &[]).unwrap();
    assert!(matches!(raw.came(echo), Came::Reply(_)));
    assert_eq!((raw.read(0, DONE as u64), raw.read(0, REFUSED as u64)), (1, 1));
}

#[test]
fn a_client_that_answers_wrongly_for_its_memory_is_dropped() {
    let running = serve(true);
    type Answer = fn(&Raw, Header, &[u8]);
    let cases: [(&str, Answer); 6] = [
        ("silence", |_, _, _| {}),
        ("gone", |raw, _, _| raw.socket.shutdown(Shutdown::Both).unwrap()),
        ("too little", |raw, reply, body| raw.channel.send(reply, &[body, &[1; 15]], &[]).unwrap()),
        ("nothing", |raw, reply, _| raw.channel.send(reply, &[], &[]).unwrap()),
        ("another", |raw, reply, body| {
            raw.channel.send(Header { id: reply.id ^ 1, ..reply }, &[body, &[1; 16]], &[]).unwrap();
        }),
        ("commands only", |raw, reply, _| {
            let command = Header { flags: 0, command: 4, ..reply };
            // It is dropped somewhere on the way.
            let _ = (0..100).try_for_each(|_| raw.channel.send(command, &[&[0; 16]], &[]));
        }),
    ];
    for (what, answer) in cases {
        let mut raw = Raw::greeted(&running.path);
        raw.map(0x1000, 0x1000, 0, None);
        start_echo(&mut raw, 0x1000);
        let (reply, body) = asked(&raw, Command::DmaRead);
        let clients = running.count(|counters| &counters.clients);
        answer(&raw, reply, &body);
        let mut body = Vec::new();
        eventually(what, || raw.channel.receive(&mut body, Wait::Rest(Duration::from_secs(1))).is_err());
        next_is_served(&running, what);
        assert_eq!(running.count(|counters| &counters.clients), clients + 1);
    }
}

#[test]
fn files_that_may_shrink_are_no_danger() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x2000).unwrap();
    assert_eq!(raw.map(0x1000, 0x1000, 0x1000, Some(&file)), Came::Reply(Vec::new()));
    let echo = start_echo(&mut raw, 0x1000);
    assert!(matches!(raw.came(echo), Came::Reply(_)));
    assert_eq!((raw.read(0, DONE as u64), raw.read(0, REFUSED as u64)), (1, 0));
    let mut written = [0; 16];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut written, 0x1010).unwrap();
    assert_eq!(written, [1; 16]);
    file.set_len(0x1000).unwrap();
    let echo = start_echo(&mut raw, 0x1000);
    assert!(matches!(raw.came(echo), Came::Reply(_)));
    assert_eq!((raw.read(0, DONE as u64), raw.read(0, REFUSED as u64)), (1, 1));
    assert_eq!(file.metadata().unwrap().len(), 0x1000, "and nobody made it longer");
}

#[test]
fn random_messages_do_no_harm() {
    let running = serve(true);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x1_0000).unwrap();
    let mut raw = Raw::greeted(&running.path);
    for round in 0..100_000 {
        let mut header = Header { flags: wire::NO_REPLY, ..raw.header((next() % 20) as u16) };
        let mut body = vec![0; (next() % 48) as usize];
        for byte in &mut body {
            // Small numbers more often than not: sizes and offsets that come close to something.
            *byte =
                if next().is_multiple_of(4) { next() as u8 } else { (next() % 5) as u8 * (next() % 2) as u8 };
        }
        if header.command == 1 || next().is_multiple_of(500) {
            header.flags = next() as u32;
        }
        let fds = vec![file.as_fd(); (next() % 24 / 22) as usize];
        if raw.channel.send(header, &[&body], &fds).is_err() {
            raw = Raw::greeted(&running.path);
        }
        if round % 10_000 == 0 {
            drop(raw);
            next_is_served(&running, "random messages");
            raw = Raw::greeted(&running.path);
        }
    }
    drop(raw);
    next_is_served(&running, "random messages");
    assert!(running.count(|counters| &counters.dropped) > 100);
}
