//! A consumer that does what it likes: with the rings, and with the socket. Everything here is the server's real code.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use pagewire_pci::vfio_user::wire::{self, HEADER_LEN, Header};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::layout::{self, Hello, Token, words};
use super::table::{Bad, Table};
use super::*;
use crate::packet::Chain;
use crate::{Packet, PageSize, Pool, PoolConfig};

const LONG: Duration = Duration::from_secs(20);
const QUOTA: u32 = 8;

fn pool_config() -> PoolConfig {
    PoolConfig { backing: PageSize::Size4K, ..PoolConfig::default() }
}

fn pool(fragments: usize) -> Pool {
    let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
    let config = PoolConfig { fragments, ..pool_config() };
    Pool::new(&config, &space).unwrap()
}

struct Setup {
    pool: Pool,
    producer: Producer,
    server: Server,
    folder: TempDir,
}

impl Setup {
    fn new(options: Options) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::bind(&folder.path().join("socket"), options).unwrap();
        let pool = pool(256);
        let producer = server.producer("port0", &pool).unwrap();
        Setup { pool, producer, server, folder }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("socket")
    }

    /// Attaches, and waits until the producer knows.
    fn attach(&mut self, access: Access) -> Consumer {
        let before = self.producer.consumers.len();
        let consumer = Consumer::attach(self.path(), access).unwrap();
        self.until(|producer| producer.consumers.len() > before);
        consumer
    }

    fn until(&mut self, done: impl Fn(&Producer) -> bool) {
        let end = std::time::Instant::now() + LONG;
        while !done(&self.producer) {
            assert!(std::time::Instant::now() < end, "{:?}", self.producer.counts());
            self.producer.wait(Duration::from_millis(10));
        }
    }

    fn packet(&mut self, bytes: &[u8]) -> Packet {
        let mut packet = self.pool.alloc_packet().unwrap();
        packet.extend_from_slice(bytes).unwrap();
        packet
    }

    fn inflight(&mut self) -> u64 {
        self.pool.trim();
        self.pool.stats().inflight()
    }
}

fn bytes(packet: &Received<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.copy_to(&mut bytes).expect("not taken back");
    bytes
}

fn small() -> Options {
    Options { quota: QUOTA, consumers: 2, timeout: Duration::from_millis(300), ..Options::default() }
}

#[test]
fn a_chain_arrives_whole_and_counts_each_fragment_against_the_quota() {
    let mut setup = Setup::new(small());
    let consumer = setup.attach(Access::Read);
    let mut chain = Chain::new(setup.packet(b"one"));
    for bytes in [&b"two"[..], b"three"] {
        chain.push(setup.packet(bytes)).unwrap();
    }
    setup.producer.offer(chain.finish()).unwrap();
    let long = setup.packet(b"0");
    let mut long = Chain::new(long);
    for _ in 0..QUOTA - 3 {
        long.push(setup.packet(b"1")).unwrap();
    }
    let long = setup.producer.offer(long.finish()).expect_err("6 fragments, and 5 are left of the quota");
    assert_eq!(long.segment_count(), 6);
    assert!(consumer.receive().unwrap().is_none(), "nothing is seen before the poll");
    setup.producer.poll();
    let received = consumer.receive().unwrap().unwrap();
    assert_eq!(received.segment_lens().collect::<Vec<_>>(), [3, 3, 5]);
    assert_eq!(bytes(&received), b"onetwothree");
    let mut part = [0; 7];
    assert_eq!(received.read_at(2, &mut part).unwrap(), 7);
    assert_eq!(&part, b"etwothr");
    assert_eq!((received.read_at(9, &mut part).unwrap(), received.read_at(12, &mut part).unwrap()), (2, 0));
    assert!(!consumer.wait(Duration::ZERO).unwrap(), "nothing more, with one in hand");
    drop(received);
    setup.producer.poll();
    setup.producer.offer(long).unwrap();
    setup.producer.poll();
    assert_eq!(consumer.receive().unwrap().unwrap().len(), 6);
    let counts = setup.producer.counts();
    assert_eq!((counts.handed, counts.returned, counts.quota_denied), (2, 1, 1));
    assert_eq!(setup.pool.stats().quota_denied, 1);
    assert_eq!(setup.producer.drain(LONG), 0);
    assert_eq!(setup.inflight(), 0);
}

#[test]
fn nobody_attached_costs_nothing_and_gives_the_packet_back() {
    let mut setup = Setup::new(small());
    let packet = setup.packet(b"mine");
    assert_eq!(setup.producer.offer(packet).unwrap_err().as_slice(), Some(&b"mine"[..]));
    assert_eq!(setup.producer.counts(), Counts::default());
}

#[test]
fn a_packet_of_another_pool_is_not_handed_over() {
    let mut setup = Setup::new(small());
    let _consumer = setup.attach(Access::Read);
    let mut other = pool(16);
    let packet = other.alloc_packet().unwrap();
    assert!(setup.producer.offer(packet).is_err());
    // Also where it is only a part of one.
    let mut chain = Chain::new(setup.packet(b"head"));
    chain.push(other.alloc_packet().unwrap()).unwrap();
    assert!(setup.producer.offer(chain.finish()).is_err());
    assert_eq!(setup.producer.outstanding(), 0);
}

#[test]
fn writing_is_granted_to_one_and_refused_by_default() {
    let error = Options { access: Access::ReadWrite, ..small() }.check().unwrap_err();
    assert!(error.to_string().contains("1 with read-write access"), "{error}");
    let mut setup = Setup::new(Options { access: Access::ReadWrite, consumers: 1, ..small() });
    let consumer = setup.attach(Access::ReadWrite);
    let packet = setup.packet(b"before");
    setup.producer.offer(packet).unwrap();
    setup.producer.poll();
    let mut received = consumer.receive().unwrap().unwrap();
    assert_eq!(received.write_at(0, b"after").unwrap(), 5);
    assert_eq!(bytes(&received), b"aftere");
    assert_eq!(received.write_at(5, b"!!").unwrap(), 1, "no further than the packet goes");
    assert_eq!(bytes(&received), b"after!");
    let full = Consumer::attach(setup.path(), Access::Read).unwrap_err();
    assert!(full.to_string().contains("1 consumers are attached already"), "{full}");

    let mut setup = Setup::new(small());
    let refused = Consumer::attach(setup.path(), Access::ReadWrite).unwrap_err();
    assert!(refused.to_string().contains("granted for reading only"), "{refused}");
    let consumer = setup.attach(Access::Read);
    let packet = setup.packet(b"before");
    setup.producer.offer(packet).unwrap();
    setup.producer.poll();
    let refused = consumer.receive().unwrap().unwrap().write_at(0, b"after!").unwrap_err();
    assert!(matches!(refused, Error::ReadOnly), "{refused}");
}

#[test]
fn the_socket_is_its_users_alone() {
    let setup = Setup::new(small());
    let mode = std::fs::metadata(setup.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Server::bind(&setup.path(), small()).err().unwrap();
    assert!(again.to_string().contains("a server that runs"), "{again}");
    drop(setup.server);
    assert!(!setup.folder.path().join("socket").exists());
    let nobody = Consumer::attach(setup.folder.path().join("socket"), Access::Read).unwrap_err();
    assert!(matches!(nobody, Error::NoServer { .. }), "{nobody}");
}

#[test]
fn memory_that_comes_later_is_announced_before_it_is_used() {
    let mut setup = Setup::new(small());
    let consumer = setup.attach(Access::Read);
    // A producer that comes later, with a pool of its own, is the same to a consumer as a pool that grows.
    let mut later = pool(16);
    let mut producer = setup.server.producer("port1", &later).unwrap();
    let end = std::time::Instant::now() + LONG;
    while producer.segments.is_empty() || producer.consumers.is_empty() {
        assert!(std::time::Instant::now() < end);
        producer.wait(Duration::from_millis(10));
    }
    let mut packet = later.alloc_packet().unwrap();
    packet.extend_from_slice(b"late").unwrap();
    producer.offer(packet).unwrap();
    producer.poll();
    while !consumer.wait(LONG).unwrap() {}
    assert_eq!(consumer.producers(), ["port0", "port1"]);
    let received = consumer.receive().unwrap().unwrap();
    assert_eq!((&bytes(&received)[..], received.producer()), (&b"late"[..], 1));
    drop(received);
    // The producer goes; the other goes on.
    assert_eq!(producer.drain(LONG), 0);
    drop(producer);
    let packet = setup.packet(b"still here");
    setup.producer.offer(packet).unwrap();
    setup.producer.poll();
    while !consumer.wait(LONG).unwrap() {}
    assert_eq!(bytes(&consumer.receive().unwrap().unwrap()), b"still here");
    drop((consumer, setup));
    later.trim();
    assert_eq!(later.stats().inflight(), 0);
}

#[test]
fn a_pool_that_grows_and_shrinks_tells_consumers_of_it() {
    let mut setup = Setup::new(small());
    let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
    let config = PoolConfig {
        fragments: 4,
        max_fragments: 12,
        segment_size: 8192,
        backing: PageSize::Size4K,
        ..PoolConfig::default()
    };
    setup.pool = Pool::new(&config, &space).unwrap();
    setup.producer = setup.server.producer("grows", &setup.pool).unwrap();
    let consumer = setup.attach(Access::Read);
    setup.until(|producer| producer.segments.len() == 1);
    // What there is at first is used up.
    let early: Vec<Packet> = (0..4).map(|_| setup.packet(b"early")).collect();
    for round in 0..300 {
        setup.pool.grow().unwrap();
        let packet = setup.packet(b"grown");
        let packet = setup.producer.offer(packet).expect_err("nobody has been told");
        setup.producer.share(&setup.pool).unwrap();
        setup.until(|producer| producer.segments.len() == 2);
        setup.producer.offer(packet).unwrap();
        setup.producer.poll();
        while !consumer.wait(LONG).unwrap() {}
        assert_eq!(bytes(&consumer.receive().unwrap().unwrap()), b"grown", "round {round}");
        assert_eq!(setup.producer.drain(LONG), 0);
        let grown = Arc::downgrade(&setup.pool.segments()[1]);
        assert_eq!(setup.pool.shrink(0), 4);
        assert!(grown.upgrade().is_some(), "kept until the producer lets go of it");
        setup.producer.share(&setup.pool).unwrap();
        assert!(grown.upgrade().is_none(), "nothing of it is left here");
    }
    let end = std::time::Instant::now() + LONG;
    while consumer.mapped() > 1 {
        assert!(std::time::Instant::now() < end, "{} segments are mapped for 4 fragments", consumer.mapped());
        consumer.receive().unwrap();
    }
    drop(early);
    assert_eq!(setup.inflight(), 0);
}

#[test]
fn memory_that_goes_before_its_producer_heard_that_consumers_know_it_is_not_kept() {
    let mut setup = Setup::new(small());
    let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
    let config = PoolConfig { fragments: 4, max_fragments: 8, segment_size: 8192, ..pool_config() };
    setup.pool = Pool::new(&config, &space).unwrap();
    setup.producer = setup.server.producer("grows", &setup.pool).unwrap();
    setup.until(|producer| producer.segments.len() == 1);
    let _held: Vec<Packet> = (0..4).map(|_| setup.packet(b"held")).collect();
    setup.pool.grow().unwrap();
    setup.producer.share(&setup.pool).unwrap();
    let grown = Arc::downgrade(&setup.pool.segments()[1]);
    // The pool, the space, the server's list, the news.
    let end = std::time::Instant::now() + LONG;
    while grown.strong_count() < 4 {
        assert!(std::time::Instant::now() < end, "{}", grown.strong_count());
    }
    setup.pool.shrink(0);
    setup.producer.share(&setup.pool).unwrap();
    setup.producer.poll();
    assert!(grown.upgrade().is_none(), "{} keep it", grown.strong_count());
    assert_eq!(setup.producer.segments.len(), 1);
}

#[test]
fn numbers_of_segments_and_producers_are_used_again() {
    let mut setup = Setup::new(small());
    let pools = [pool(2), pool(2)];
    let [one, other] = pools.each_ref().map(Pool::segments);
    let hub = setup.server.hub();
    let mailbox = Arc::new(super::hub::Mailbox::new().unwrap());
    for round in 0..2 * layout::MAX_PARTS {
        let lane = hub.add_lane("comes", mailbox.clone()).unwrap();
        assert_eq!(lane, 1, "round {round}");
        hub.set_segments(lane, &one).unwrap();
        hub.set_segments(lane, &other).unwrap();
        hub.remove_lane(lane);
        drop(mailbox.take());
    }
    let consumer = setup.attach(Access::Read);
    let packet = setup.packet(b"still here");
    setup.producer.offer(packet).unwrap();
    setup.producer.poll();
    assert_eq!(bytes(&consumer.receive().unwrap().unwrap()), b"still here");
}

/// A packet is kept while its producer goes, and another comes that has the numbers of the first.
#[test]
fn a_packet_of_a_producer_that_has_gone_is_not_returned_to_the_next() {
    let mut setup = Setup::new(small());
    let consumer = setup.attach(Access::Read);
    let packet = setup.packet(b"first");
    setup.producer.offer(packet).unwrap();
    setup.producer.poll();
    let first = consumer.receive().unwrap().unwrap();
    let second = setup.server.producer("second", &setup.pool).unwrap();
    drop(std::mem::replace(&mut setup.producer, second));
    setup.producer = setup.server.producer("third", &setup.pool).unwrap();
    setup.until(|producer| producer.consumers.len() == 1 && producer.segments.len() == 1);
    let packet = setup.packet(b"third");
    setup.producer.offer(packet).unwrap();
    setup.producer.poll();
    while !consumer.wait(LONG).unwrap() {}
    let third = consumer.receive().unwrap().unwrap();
    assert_eq!((bytes(&third), third.producer()), (b"third".to_vec(), first.producer()));
    assert_eq!(consumer.producers(), ["third"]);
    assert!(matches!(first.read_at(0, &mut [0; 5]), Err(Error::Revoked { .. })));
    drop(first);
    setup.producer.poll();
    let counts = setup.producer.counts();
    assert_eq!((counts.held(), counts.bad_returns()), (1, 0));
    drop(third);
    assert_eq!(setup.producer.drain(LONG), 0);
}

#[test]
fn a_dropped_producer_and_a_dropped_server_give_everything_back() {
    for server_first in [false, true] {
        let mut setup = Setup::new(small());
        let consumer = setup.attach(Access::Read);
        for _ in 0..QUOTA {
            let packet = setup.packet(b"held");
            setup.producer.offer(packet).unwrap();
        }
        setup.producer.poll();
        let Setup { mut pool, mut producer, server, folder: _folder } = setup;
        if server_first {
            drop(server);
            producer.wait(LONG);
            assert_eq!(producer.outstanding(), 0);
            assert_eq!(producer.counts().reclaimed, u64::from(QUOTA));
            while let Ok(true) = consumer.wait(LONG) {
                let _ = consumer.receive();
            }
            assert!(matches!(consumer.wait(LONG), Err(Error::Closed { .. })));
        }
        drop(producer);
        pool.trim();
        assert_eq!(pool.stats().inflight(), 0);
    }
}

#[test]
fn a_consumer_that_closes_its_wake_up_is_thrown_out() {
    let mut setup = Setup::new(small());
    let consumer = setup.attach(Access::Read);
    let packet = setup.packet(b"held");
    setup.producer.offer(packet).unwrap();
    consumer.lanes.borrow()[0].wake.shutdown(std::net::Shutdown::Both).unwrap();
    setup.until(|producer| producer.consumers.is_empty());
    assert_eq!(setup.producer.counts().reclaimed, 1);
    assert_eq!(setup.inflight(), 0);
}

/// A consumer reads while its packets are taken back and their memory is used again, in every way in which that happens.
#[test]
fn what_was_taken_back_is_never_read_as_a_packet() {
    for round in 0..300 {
        let mut setup = Setup::new(small());
        let consumer = setup.attach(Access::Read);
        let packet = setup.packet(&[1; 1024]);
        setup.producer.offer(packet).unwrap();
        setup.producer.poll();
        let reads = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (consumer, mut bytes) = (consumer, Vec::new());
                let packet = consumer.receive().unwrap().unwrap();
                loop {
                    match packet.copy_to(&mut bytes) {
                        Ok(()) => assert_eq!(bytes, [1; 1024]),
                        Err(Error::Revoked { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                    reads.fetch_add(1, Relaxed);
                }
                assert!(consumer.receive().unwrap().is_none());
            });
            while reads.load(Relaxed) < 100 {}
            let Setup { mut pool, mut producer, server, folder: _folder } = setup;
            match round % 3 {
                0 => drop(producer),
                1 => {
                    drop(server);
                    producer.wait(LONG);
                }
                _ => {
                    // What a consumer does that is thrown out for it.
                    producer.consumers[0].rings.word(words::RETURNED).store(u64::MAX / 2, Relaxed);
                    producer.poll();
                }
            }
            // All of the pool's memory, and so the packet's.
            let again = std::iter::from_fn(|| {
                let mut packet = pool.alloc_packet()?;
                packet.extend_from_slice(&[2; 1024]).unwrap();
                Some(packet)
            });
            assert_eq!(again.collect::<Vec<_>>().len(), 256, "it came back");
        });
    }
}

/// Attaches as user 65534 would: on a thread that has become it, which the kernel allows.
fn attach_as_nobody(path: std::path::PathBuf) -> Result<(), Error> {
    std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("the tests have to run as root");
        Consumer::attach(path, Access::Read).map(drop)
    })
    .join()
    .unwrap()
}

#[test]
fn another_user_is_kept_out_by_the_file_and_by_credentials_unless_named() {
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let setup = Setup::new(small());
    open(setup.folder.path(), 0o711);
    let error = attach_as_nobody(setup.path()).unwrap_err();
    assert!(matches!(&error, Error::NoServer { cause, .. } if cause.raw_os_error() == Some(13)), "{error}");
    // Whoever opens the file to all has not opened the server.
    open(&setup.path(), 0o666);
    let error = attach_as_nobody(setup.path()).unwrap_err();
    assert!(error.to_string().contains("user 65534 may not attach, 0 and root may"), "{error}");

    let setup = Setup::new(Options { user: Some(65534), ..small() });
    open(setup.folder.path(), 0o711);
    attach_as_nobody(setup.path()).unwrap();
    assert_eq!(std::fs::metadata(setup.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

/// What a greeting of these bytes is answered with.
fn greet(setup: &Setup, bytes: &[u8]) -> Vec<u8> {
    let mut socket = UnixStream::connect(setup.path()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let _ = socket.write_all(bytes);
    let mut answer = vec![0; 512];
    let count = socket.read(&mut answer).unwrap_or(0);
    answer.truncate(count);
    answer
}

fn hello(version: u32, access: u32) -> Vec<u8> {
    let hello = Hello { magic: layout::MAGIC, version, access };
    let size = (HEADER_LEN + Hello::LEN) as u32;
    let header = Header { command: layout::HELLO, size, ..Header::default() };
    [&header.encode()[..], &hello.encode()].concat()
}

#[test]
fn another_version_is_told_so() {
    let setup = Setup::new(small());
    let answer = greet(&setup, &hello(7, 0));
    let (header, why) = Header::decode(&answer).unwrap();
    assert_eq!(header.flags, wire::REPLY | wire::ERROR);
    let why = String::from_utf8_lossy(why);
    assert!(why.contains("speaks version 7") && why.contains("here is version 1"), "{why}");
    let answer = greet(&setup, &hello(layout::VERSION, 9));
    assert!(String::from_utf8_lossy(&answer).contains("access: 0x9"), "{answer:?}");
    assert!(setup.server.consumers().is_empty());
}

#[test]
fn who_says_nothing_does_not_keep_others_out() {
    let mut setup = Setup::new(small());
    let silent: Vec<_> = (0..12).map(|_| UnixStream::connect(setup.path()).unwrap()).collect();
    let consumer = setup.attach(Access::Read);
    // All that were silent are gone; whoever was let in is not.
    for mut socket in silent {
        socket.set_read_timeout(Some(LONG)).unwrap();
        assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
    }
    assert_eq!(setup.server.consumers().len(), 1);
    // Somebody who goes on talking has left.
    rustix::io::write(&consumer.channel, b"and another thing").unwrap();
    setup.until(|producer| producer.consumers.is_empty());
}

/// A consumer that was let in and has not read a word since.
#[test]
fn who_does_not_read_holds_up_nobody_and_is_thrown_out() {
    let timeout = Duration::from_secs(4);
    for stopped in [false, true] {
        let mut setup = Setup::new(Options { timeout, ..small() });
        let mut deaf = UnixStream::connect(setup.path()).unwrap();
        deaf.write_all(&hello(layout::VERSION, 0)).unwrap();
        setup.until(|producer| producer.consumers.len() == 1);
        // Producers come and go until its socket has no room for the news.
        let is_told = |setup: &Setup| {
            let pool = pool(2);
            let mut producer = setup.server.producer("news", &pool).unwrap();
            let end = std::time::Instant::now() + Duration::from_millis(500);
            while producer.segments.is_empty() && std::time::Instant::now() < end {
                producer.wait(Duration::from_millis(100));
            }
            !producer.segments.is_empty()
        };
        while is_told(&setup) {}
        let start = std::time::Instant::now();
        let path = setup.path();
        let Setup { producer, server, .. } = &mut setup;
        if !stopped {
            let consumer = Consumer::attach(path, Access::Read).unwrap();
            assert!(start.elapsed() < timeout / 2, "{:?}", start.elapsed());
            assert_eq!(consumer.producers(), ["port0"]);
            while server.consumers().len() > 1 {
                assert!(start.elapsed() < 2 * timeout, "it keeps its place");
                producer.wait(Duration::from_millis(10));
            }
            assert!(start.elapsed() > timeout / 2, "it had time to read");
            assert!(is_told(&setup), "the one that is left reads");
        }
        let start = std::time::Instant::now();
        drop(setup);
        assert!(start.elapsed() < timeout / 2, "{:?}", start.elapsed());
    }
}

impl Consumer {
    /// Segments of memory that it has mapped.
    fn mapped(&self) -> usize {
        self.segments.borrow().iter().flatten().count()
    }

    fn store(&self, word: usize, value: u64) {
        self.lanes.borrow()[0].rings.word(word).store(value, Relaxed);
    }
}

#[test]
fn rings_that_make_no_sense_end_the_connection() {
    let mut setup = Setup::new(small());
    let consumer = setup.attach(Access::Read);
    let packet = setup.packet(b"held");
    setup.producer.offer(packet).unwrap();
    consumer.store(words::RETURNED, u64::MAX / 2);
    setup.until(|producer| producer.consumers.is_empty() && producer.outstanding() == 0);
    let counts = setup.producer.counts();
    assert_eq!((counts.returned, counts.bad_returns(), counts.reclaimed), (0, 0, 1), "nothing was read");
    assert_eq!(setup.inflight(), 0);
    let end = std::time::Instant::now() + LONG;
    while !setup.server.consumers().is_empty() {
        assert!(std::time::Instant::now() < end);
    }
    setup.attach(Access::Read);
}

#[test]
fn bad_returns_are_counted_by_kind_and_end_the_connection_when_they_do_not() {
    let mut setup = Setup::new(Options { quota: 2048, ..small() });
    let (one, other) = (setup.attach(Access::Read), setup.attach(Access::Read));
    let packet = setup.packet(b"both");
    setup.producer.offer(packet).unwrap();
    setup.producer.poll();
    let (held, theirs) = (one.receive().unwrap().unwrap(), other.receive().unwrap().unwrap());
    let token = held.token;
    one.give_back(0, 1, Token { index: u32::MAX, generation: 0 });
    one.give_back(0, 1, Token { generation: token.generation.wrapping_sub(1), ..token });
    drop(held);
    one.give_back(0, 1, token);
    setup.producer.poll();
    let counts = setup.producer.counts();
    assert_eq!((counts.bad_index, counts.stale_generation, counts.not_holder, counts.returned), (1, 1, 1, 1));
    drop(theirs);
    setup.producer.poll();
    // Now nobody has it.
    one.give_back(0, 1, token);
    setup.producer.poll();
    assert_eq!(setup.producer.counts().stale_generation, 2);
    assert_eq!(setup.pool.stats().stale_generation, 4);
    assert_eq!(setup.inflight(), 0);
    for _ in 0..1024 {
        one.give_back(0, 1, token);
    }
    setup.until(|producer| producer.consumers.len() == 1);
    assert_eq!(setup.producer.consumers[0].id(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// One consumer stores anything anywhere in its lane, positions near the right one among it; the other is honest, and gets
    /// every packet.
    #[test]
    fn whatever_a_consumer_stores_costs_its_own_quota_alone(
        rounds in vec((vec((0usize..200, any::<u64>(), 0u8..4), 0..40), 0usize..6), 1..40)
    ) {
        let mut setup = Setup::new(small());
        let (evil, honest) = (setup.attach(Access::Read), setup.attach(Access::Read));
        let mut number = 0u64;
        for (stores, packets) in rounds {
            for (word, value, kind) in stores {
                let count = words::count(QUOTA.next_power_of_two());
                let near = evil.lanes.borrow()[0].rings.word(words::RETURNED).load(Relaxed);
                match kind {
                    0 => evil.store(word % count, value),
                    // A place that may exist, a generation that may be right.
                    1 => evil.give_back(0, 1, Token { index: value as u32 % 20, generation: (value >> 32) as u32 % 8 }),
                    2 => evil.store(words::RETURNED, near.wrapping_add(value % 9)),
                    _ => evil.store(words::CONSUMER_SLEEPS, 1),
                }
            }
            for _ in 0..packets {
                let packet = setup.packet(&number.to_le_bytes());
                let taken = setup.producer.offer(packet);
                prop_assert!(taken.is_ok(), "the honest one has room");
                number += 1;
            }
            setup.producer.poll();
            for expected in number - packets as u64..number {
                let received = honest.receive().unwrap();
                let received = received.expect("the honest one gets all");
                prop_assert_eq!(bytes(&received), expected.to_le_bytes());
            }
            setup.producer.poll();
            prop_assert!(setup.producer.outstanding() <= QUOTA as usize, "only the evil one holds any");
            let counts = setup.producer.counts();
            prop_assert!(counts.held() >= setup.producer.outstanding() as u64);
        }
        drop(evil);
        setup.until(|producer| producer.consumers.len() == 1);
        prop_assert_eq!(setup.producer.outstanding(), 0);
        prop_assert_eq!(setup.producer.counts().held(), 0);
        prop_assert_eq!(setup.inflight(), 0);
    }

    /// Anything on the socket, alone or after the start of a greeting: the server goes on, and lets the next one in.
    #[test]
    fn whatever_comes_on_the_socket_the_next_is_let_in(inputs in vec((vec(any::<u8>(), 0..80), 0usize..33), 1..6)) {
        let mut setup = Setup::new(small());
        for (bytes, keep) in inputs {
            let mut input = hello(layout::VERSION, 0);
            input.truncate(keep);
            input.extend(bytes);
            let mut socket = UnixStream::connect(setup.path()).unwrap();
            // The server may have had enough before all of it is sent.
            let _ = socket.write_all(&input);
        }
        let mut consumer = Err(());
        let end = std::time::Instant::now() + LONG;
        while consumer.is_err() && std::time::Instant::now() < end {
            // One that was a greeting by accident may still have its place.
            consumer = Consumer::attach(setup.path(), Access::Read).map_err(|_| ());
        }
        let consumer = consumer.expect("a place");
        setup.until(|producer| producer.consumers.len() == 1);
        let packet = setup.packet(b"well");
        setup.producer.offer(packet).unwrap();
        setup.producer.poll();
        let received = consumer.receive().unwrap().unwrap();
        prop_assert_eq!(bytes(&received), b"well");
    }

    /// The table against an oracle: a map from place to generation and the set of holders.
    #[test]
    fn returns_are_believed_exactly_when_an_oracle_does(
        steps in vec((0u8..8, any::<u32>(), 0u32..3, 0u32..4), 1..300)
    ) {
        let mut pool = pool(64);
        let mut table = Table::new(6);
        let mut out: HashMap<u32, (u32, HashSet<u32>)> = HashMap::new();
        let mut used: HashMap<u32, u32> = HashMap::new();
        for (step, random, holder, mask) in steps {
            match step {
                0..3 => {
                    let holders = u64::from(mask | 1 << holder);
                    let packet = pool.alloc_packet().unwrap();
                    let token = table.insert(packet, holders);
                    prop_assert_eq!(token.is_ok(), out.len() < 6);
                    if let Ok(Token { index, generation }) = token {
                        prop_assert!(!out.contains_key(&index));
                        prop_assert_eq!(used.get(&index).copied().unwrap_or(0), generation);
                        out.insert(index, (generation, (0..3).filter(|bit| holders >> bit & 1 == 1).collect()));
                    }
                }
                3..7 => {
                    // A place in or out of the table; its generation, or one near it.
                    let index = random % 8;
                    let right = used.get(&index).copied().unwrap_or(0);
                    let generation = if random & 0x300 == 0 { right.wrapping_sub(1) } else { right };
                    let answer = table.take_back(Token { index, generation }, 1 << holder);
                    let expected = match out.get_mut(&index) {
                        _ if index >= 6 => Err(Bad::Index),
                        Some((now, holders)) if *now == generation => match holders.remove(&holder) {
                            true => Ok(holders.is_empty()),
                            false => Err(Bad::Holder),
                        },
                        _ => Err(Bad::Generation),
                    };
                    prop_assert_eq!(answer.map(|(_, packet)| packet.is_some()), expected);
                    if expected == Ok(true) {
                        out.remove(&index);
                        *used.entry(index).or_default() += 1;
                    }
                }
                _ => {
                    let mut count = 0u64;
                    out.retain(|index, (_, holders)| {
                        count += u64::from(holders.remove(&holder));
                        if holders.is_empty() {
                            *used.entry(*index).or_default() += 1;
                        }
                        !holders.is_empty()
                    });
                    prop_assert_eq!(table.take_all(0..table.places(), 1 << holder), count);
                }
            }
            prop_assert_eq!(table.len(), out.len());
            pool.trim();
            prop_assert_eq!(pool.stats().inflight(), out.len() as u64);
        }
    }
}
