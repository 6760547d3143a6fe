use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use super::*;
use crate::vfio_user::wire::{MAX_MESSAGE, REPLY};

const SHORT: Duration = Duration::from_millis(30);
/// What a busy machine may add to it.
const SOON: Duration = Duration::from_secs(3);

fn pair() -> (Channel, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    (Channel::accepted(one, SHORT).unwrap(), other)
}

#[test]
fn descriptors_stay_with_their_message() {
    let (one, other) = pair();
    let other = Channel::accepted(other, SHORT).unwrap();
    let file = tempfile::tempfile().unwrap();
    // Sent back to back, as a client that does not wait for replies does.
    let counts = [0, 1, 0, 8, 0, 2];
    for (id, count) in counts.into_iter().enumerate() {
        let body = vec![id as u8; 3 * id];
        let fds = vec![file.as_fd(); count];
        one.send(Header { id: id as u16, ..Header::default() }, &[&body[..id], &body[id..]], &fds).unwrap();
    }
    let mut body = Vec::new();
    for (id, count) in counts.into_iter().enumerate() {
        let (header, fds) = other.receive(&mut body, Wait::Rest(SHORT)).unwrap().unwrap();
        assert_eq!((header.id as usize, fds.len(), header.size as usize), (id, count, 16 + 3 * id));
        assert_eq!(body, vec![id as u8; 3 * id]);
    }
    assert!(other.receive(&mut body, Wait::Rest(SHORT)).unwrap().is_none());
    assert!(matches!(other.receive(&mut body, Wait::All(SHORT)), Err(Broken::TimedOut(SHORT))));
    assert!(one.send(Header::default(), &[], &[file.as_fd(); MAX_FDS + 1]).is_err());
    drop(one);
    assert!(matches!(other.receive(&mut body, Wait::All(SHORT)), Err(Broken::Closed)));
    assert!(matches!(other.send(Header::default(), &[], &[]), Err(Broken::Closed)));
}

#[test]
fn a_message_is_sent_as_there_is_room_and_nothing_is_waited_for() {
    let (one, mut other) = pair();
    let file = tempfile::tempfile().unwrap();
    let long = vec![7; 1 << 20];
    let mut message =
        Outgoing::new(Header::default(), &[&long], vec![file.as_fd().try_clone_to_owned().unwrap()]);
    let mut arrived = Vec::new();
    let mut parts = 0;
    while !one.send_part(&mut message).unwrap() {
        parts += 1;
        let mut some = vec![0; 100_000];
        let count = other.read(&mut some).unwrap();
        arrived.extend(&some[..count]);
    }
    drop(one);
    other.read_to_end(&mut arrived).unwrap();
    assert!(parts > 2, "a megabyte does not fit a socket's buffer");
    let header = Header { size: (HEADER_LEN + long.len()) as u32, ..Header::default() };
    assert_eq!((&arrived[..HEADER_LEN], &arrived[HEADER_LEN..]), (&header.encode()[..], &long[..]));
}

#[test]
fn too_many_descriptors_are_an_error_and_are_closed() {
    let (one, other) = pair();
    let file = tempfile::tempfile().unwrap();
    // One with the header, eight with the body: more than a message may have.
    let header = Header { size: 18, ..Header::default() }.encode();
    assert_eq!(send_some(&other, &header, &[file.as_fd()]).unwrap(), 16);
    assert_eq!(send_some(&other, &[1, 2], &[file.as_fd(); MAX_FDS]).unwrap(), 2);
    let error = one.receive(&mut Vec::new(), Wait::All(SHORT)).unwrap_err();
    assert!(matches!(error, Broken::Malformed(Malformed::Descriptors { fds: 9, expected: 8 })), "{error}");
}

#[test]
fn a_message_that_stops_in_the_middle_is_waited_for_a_limited_time() {
    let whole = Header { size: 20, flags: REPLY, ..Header::default() }.encode();
    for sent in 1..20 {
        for wait in [Wait::All(SHORT), Wait::Rest(SHORT)] {
            let (one, mut other) = pair();
            other.write_all(&[whole.as_slice(), &[0; 4]].concat()[..sent]).unwrap();
            let start = Instant::now();
            let error = one.receive(&mut Vec::new(), wait).unwrap_err();
            assert!(matches!(error, Broken::TimedOut(SHORT)), "{sent}: {error}");
            assert!(start.elapsed() < SOON, "{sent}: {:?}", start.elapsed());
        }
    }
    // A byte now and then is no way to be waited for any longer.
    let (one, mut other) = pair();
    other.write_all(&[0]).unwrap();
    let trickle = std::thread::spawn(move || {
        let header = Header { size: 6000, ..Header::default() };
        for byte in header.encode().into_iter().skip(1).chain([0; 5000]) {
            if other.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(SHORT / 10);
        }
    });
    let start = Instant::now();
    assert!(matches!(one.receive(&mut Vec::new(), Wait::Rest(SHORT)), Err(Broken::TimedOut(SHORT))));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    drop(one);
    trickle.join().unwrap();
}

#[test]
fn a_peer_that_takes_nothing_is_waited_for_a_limited_time() {
    let (one, _other) = pair();
    let start = Instant::now();
    let body = vec![0; 1 << 20];
    let error = (0..100).find_map(|_| one.send(Header::default(), &[&body], &[]).err()).unwrap();
    assert!(matches!(error, Broken::TimedOut(SHORT)), "{error}");
    assert!(start.elapsed() < SOON);

    // A little now and then is no way to be waited for any longer.
    let (one, mut other) = pair();
    let trickle = std::thread::spawn(move || {
        while other.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
            std::thread::sleep(SHORT / 10);
        }
    });
    let error = (0..100).find_map(|_| one.send(Header::default(), &[&body], &[]).err()).unwrap();
    assert!(matches!(error, Broken::TimedOut(SHORT)), "{error}");
    drop(one);
    trickle.join().unwrap();
}

#[test]
fn a_path_has_to_fit() {
    for path in ["", "a\0b", &"x".repeat(108)] {
        let error = Channel::connect(Path::new(path), SHORT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}: {error}");
    }
    let error = Channel::connect(Path::new(&"x".repeat(107)), SHORT).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// A fixed xorshift: the same sequence each run.
fn random() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Random bytes, and random changes to a good message: each is a message or an error, soon, and never more memory than a
/// message may have.
#[test]
fn random_bytes_are_a_message_or_an_error() {
    let mut next = random();
    let mut body = Vec::new();
    let (mut good, mut bad) = (0, 0);
    let file = File::open("/dev/null").unwrap();
    for _ in 0..100_000 {
        let (one, other) = pair();
        let mut bytes = [0; 48];
        let len = (next() % 48 + 1) as usize;
        bytes[..len].iter_mut().for_each(|byte| *byte = next() as u8);
        if next().is_multiple_of(2) {
            let header = Header {
                id: next() as u16,
                command: next() as u16 % 20,
                size: len as u32,
                flags: 0,
                error: 0,
            };
            bytes[..16].copy_from_slice(&header.encode());
            bytes[(next() % 16) as usize] ^= 1 << (next() % 8);
        }
        let fds = vec![file.as_fd(); (next() % 3) as usize];
        send_some(&other, &bytes[..len], &fds).unwrap();
        // Nothing more comes, so what is missing is known at once.
        drop(other);
        match one.receive(&mut body, Wait::Rest(SHORT)) {
            Ok(Some((header, got))) => {
                assert_eq!((header.size as usize, got.len()), (16 + body.len(), fds.len()));
                good += 1;
            }
            Ok(None) => panic!("there were bytes"),
            Err(_) => bad += 1,
        }
        assert!(body.capacity() <= MAX_MESSAGE);
    }
    assert!(good > 1000 && bad > 1000, "{good} messages, {bad} errors");
}
