//! Clients that send what no client should: each costs its connection at most, soon, and the next is served.

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::raw::{Came, Raw};
use common::{SCRATCH, next_is_served, serve};
use pagewire_pci::vfio_user::wire::{
    self, Command, DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, RegionAccess, RegionInfo, SetIrqs,
};

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
        ("a size that is less than what comes", [header(16, 4, wire::NO_REPLY), vec![0; 16]].concat()),
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
    short.set_len(0x2000).unwrap();
    for (address, size, offset) in [(0x800, 0x1000, 0), (0, 0x800, 0), (0, 0x1000, 0x800), (1, 0x1000, 1)] {
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
    for (address, size) in [(0x10_0000, 0x2000), (0x10_1000, 0x1000), (0xf_f000, 0x2000), (0, !0xfff)] {
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

/// A body of each command that is as it should be, and starts with its own length if `argsz`.
fn bodies(argsz: bool) -> Vec<(Command, Vec<u8>)> {
    let map = DmaMap { argsz: 32, flags: 3, offset: 0, address: 0x1000, size: 0x1000 };
    let access = RegionAccess { offset: SCRATCH as u64, region: 0, count: 4 };
    let set =
        SetIrqs { argsz: 20, flags: wire::IRQ_DATA_NONE | wire::IRQ_TRIGGER, index: 2, start: 0, count: 0 };
    let mut all = vec![
        (Command::DmaMap, map.encode().to_vec()),
        (
            Command::DmaUnmap,
            DmaUnmap { argsz: 24, flags: 0, address: 0x1000, size: 0x1000 }.encode().to_vec(),
        ),
        (Command::DeviceGetInfo, DeviceInfo { argsz: 16, ..DeviceInfo::default() }.encode().to_vec()),
        (Command::DeviceGetRegionInfo, RegionInfo { argsz: 32, ..RegionInfo::default() }.encode().to_vec()),
        (Command::DeviceGetIrqInfo, IrqInfo { argsz: 16, ..IrqInfo::default() }.encode().to_vec()),
        (Command::DeviceSetIrqs, set.encode().to_vec()),
    ];
    if !argsz {
        all.push((Command::RegionRead, access.encode().to_vec()));
        all.push((Command::DeviceReset, Vec::new()));
    }
    all
}

#[test]
fn the_length_that_a_body_gives_is_at_least_its_own() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    for (command, body) in bodies(true) {
        let mut with = |argsz: u32| {
            let body = [&argsz.to_ne_bytes(), &body[4..]].concat();
            raw.ask(command as u16, &body, &[])
        };
        for short in [0, 1, body.len() as u32 - 1] {
            assert_eq!(with(short), Came::Errno(libc::EINVAL), "{command}: {short}");
        }
        for enough in [body.len() as u32, body.len() as u32 + 1000, u32::MAX] {
            let came = with(enough);
            let again = command == Command::DmaMap && enough != body.len() as u32;
            assert!(
                matches!(came, Came::Reply(_)) || again && came == Came::Errno(libc::EEXIST),
                "{command}: {came:?}"
            );
        }
    }
}

#[test]
fn what_follows_a_body_and_descriptors_of_nobodys_are_of_no_interest() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    let file = File::open("/dev/null").unwrap();
    for (command, body) in bodies(false) {
        let longer = [body.as_slice(), &[0xa5; 200]].concat();
        let fds = if matches!(command, Command::DmaMap | Command::DeviceSetIrqs) { 0 } else { wire::MAX_FDS };
        let came = raw.ask(command as u16, &longer, &vec![file.as_fd(); fds]);
        assert!(matches!(came, Came::Reply(_)), "{command}: {came:?}");
        assert_eq!(raw.read(0, SCRATCH as u64), 0, "{command}: still in step");
    }
    // Nothing at all can be read and written too.
    for offset in [0, 0x3fff, 0x4000] {
        let access = RegionAccess { offset, region: 0, count: 0 }.encode();
        for command in [Command::RegionRead, Command::RegionWrite] {
            assert_eq!(
                raw.ask(command as u16, &access, &[]),
                Came::Reply(access.to_vec()),
                "{command} {offset:#x}"
            );
        }
    }
}

#[test]
fn a_client_may_say_little_of_itself_or_much() {
    let running = serve(true);
    let padded = [b"{\"more\":\"".as_slice(), &vec![b'x'; wire::MAX_MESSAGE - 64], b"\"}\0"].concat();
    for (minor, text) in [
        (0, b"".as_slice()),
        (1, b"\0"),
        (u16::MAX, b"{}"),
        (7, b"{\"capabilities\":{\"max_msg_fds\":1}}"),
        (0, b"{\"capabilities\":{\"max_data_xfer_size\":1,\"unheard\":[{}]},\"of\":null}\0"),
        (1, &padded),
    ] {
        let mut raw = Raw::connect(&running.path);
        let body = [&0_u16.to_ne_bytes(), &u16::to_ne_bytes(minor), text].concat();
        let Came::Reply(reply) = raw.ask(Command::Version as u16, &body, &[]) else {
            panic!("{minor} {}", text.escape_ascii())
        };
        assert_eq!(reply[..4], [[0, 0], minor.min(wire::MINOR).to_ne_bytes()].concat());
        assert_eq!(raw.read(0, SCRATCH as u64), 0);
    }
    // One that needs no answer.
    let mut raw = Raw::connect(&running.path);
    let header = Header { flags: wire::NO_REPLY, ..raw.header(Command::Version as u16) };
    raw.channel.send(header, &[&[0; 4]], &[]).unwrap();
    assert_eq!(raw.read(0, SCRATCH as u64), 0);
    drop(raw);
    next_is_served(&running, "versions");
    assert_eq!(running.count(|counters| &counters.dropped), 0);
}

/// Whatever was begun when the client ends, it is at once the next one's turn.
#[test]
fn a_client_that_ends_in_the_middle_of_a_message_makes_way() {
    let running = serve(true);
    for (command, body) in bodies(false) {
        let whole = [header(16 + body.len() as u32, command as u16, 0), body].concat();
        for sent in [1, 15, 16, whole.len() - 1] {
            let mut raw = Raw::greeted(&running.path);
            raw.send(&whole[..sent.min(whole.len() - 1)]);
            drop(raw);
            next_is_served(&running, &format!("{command} {sent}"));
        }
    }
    // One whose rest is waited for in vain is dropped in the end.
    assert_eq!(running.count(|counters| &counters.dropped), 0, "nobody's fault");
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
