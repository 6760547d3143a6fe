//! The client against servers that do wrong.

mod answers;
mod replies;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Instant;

use pagewire_hugepages::{PageSize, Segment, SegmentOptions};
use tempfile::TempDir;

use answers::right;

use super::transport::{Channel, Wait};
use super::wire::{self, Area, Command, Header, RegionInfo};
use super::*;
use crate::backend::{Domain, InterruptKind};

/// Long for a busy machine, short for a test that waits for it to pass.
const LIMIT: Duration = Duration::from_secs(1);

/// What a server does when a certain command comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    Silence,
    Close,
    Refuse(u32),
    HalfHeader,
    HalfHeaderAndGone,
    HalfBody,
    HalfBodyAndGone,
    OtherId,
    OtherCommand,
    CommandsForEver,
    Tiny,
    Huge,
    Flags,
    /// A reply without its body.
    Empty,
    /// The body of the right reply, of other content.
    Body(u8),
    /// Descriptors that nobody asked for.
    Descriptors,
    Junk,
}

const EVERY: [Wrong; 16] = [
    Wrong::Silence,
    Wrong::Close,
    Wrong::Refuse(libc::ENOSPC as u32),
    Wrong::Refuse(u32::MAX),
    Wrong::HalfHeader,
    Wrong::HalfHeaderAndGone,
    Wrong::HalfBody,
    Wrong::HalfBodyAndGone,
    Wrong::OtherId,
    Wrong::OtherCommand,
    Wrong::CommandsForEver,
    Wrong::Tiny,
    Wrong::Huge,
    Wrong::Flags,
    Wrong::Descriptors,
    Wrong::Junk,
];

/// Takes one client's commands, and says to each what `say` does with the header and the body of the right reply.
fn answer(listener: &UnixListener, mut say: impl FnMut(&Channel, Header, Command, Vec<u8>) -> bool) {
    let (socket, _) = listener.accept().unwrap();
    let channel = Channel::accepted(socket, LIMIT).unwrap();
    let mut body = Vec::new();
    while let Ok(Some((header, _))) = channel.receive(&mut body, Wait::All(20 * LIMIT)) {
        if header.is_reply() {
            continue;
        }
        let command = Command::from_number(header.command).unwrap();
        let answer = right(command, &body);
        if !say(&channel, Header { flags: wire::REPLY, ..header }, command, answer) {
            return;
        }
    }
}

/// Serves one client, and does `wrong` when `at` comes.
fn serve(listener: &UnixListener, at: Command, wrong: Wrong) {
    answer(listener, |channel, reply, command, answer| {
        if command != at {
            // The client may hang up while anything is sent.
            let _ = channel.send(reply, &[&answer], &[]);
            return true;
        }
        let mut raw = UnixStream::from(channel.as_fd().try_clone_to_owned().unwrap());
        let whole = Header { size: 16 + answer.len() as u32, ..reply };
        let _ = match wrong {
            Wrong::Nothing => channel.send(reply, &[&answer], &[]),
            Wrong::Silence => Ok(()),
            Wrong::Close => return false,
            Wrong::Refuse(error) => {
                channel.send(Header { flags: wire::REPLY | wire::ERROR, error, ..reply }, &[], &[])
            }
            Wrong::HalfHeader => raw.write_all(&whole.encode()[..9]).map_err(Into::into),
            Wrong::HalfHeaderAndGone => return raw.write_all(&whole.encode()[..9]).is_err(),
            Wrong::HalfBody => {
                let header = Header { size: whole.size + 1, ..whole };
                raw.write_all(&[header.encode().as_slice(), &answer].concat()).map_err(Into::into)
            }
            Wrong::HalfBodyAndGone => {
                let header = Header { size: whole.size + 1, ..whole };
                return raw.write_all(&[header.encode().as_slice(), &answer].concat()).is_err();
            }
            Wrong::OtherId => channel.send(Header { id: reply.id ^ 1, ..reply }, &[&answer], &[]),
            Wrong::OtherCommand => {
                channel.send(Header { command: reply.command ^ 1, ..reply }, &[&answer], &[])
            }
            Wrong::CommandsForEver => {
                let command = Header { command: Command::DmaRead as u16, flags: 0, ..reply };
                (0..100).try_for_each(|_| channel.send(command, &[&[0; 16]], &[]))
            }
            Wrong::Tiny => raw.write_all(&Header { size: 15, ..whole }.encode()).map_err(Into::into),
            Wrong::Huge => raw.write_all(&Header { size: u32::MAX, ..whole }.encode()).map_err(Into::into),
            Wrong::Flags => raw.write_all(&Header { flags: 7, ..whole }.encode()).map_err(Into::into),
            Wrong::Empty => channel.send(reply, &[], &[]),
            Wrong::Body(byte) => channel.send(reply, &[&vec![byte; answer.len()]], &[]),
            Wrong::Descriptors => channel.send(reply, &[&answer], &[raw.as_fd(); wire::MAX_FDS]),
            Wrong::Junk => raw.write_all(&[0xa5; 4096]).map_err(Into::into),
        };
        true
    });
}

/// All that a client asks for, in order. What each came to.
fn drive(path: &Path) -> Results {
    let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "client".into() };
    let segment = Segment::allocate(4096, &options).unwrap();
    let connection = match Connection::open(path, LIMIT) {
        Ok(connection) => Arc::new(connection),
        Err(error) => return vec![(Command::Version, Err(error.to_string()))],
    };
    let domain = Arc::new(SocketDomain::new(connection.clone()));
    let device = match SocketDevice::new(connection, domain.clone()) {
        Ok(device) => device,
        Err(error) => return vec![(Command::DeviceGetInfo, Err(error.to_string()))],
    };
    let event = File::open("/dev/null").unwrap();
    let mut results = Results::new();
    let mut note = |command, result: Result<(), String>| results.push((command, result));
    let said = |error: std::io::Error| error.to_string();
    let region = device.region(0).map_err(said);
    note(Command::DeviceGetRegionInfo, region.as_ref().map(drop).map_err(Clone::clone));
    let region =
        region.unwrap_or(crate::backend::Region { index: 0, len: 4096, offset: 0, mappable: vec![] });
    let mut value = [0xff; 4];
    note(Command::RegionRead, device.read(&region, 8, &mut value).map_err(said));
    note(Command::RegionWrite, device.write(&region, 8, &[1, 2, 3, 4]).map_err(said));
    note(Command::DmaMap, domain.map(&segment, 1 << 36).map_err(|error| error.to_string()));
    note(Command::DmaUnmap, domain.unmap(1 << 36, 4096).map_err(|error| error.to_string()));
    note(Command::DeviceGetIrqInfo, device.interrupts(InterruptKind::Msix).map(drop).map_err(said));
    let events = [event.as_fd(); 11];
    note(Command::DeviceSetIrqs, device.set_interrupts(InterruptKind::Msix, &events).map_err(said));
    note(Command::DeviceReset, device.reset().map_err(said));
    results
}

/// What became of each command of a client.
type Results = Vec<(Command, Result<(), String>)>;

/// Runs a client against a server that does one thing wrong.
fn run(at: Command, wrong: Wrong) -> Results {
    run_with(|listener| serve(listener, at, wrong))
}

fn run_with(server: impl FnOnce(&UnixListener) + Send) -> Results {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| server(&listener));
        let results = drive(&path);
        for (command, result) in &results {
            let Err(message) = result else { continue };
            let name = path.display().to_string();
            assert!(message.contains(&name) && message.contains(&command.to_string()), "{message}");
        }
        results
    })
}

const COMMANDS: [Command; 10] = [
    Command::Version,
    Command::DeviceGetInfo,
    Command::DeviceGetRegionInfo,
    Command::RegionRead,
    Command::RegionWrite,
    Command::DmaMap,
    Command::DmaUnmap,
    Command::DeviceGetIrqInfo,
    Command::DeviceSetIrqs,
    Command::DeviceReset,
];

#[test]
fn a_server_that_does_right_is_understood() {
    let results = run(Command::Version, Wrong::Nothing);
    assert_eq!(results.len(), 8);
    assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
}

#[test]
fn every_wrong_answer_to_every_command_is_one_error_soon() {
    // Side by side, since many of them wait for the limit.
    thread::scope(|scope| {
        for at in COMMANDS {
            scope.spawn(move || EVERY.into_iter().for_each(|wrong| one_error_soon(at, wrong)));
        }
    });
}

fn one_error_soon(at: Command, wrong: Wrong) {
    let start = Instant::now();
    let results = run(at, wrong);
    assert!(start.elapsed() < 20 * LIMIT, "{at} {wrong:?}: {:?}", start.elapsed());
    let Some(first) = results.iter().position(|(_, result)| result.is_err()) else {
        // Closed, and otherwise of no interest.
        return assert_eq!(wrong, Wrong::Descriptors, "{at}: nobody noticed");
    };
    // A server that is gone takes its maps along: nothing is left to take back.
    let unmapping = at == Command::DmaUnmap && !matches!(wrong, Wrong::Refuse(_));
    assert!(results[first].0 == at || unmapping, "{at} {wrong:?}: {results:?}");
    let closed = "closed after an earlier error";
    for (command, result) in &results[first + 1..] {
        match (wrong, result) {
            (Wrong::Refuse(_), result) => assert!(result.is_ok(), "{at} {wrong:?} {command}"),
            (_, Ok(())) => assert!(matches!(command, Command::DmaMap | Command::DmaUnmap)),
            (_, Err(error)) => assert!(error.contains(closed), "{at} {wrong:?} {command}: {error}"),
        }
    }
}

#[test]
fn a_reply_that_is_too_short_or_about_something_else_is_an_error() {
    // Those whose reply has a body that means something.
    for at in [
        Command::Version,
        Command::DeviceGetInfo,
        Command::DeviceGetRegionInfo,
        Command::RegionRead,
        Command::RegionWrite,
        Command::DeviceGetIrqInfo,
    ] {
        for wrong in [Wrong::Empty, Wrong::Body(0), Wrong::Body(0xff), Wrong::Body(0x41)] {
            if (at, wrong) == (Command::DeviceGetRegionInfo, Wrong::Body(0)) {
                continue; // Zeroes are a region 0 that there is not.
            }
            let results = run(at, wrong);
            let failed = results.iter().find(|(_, result)| result.is_err());
            assert_eq!(failed.map(|(command, _)| *command), Some(at), "{at} {wrong:?}");
        }
    }
}

#[test]
fn nobody_at_the_socket_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let error = Connection::open(&path, LIMIT).err().unwrap().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("No such file"), "{error}");
    drop(UnixListener::bind(&path).unwrap());
    let error = Connection::open(&path, LIMIT).err().unwrap().to_string();
    assert!(error.contains("refused"), "{error}");

    // Nobody accepts, and then there is no room to wait in.
    std::fs::remove_file(&path).unwrap();
    let _listener = UnixListener::bind(&path).unwrap();
    let start = Instant::now();
    assert!(Connection::open(&path, LIMIT).err().unwrap().to_string().contains("no answer within"));
    assert!(start.elapsed() < 10 * LIMIT);
}

/// A file in memory, sealed against shrinking or not.
#[allow(unsafe_code)] // memfd_create and fcntl have no safe wrapper in the standard library.
fn memory(len: u64, sealed: bool) -> File {
    // SAFETY: the name is a C string, the descriptor a new one.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"region".as_ptr(), libc::MFD_ALLOW_SEALING)) };
    file.set_len(len).unwrap();
    if sealed {
        // SAFETY: no pointer is passed.
        assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) }, 0);
    }
    file
}

/// What a client makes of a region of `size` bytes with these areas, in a file.
fn region(
    size: u64,
    offset: u64,
    areas: &[(u64, u64)],
    count: u32,
    file: Option<&File>,
) -> std::io::Result<crate::backend::Region> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            answer(&listener, |channel, reply, command, right| {
                if command != Command::DeviceGetRegionInfo {
                    return channel.send(reply, &[&right], &[]).is_ok();
                }
                let info = RegionInfo { argsz: 0, flags: 15, index: 0, cap_offset: 32, size, offset };
                let sparse = wire::SparseHeader { id: 1, version: 1, next: 0, areas: count, reserved: 0 };
                let list = areas.iter().flat_map(|&(offset, size)| Area { offset, size }.encode());
                let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
                let list: Vec<u8> = list.collect();
                channel.send(reply, &[&info.encode(), &sparse.encode(), &list], &fds).is_ok()
            });
        });
        let connection = Arc::new(Connection::open(&path, LIMIT).unwrap());
        let domain = Arc::new(SocketDomain::new(connection.clone()));
        SocketDevice::new(connection, domain).unwrap().region(0)
    })
}

#[test]
fn areas_are_whole_pages_inside_a_file_that_stays() {
    let file = memory(0x4000, true);
    let areas = |size, offset, areas: &[(u64, u64)], file: &File| {
        region(size, offset, areas, areas.len() as u32, Some(file)).map(|region| region.mappable)
    };
    let two = [(0x2000, 0x1000), (0, 0x1000), (0x1000, 0)];
    assert_eq!(areas(0x4000, 0, &two, &file).unwrap(), [0..0x1000, 0x2000..0x3000]);
    assert_eq!(areas(0x4000, 0x1000, &two, &file).unwrap(), [0..0x1000, 0x2000..0x3000]);
    // Not an error, but not to be mapped either.
    assert!(areas(0x4000, 0x2000, &two, &file).unwrap().is_empty(), "the file is too short");
    assert!(areas(0x4000, 0, &two, &memory(0x4000, false)).unwrap().is_empty(), "the file may shrink");
    assert!(areas(0x4000, 0, &two, &File::open("/dev/null").unwrap()).unwrap().is_empty());
    assert!(region(0x4000, 0, &two, 3, None).unwrap().mappable.is_empty(), "there is no file");
    assert_eq!(region(0x4000, 0, &two, 64, Some(&file)).unwrap().mappable.len(), 2, "more than there are");
    for (size, offset, bad) in [
        (0x4000, 0, (0x10, 0x1000)),
        (0x4000, 0, (0x1000, 0x10)),
        (0x4000, 0, (0x4000, 0x1000)),
        (0x4000, 0, (0x1000, !0xfff)),
        (0x4000, 0, (0, 0x2000)),
        (0x4000, 0x10, (0, 0x1000)),
        (0x4000, !0xfff, (0, 0x1000)),
        (u64::MAX, 0, (!0xfff, 0x1000)),
    ] {
        let all = [(0x1000, 0x1000), bad];
        assert!(areas(size, offset, &all, &file).is_err(), "{size:#x} {offset:#x} {bad:x?}");
    }
    assert!(region(0x4000, 0, &two, 65, Some(&file)).is_err(), "more areas than make sense");
}
