//! Packets handed to real processes, which are killed while they hold some.
//!
//! Each test starts its own program once more as the consumers, told by the environment what to do.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::handover::{Access, Consumer, Error, Options, Producer, Server};
use pagewire_pool::{Chain, Packet, PageSize, Pool, PoolConfig};

const LONG: Duration = Duration::from_secs(60);
const QUOTA: u32 = 64;

/// The packets of a test: lengths and bytes differ, and every seventh has three segments.
fn content(number: u64) -> Vec<u8> {
    (0..60 + number % 1400)
        .map(|at| (number.wrapping_mul(31) + at) as u8)
        .chain(number.to_le_bytes())
        .collect()
}

struct Owner {
    pool: Pool,
    producer: Producer,
    server: Server,
    folder: tempfile::TempDir,
    sent: u64,
}

impl Owner {
    fn new(backing: PageSize) -> Owner {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { quota: QUOTA, ..Options::default() };
        let server = Server::bind(&folder.path().join("socket"), options).unwrap();
        let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
        let config = PoolConfig { fragments: 1024, backing, ..PoolConfig::default() };
        let pool = Pool::new(&config, &space).unwrap();
        let producer = server.producer("port0", &pool).unwrap();
        Owner { pool, producer, server, folder, sent: 0 }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn until(&mut self, what: &str, done: impl Fn(&Owner) -> bool) {
        let end = Instant::now() + LONG;
        while !done(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.producer.counts());
            self.producer.wait(Duration::from_millis(5));
        }
    }

    /// Starts a consumer, and waits until it is attached.
    fn start(&mut self, role: &str) -> Process {
        let before = self.server.consumers().len();
        let process = Process::start(role, &self.socket());
        self.until("a consumer attaches", |owner| owner.server.consumers().len() > before);
        // The server lists it just before the producer hears of it.
        self.producer.wait(Duration::from_millis(100));
        process
    }

    fn packet(&mut self) -> Packet {
        let bytes = content(self.sent);
        let mut make = |bytes: &[u8]| {
            let mut packet = self.pool.alloc_packet().expect("the quota leaves enough of the pool");
            packet.extend_from_slice(bytes).unwrap();
            packet
        };
        if !self.sent.is_multiple_of(7) {
            return make(&bytes);
        }
        let mut chain = Chain::new(make(&bytes[..20]));
        chain.push(make(&bytes[20..21])).unwrap();
        chain.push(make(&bytes[21..])).unwrap();
        chain.finish()
    }

    /// Offers packets until some consumer has taken as many as that; consumers that hold too much miss some.
    fn send(&mut self, count: u64) {
        let end = Instant::now() + LONG;
        let until = self.sent + count;
        while self.sent < until {
            let packet = self.packet();
            match self.producer.offer(packet) {
                Ok(()) => self.sent += 1,
                Err(packet) => {
                    drop(packet);
                    assert!(Instant::now() < end, "nobody takes anything: {:?}", self.producer.counts());
                    self.producer.wait(Duration::from_millis(5));
                }
            }
            if self.sent.is_multiple_of(32) {
                self.producer.poll();
            }
        }
        self.producer.poll();
    }

    fn inflight(&mut self) -> u64 {
        self.pool.trim();
        self.pool.stats().inflight()
    }
}

struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// Runs `role` in another process.
    fn start(role: &str, socket: &Path) -> Process {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "consumer_process", "--nocapture", "--quiet"])
            .env("HANDOVER_ROLE", role)
            .env("HANDOVER_SOCKET", socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Process { child, lines }
    }

    /// Waits for a line that starts with `word`, and gives the number behind it.
    fn says(&mut self, word: &str) -> u64 {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "{word} is never said: {all}");
            if let Some(number) = line.strip_prefix(word) {
                return number.trim().parse().unwrap();
            }
            all += &line;
        }
    }

    fn kill(&mut self) {
        // SIGKILL.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(word: &str, number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{word} {number}").unwrap();
    out.flush().unwrap();
}

/// What the other processes do. In the process of the tests it checks that without a producer there is nothing to attach to.
#[test]
fn consumer_process() {
    let Some(role) = env::var_os("HANDOVER_ROLE") else {
        let nobody = Consumer::attach("/nonexistent/socket", Access::Read).unwrap_err();
        assert!(matches!(nobody, Error::NoServer { .. }), "{nobody}");
        return;
    };
    let consumer = Consumer::attach(env::var_os("HANDOVER_SOCKET").unwrap(), Access::Read).unwrap();
    match role.to_str().unwrap() {
        // Takes everything, in order, and returns it; says how much that was.
        "check" => say("checked", receive_all(&consumer)),
        // Takes as much as it gets, and returns nothing.
        "hoard" => hoard(&consumer),
        other => panic!("no role {other}"),
    }
}

fn receive_all(consumer: &Consumer) -> u64 {
    let (mut count, mut bytes, mut last) = (0, Vec::new(), None);
    loop {
        match consumer.wait(LONG) {
            Ok(true) => {}
            Ok(false) => panic!("nothing came, and no end"),
            Err(Error::Closed { .. }) => return count,
            Err(error) => panic!("{error}"),
        }
        // Some are held side by side, and returned in another order.
        let mut held = Vec::new();
        while let Some(packet) = consumer.receive().unwrap() {
            packet.copy_to(&mut bytes).unwrap();
            let number = u64::from_le_bytes(*bytes.last_chunk().unwrap());
            assert_eq!(bytes, content(number));
            assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
            assert_eq!(packet.segment_lens().count(), if number.is_multiple_of(7) { 3 } else { 1 });
            assert!(packet.time().elapsed().unwrap() < LONG);
            last = Some(number);
            count += 1;
            held.push(packet);
            if held.len() == 5 {
                held.remove(2);
                held.clear();
            }
        }
    }
}

fn hoard(consumer: &Consumer) {
    let mut held = Vec::new();
    loop {
        while let Some(packet) = consumer.receive().unwrap() {
            held.push(packet);
            say("holds", held.len() as u64);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn everything_arrives(backing: PageSize) {
    let mut owner = Owner::new(backing);
    let mut process = owner.start("check");
    owner.send(20_000);
    assert_eq!(owner.producer.drain(LONG), 0);
    let counts = owner.producer.counts();
    assert_eq!((counts.handed, counts.returned, counts.bad_returns()), (20_000, 20_000, 0));
    assert_eq!(owner.inflight(), 0);
    let info = owner.server.consumers()[0];
    assert_eq!((info.pid as u32, info.counts), (process.child.id(), counts));
    drop(owner);
    assert_eq!(process.says("checked"), 20_000);
    assert!(process.child.wait().unwrap().success());
}

#[test]
fn everything_arrives_as_it_was_and_comes_back() {
    everything_arrives(PageSize::Size4K);
}

#[test]
fn everything_arrives_from_huge_pages() {
    everything_arrives(PageSize::Size2M);
}

#[test]
fn kill_9_gives_everything_back_and_the_next_consumer_works() {
    let mut owner = Owner::new(PageSize::Size4K);
    for round in 1..=5 {
        let mut process = owner.start("hoard");
        while owner.producer.counts().quota_denied < round {
            let packet = owner.packet();
            let _ = owner.producer.offer(packet);
            owner.producer.poll();
        }
        process.says("holds");
        assert!(owner.inflight() >= u64::from(QUOTA) - 3);
        process.kill();
        owner.until("everything is back", |owner| owner.producer.outstanding() == 0);
        assert_eq!(owner.inflight(), 0, "round {round}");
        owner.until("its place is free", |owner| owner.server.consumers().is_empty());
    }
    let counts = owner.producer.counts();
    assert_eq!((counts.returned, counts.handed), (0, counts.reclaimed));
    let mut process = owner.start("check");
    owner.send(1000);
    assert_eq!(owner.producer.drain(LONG), 0);
    assert_eq!(owner.inflight(), 0);
    drop(owner);
    assert_eq!(process.says("checked"), 1000);
}

#[test]
fn kill_9_while_packets_stream() {
    let mut owner = Owner::new(PageSize::Size4K);
    let mut lasting = owner.start("check");
    for _ in 0..5 {
        let mut process = owner.start("check");
        owner.send(3_000);
        process.kill();
        owner.send(3_000);
    }
    assert_eq!(owner.producer.drain(LONG), 0);
    assert_eq!(owner.inflight(), 0);
    let lasting_got = owner.server.consumers()[0].counts;
    assert_eq!(lasting_got.handed, lasting_got.returned);
    drop(owner);
    assert_eq!(lasting.says("checked"), lasting_got.handed);
}

#[test]
fn one_slow_consumer_hoards_its_quota_and_no_more() {
    let mut owner = Owner::new(PageSize::Size4K);
    let _slow = owner.start("hoard");
    let mut quick = owner.start("check");
    owner.send(20_000);
    let [slow, good] = owner.server.consumers()[..] else { panic!("two are attached") };
    assert!(slow.counts.held() <= u64::from(QUOTA) && slow.counts.quota_denied > 19_000, "{slow:?}");
    assert_eq!(
        good.counts.handed + good.counts.quota_denied,
        owner.sent + denied_by_both(&owner),
        "{good:?}"
    );
    assert!(good.counts.handed > 19_000, "{good:?}");
    // What the slow one holds is all that is missing.
    owner.until("the quick one returns all", |owner| {
        owner.producer.outstanding() as u64 == slow.counts.held()
    });
    let inflight = owner.inflight();
    assert!(inflight <= u64::from(QUOTA), "{inflight} fragments are out");
    assert_eq!(owner.pool.stats().quota_denied, owner.producer.counts().quota_denied);
    let handed = owner.server.consumers()[1].counts.handed;
    drop(owner);
    assert_eq!(quick.says("checked"), handed);
}

/// Packets that nobody took, and that the test offered once more.
fn denied_by_both(owner: &Owner) -> u64 {
    let [slow, quick] = owner.server.consumers()[..] else { panic!("two are attached") };
    let offers = slow.counts.handed + slow.counts.quota_denied;
    assert_eq!(offers, quick.counts.handed + quick.counts.quota_denied);
    offers - owner.sent
}

#[test]
fn a_consumer_hears_when_its_producer_is_gone() {
    let mut owner = Owner::new(PageSize::Size4K);
    let mut process = owner.start("check");
    drop(owner.server);
    assert_eq!(process.says("checked"), 0);
    assert!(process.child.wait().unwrap().success());
}
