//! Models and their drivers as processes that die, hang and talk nonsense: what the other side is told, how soon, and what
//! is left behind.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::Model;
use common::driver::{Driver, frame, space};

/// The socket, in a process that is a driver's.
const SOCKET: &str = "PAGEWIRE_TEST_SOCKET";
/// What a driver gives a model for an answer here.
const LIMIT: Duration = Duration::from_secs(2);
/// What a busy machine may add to anything.
const SOON: Duration = Duration::from_secs(10);

/// A driver that sends frames, in a process of its own: this program, with one test.
struct Process(Child);

impl Process {
    /// Runs the calling test there, until it says that it is ready.
    fn start(test: &str, socket: &Path) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(SOCKET, socket);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"), "the driver starts");
        Process(child)
    }

    /// In such a process: the socket.
    fn socket() -> Option<PathBuf> {
        std::env::var_os(SOCKET).map(Into::into)
    }

    fn signal(&self, signal: &str) {
        send_signal(&self.0, signal);
    }

    /// What it says by its end, which is a good one.
    fn said(mut self) -> String {
        let mut said = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn send_signal(child: &Child, signal: &str) {
    let kill = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
}

/// Open descriptors, and mappings of files in memory, of a process.
fn held(process: &str) -> (usize, usize) {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mapped = maps.lines().filter(|line| line.contains("/memfd:") || line.contains("(deleted)")).count();
    (std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count(), mapped)
}

/// The model serves somebody new, with frames both ways.
fn serves(socket: &Path) {
    let start = Instant::now();
    let mut driver = Driver::start(socket);
    for number in 0..10 {
        driver.send(&frame(number));
        driver.receive();
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn a_driver_whose_model_dies_or_hangs_is_told_soon_and_keeps_nothing_of_it() {
    const NAME: &str = "a_driver_whose_model_dies_or_hangs_is_told_soon_and_keeps_nothing_of_it";
    if let Some(socket) = Process::socket() {
        // What a process opens once is open then.
        drop(Driver::start(&socket));
        let before = held("self");
        let mut driver = Driver::start_within(&socket, LIMIT);
        let vectors = driver.function.enable_msix(4).unwrap();
        driver.send(&frame(1));
        println!("\nready");
        while driver.bar.read32(8) != u32::MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        println!("error: {}", driver.function.reset().unwrap_err());
        drop((vectors, driver));
        assert!(start.elapsed() < LIMIT, "once is enough to wait: {:?}", start.elapsed());
        assert_eq!(held("self"), before);
        return;
    }
    let mut model = Model::folder();
    let socket = model.path("a");
    for kind in ["--trapped", "--mapped"] {
        for signal in ["KILL", "STOP"] {
            model.start(&format!("--socket a --wire generate {kind}"));
            let driver = Process::start(NAME, &socket);
            let start = Instant::now();
            send_signal(model.child.as_ref().unwrap(), signal);
            let said = driver.said();
            assert!(start.elapsed() < LIMIT + SOON, "{kind} {signal}: {:?}", start.elapsed());
            let name = socket.to_str().unwrap();
            assert!(said.contains("error: ") && said.contains(name) && said.contains("closed"), "{said}");
            if signal == "STOP" {
                // It was asleep, and finds that its client is gone.
                send_signal(model.child.as_ref().unwrap(), "CONT");
                serves(&socket);
                model.end("KILL");
            } else {
                model.child.take().unwrap().wait().unwrap();
            }
            // Its socket is in nobody's way.
            assert!(socket.exists());
        }
    }
    model.start("--socket a --wire generate");
    serves(&socket);
}

#[test]
fn a_model_whose_driver_dies_serves_the_next_and_keeps_nothing_of_it() {
    const NAME: &str = "a_model_whose_driver_dies_serves_the_next_and_keeps_nothing_of_it";
    if let Some(socket) = Process::socket() {
        let mut driver = Driver::start(&socket);
        let _vectors = driver.function.enable_msix(64).unwrap();
        println!("\nready");
        // Until it is killed, or the model ends because the test did.
        while driver.bar.read32(8) != u32::MAX {
            driver.send(&frame(7));
        }
        return;
    }
    for kind in ["--trapped", "--mapped"] {
        let mut model = Model::started(&format!("--socket a --wire generate {kind} --json"));
        let socket = model.path("a");
        let process = model.child.as_ref().unwrap().id().to_string();
        serves(&socket);
        let settled = || {
            let limit = Instant::now() + SOON;
            loop {
                let before = held(&process);
                std::thread::sleep(Duration::from_millis(50));
                if held(&process) == before || Instant::now() > limit {
                    return before;
                }
            }
        };
        let before = settled();
        for round in 0..5 {
            let driver = Process::start(NAME, &socket);
            std::thread::sleep(Duration::from_millis(11 * round));
            driver.signal("KILL");
            serves(&socket);
        }
        assert_eq!(settled(), before, "descriptors and mappings");
        let totals = model.totals();
        let card = &totals["cards"][0];
        assert_eq!((&card["clients"], &card["refused_dma"]), (&11.into(), &0.into()), "{totals}");
    }
}

#[test]
fn a_driver_that_hangs_keeps_its_model_and_others_are_told() {
    const NAME: &str = "a_driver_that_hangs_keeps_its_model_and_others_are_told";
    if let Some(socket) = Process::socket() {
        let driver = Driver::start(&socket);
        println!("\nready");
        while driver.bar.read32(8) != u32::MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
        return;
    }
    let mut model = Model::started("--socket a --wire generate");
    let socket = model.path("a");
    let driver = Process::start(NAME, &socket);
    driver.signal("STOP");
    let start = Instant::now();
    let error = space().open_vfio_user_within(&socket, LIMIT).err().unwrap().to_string();
    assert!(error.contains("no answer within 2 s") && error.contains(socket.to_str().unwrap()), "{error}");
    assert!(start.elapsed() < LIMIT + SOON, "{:?}", start.elapsed());
    driver.signal("KILL");
    serves(&socket);
    let (status, printed) = model.end("TERM");
    assert!(status.success() && !socket.exists(), "{printed}");
}

#[test]
fn garbage_costs_who_sends_it_the_connection() {
    let mut model = Model::started("--socket a --wire generate --json");
    let socket = model.path("a");
    let junk: Vec<u8> =
        (0..100_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [&junk[..], &[0; 4096], &[0xff; 4096], b"GET / HTTP/1.1\r\n\r\n"] {
        let start = Instant::now();
        let mut stream = UnixStream::connect(&socket).unwrap();
        // It may hang up before it has taken all.
        let _ = stream.write_all(bytes);
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
        serves(&socket);
    }
    let totals = model.totals();
    assert_eq!(totals["cards"][0]["dropped_clients"], 4, "{totals}");

    // And the other way round: the command that a user runs, against a server that is none.
    let listener = UnixListener::bind(model.path("junk")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(&junk);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let start = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
    command.args(["l2fwd", "--port", "vfio-user:junk"]).current_dir(model.folder.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("the peer sent"), "{said}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    server.join().unwrap();
}

#[test]
fn the_capture_of_a_model_that_is_killed_has_whole_frames() {
    let mut model = Model::started("--socket a --wire pcap:,out.pcap");
    let mut driver = Driver::start(&model.path("a"));
    let path = model.path("out.pcap");
    for number in 0..50 {
        driver.send(&frame(number));
    }
    // Written soon, though nothing follows.
    let limit = Instant::now() + SOON;
    let expected: usize = 24 + (0..50).map(|number| 16 + frame(number).len()).sum::<usize>();
    while std::fs::metadata(&path).unwrap().len() < expected as u64 {
        assert!(Instant::now() < limit, "all of it is there soon");
        std::thread::sleep(Duration::from_millis(5));
    }
    model.end("KILL");
    let mut reader = pcap_file::pcap::PcapReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    for number in 0..50 {
        assert_eq!(reader.next_packet().unwrap().unwrap().data[..], frame(number));
    }
    assert!(reader.next_packet().is_none());
}
