//! Replies whose form is right and that make no sense, or more of it than was asked for.

use super::*;
use wire::{DeviceInfo, MAX_MESSAGE, SparseHeader};

/// What of a client fails whose server replies to `at` with another body.
fn failure(at: Command, change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync) -> Option<(Command, String)> {
    let results = run_with(|listener| {
        answer(listener, |channel, reply, command, right| {
            let body = if command == at { change(right) } else { right };
            channel.send(reply, &[&body], &[]).is_ok()
        });
    });
    let failed = results.into_iter().find(|(_, result)| result.is_err())?;
    Some((failed.0, failed.1.unwrap_err()))
}

#[test]
fn versions_and_limits() {
    let version =
        |major: u16, minor: u16, text: &[u8]| [&major.to_ne_bytes(), &minor.to_ne_bytes(), text].concat();
    for body in [
        version(0, 0, b""),
        version(0, 1, b"\0"),
        version(0, 1, b"{}"),
        version(0, 1, b"{\"capabilities\":{\"max_msg_fds\":1,\"max_data_xfer_size\":3},\"more\":[]}"),
        version(
            0,
            1,
            b"{\"capabilities\":{\"max_msg_fds\":65535,\"max_data_xfer_size\":18446744073709551615}}\0",
        ),
    ] {
        assert_eq!(failure(Command::Version, |_| body.clone()), None, "{}", body.escape_ascii());
    }
    let padded = [b"{\"more\":\"".as_slice(), &vec![b'x'; MAX_MESSAGE - 64], b"\"}\0"].concat();
    assert_eq!(failure(Command::Version, |_| version(0, 1, &padded)), None, "as long as a message may be");
    for (body, why) in [
        (version(0, 2, b""), "version"),
        (version(1, 0, b""), "version"),
        (version(u16::MAX, u16::MAX, b""), "version"),
        (version(0, 1, b"\0\0"), "no JSON object"),
        (version(0, 1, b"{}\0{}"), "no JSON object"),
        (version(0, 1, b"{\"capabilities\""), "no JSON object"),
        (version(0, 1, b"[\"capabilities\"]"), "no JSON object"),
        (version(0, 1, b"\xff\xfe{}"), "no JSON object"),
        (version(0, 1, &[b'['; 100_000]), "no JSON object"),
        (version(0, 1, b"{\"capabilities\":{\"max_data_xfer_size\":0}}"), "not a number above 0"),
        (version(0, 1, b"{\"capabilities\":{\"max_data_xfer_size\":-1}}"), "not a number above 0"),
        (version(0, 1, b"{\"capabilities\":{\"max_msg_fds\":\"8\"}}"), "not a number above 0"),
        (vec![0, 0, 1], "a body of 3 bytes, where 4 are needed"),
    ] {
        let (command, said) = failure(Command::Version, |_| body.clone()).expect(why);
        assert!(command == Command::Version && said.contains(why), "{}: {said}", body.escape_ascii());
    }
}

/// Puts a 32-bit word into a body.
fn put(mut body: Vec<u8>, at: usize, word: u32) -> Vec<u8> {
    body[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    body
}

#[test]
fn what_a_device_is() {
    let info = |flags, regions, interrupts| {
        move |_| DeviceInfo { argsz: 16, flags, regions, interrupts }.encode().to_vec()
    };
    // More of either than a PCI function has: newer than this client, and no harm.
    for (flags, regions, interrupts) in [(2, 9, 0), (u32::MAX, 1024, u32::MAX), (3, 8, 5)] {
        assert_eq!(failure(Command::DeviceGetInfo, info(flags, regions, interrupts)), None);
    }
    for (flags, regions, why) in [
        (1, 9, "flags of the device: 0x1"),
        (0, 9, "flags of the device: 0x0"),
        (2, 0, "number of regions: 0x0"),
        (2, 7, "number of regions: 0x7"),
        (2, 1025, "number of regions: 0x401"),
        (2, u32::MAX, "number of regions: 0xffffffff"),
    ] {
        let (command, said) = failure(Command::DeviceGetInfo, info(flags, regions, 5)).expect(why);
        assert!(command == Command::DeviceGetInfo && said.contains(why), "{said}");
    }
}

#[test]
fn what_interrupts_there_are() {
    let command = Command::DeviceGetIrqInfo;
    for (at, word) in [(12, 2048), (12, 0), (4, 0), (4, u32::MAX), (0, 0), (0, u32::MAX)] {
        assert_eq!(failure(command, |right| put(right, at, word)), None, "{word:#x} at {at}");
    }
    for (at, word) in [(8, 0), (8, u32::MAX), (12, 2049), (12, u32::MAX)] {
        let (failed, said) = failure(command, |right| put(right, at, word)).expect("an error");
        assert!(failed == command && said.contains("number of interrupts"), "{said}");
    }
}

#[test]
fn which_access_a_reply_is_about() {
    for command in [Command::RegionRead, Command::RegionWrite] {
        for (at, word) in [(0, 12), (4, 1), (8, 1), (8, u32::MAX), (12, 0), (12, 5), (12, u32::MAX)] {
            let (failed, said) = failure(command, |right| put(right, at, word)).expect("an error");
            assert!(failed == command && said.contains("offset replied to"), "{word:#x} at {at}: {said}");
        }
    }
    for change in [3, 5, 1 << 19] {
        let resized = |mut right: Vec<u8>| {
            right.resize(wire::RegionAccess::LEN + change, 0);
            right
        };
        let (failed, said) = failure(Command::RegionRead, resized).expect("an error");
        assert!(failed == Command::RegionRead && said.contains("where 4 are needed"), "{said}");
    }
}

#[test]
fn what_follows_the_body_is_of_no_interest() {
    let longer = |right: Vec<u8>| [right.as_slice(), &[0xa5; 100]].concat();
    for command in COMMANDS {
        let failed = failure(command, longer);
        // JSON that is none, and data that is too long.
        let minds = matches!(command, Command::Version | Command::RegionRead);
        assert_eq!(failed.map(|(failed, _)| failed), minds.then_some(command), "{command}");
    }
}

/// Capabilities that lead nowhere, into the fixed part, in circles, or out of the reply.
#[test]
fn capabilities_of_a_region_that_make_no_sense_are_none() {
    let reply = |first: u32, id: u16, next: u32, areas: u32| {
        let info = RegionInfo { argsz: 64, flags: 15, index: 0, cap_offset: first, size: 0x1000, offset: 0 };
        let list = SparseHeader { id, version: 1, next, areas, reserved: 0 };
        [info.encode().as_slice(), &list.encode(), &Area { offset: 0, size: 0x1000 }.encode()].concat()
    };
    for (first, id, next, areas) in [
        (0, 1, 0, 1),
        (1, 1, 0, 1),
        (32, 2, 32, 1),
        (32, 2, 33, 1),
        (32, 2, u32::MAX, 1),
        (63, 1, 0, 1),
        (64, 1, 0, 1),
        (u32::MAX, 1, 0, 1),
        (32, 1, 0, 0),
        (32, u16::MAX, 0, 1),
    ] {
        // Without a file nothing is mapped anyway: what counts is that it is read to an end.
        let failed = failure(Command::DeviceGetRegionInfo, |_| reply(first, id, next, areas));
        assert_eq!(failed, None, "{first} {id} {next} {areas}");
    }
    for (size, offset) in [(u64::MAX, 0), (0x1000, u64::MAX), (u64::MAX, u64::MAX), (1 << 63, 1 << 63)] {
        let failed = failure(Command::DeviceGetRegionInfo, |_| {
            RegionInfo { argsz: 32, flags: 7, index: 0, cap_offset: 0, size, offset }.encode().to_vec()
        });
        assert!(failed.is_none_or(|(command, _)| command == Command::DeviceGetRegionInfo), "{size:#x}");
    }
}

#[test]
fn a_second_reply_is_an_error_of_the_command_after_it() {
    for (number, at) in COMMANDS.into_iter().enumerate() {
        let results = run_with(|listener| {
            answer(listener, |channel, reply, command, right| {
                let times = if command == at { 2 } else { 1 };
                (0..times).all(|_| channel.send(reply, &[&right], &[]).is_ok())
            });
        });
        let failed = results.into_iter().find(|(_, result)| result.is_err());
        let Some((command, Err(said))) = failed else {
            assert_eq!(at, Command::DeviceReset, "nobody noticed");
            continue;
        };
        // A command in several messages meets it itself; what an unmapping meets shows in the one after it.
        let (meets, why) = match at {
            Command::DeviceSetIrqs => (at, "number of the message replied to"),
            Command::DmaMap => (COMMANDS[number + 2], "closed after an earlier error"),
            _ => (COMMANDS[number + 1], "number of the message replied to"),
        };
        assert!(command == meets && said.contains(why), "{at}: {said}");
    }
}

#[test]
fn commands_of_the_servers_own_are_refused_and_no_harm() {
    for number in [0, 6, Command::DmaRead as u16, Command::DmaWrite as u16, 99, u16::MAX] {
        let results = run_with(|listener| {
            answer(listener, |channel, reply, _, right| {
                let quiet = Header { command: number, flags: wire::NO_REPLY, id: 7, ..reply };
                let command = Header { flags: 0, ..quiet };
                channel.send(quiet, &[&[1; 40]], &[]).is_ok()
                    && channel.send(command, &[&[1; 40]], &[channel.as_fd()]).is_ok()
                    && refused(channel, command)
                    && channel.send(reply, &[&right], &[]).is_ok()
            });
        });
        assert!(results.iter().all(|(_, result)| result.is_ok()), "{number}: {results:?}");
    }
}

/// Takes the client's reply to a command: a refusal, and but one.
fn refused(channel: &Channel, command: Header) -> bool {
    let mut body = Vec::new();
    let (reply, fds) = channel.receive(&mut body, Wait::All(20 * LIMIT)).unwrap().unwrap();
    assert_eq!((reply.id, reply.command), (command.id, command.command));
    assert_eq!((reply.flags, reply.error), (wire::REPLY | wire::ERROR, libc::ENOTSUP as u32));
    body.is_empty() && fds.is_empty()
}
