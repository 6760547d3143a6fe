//! Runs of `pagewire capture`, and what they capture.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pcap_file::pcap::PcapReader;
use serde_json::Value;

use super::Model;
use super::frames::write;

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A run of pagewire in a model's folder, killed if a test forgets it.
pub(crate) struct Run(pub(crate) Child);

impl Run {
    pub(crate) fn start(model: &Model, arguments: &str) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
        command.args(arguments.split_whitespace()).current_dir(model.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Run(command.spawn().expect("it starts"))
    }

    /// Waits until it says something that contains `word` on standard error.
    pub(crate) fn says(&mut self, word: &str) {
        let mut lines = BufReader::new(self.0.stderr.as_mut().expect("piped"));
        let mut said = String::new();
        while !said.contains(word) {
            assert_ne!(lines.read_line(&mut said).expect("text"), 0, "{word} is never said: {said}");
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
    }

    /// Waits for its end: whether it was a success, what it printed last as JSON, what it said.
    pub(crate) fn end(mut self) -> (bool, Value, String) {
        let (mut out, mut said) = (String::new(), String::new());
        self.0.stdout.take().expect("piped").read_to_string(&mut out).expect("its totals");
        self.0.stderr.take().expect("piped").read_to_string(&mut said).expect("what it said");
        let mut reports: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let last = reports.pop().unwrap_or_default();
        assert!(reports.iter().all(|report| report["final"] == false), "{out}");
        (self.0.wait().expect("it ends").success(), last, said)
    }

    /// The process that it started, once there is one.
    pub(crate) fn child(&self) -> u32 {
        let path = format!("/proc/{0}/task/{0}/children", self.0.id());
        until("another process", || {
            std::fs::read_to_string(&path).ok()?.split_whitespace().next()?.parse().ok()
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {} s", LONG.as_secs());
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

/// A model that sends these frames to whoever drives it.
pub(crate) fn model(sent: &[Vec<u8>]) -> Model {
    let mut model = Model::folder();
    write(&model.path("in.pcap"), sent);
    model.start("--socket card --wire pcap:in.pcap --json -T 0");
    model
}

/// Frames that are in a file by now.
pub(crate) fn read_some(path: &Path) -> usize {
    let Ok(file) = File::open(path) else { return 0 };
    let Ok(mut reader) = PcapReader::new(BufReader::new(file)) else { return 0 };
    let mut count = 0;
    while let Some(Ok(_)) = reader.next_packet() {
        count += 1;
    }
    count
}

/// The other end of a card's stream wire.
pub(crate) struct Wire(UnixStream);

impl Wire {
    /// What the card sends is taken, so that its ring does not fill.
    pub(crate) fn connect(path: &Path) -> Wire {
        let socket = UnixStream::connect(path).expect("the card's wire");
        let mut sent = socket.try_clone().expect("a second descriptor");
        std::thread::spawn(move || std::io::copy(&mut sent, &mut std::io::sink()));
        Wire(socket)
    }

    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.0.write_all(&(frame.len() as u32).to_be_bytes()).expect("it takes them");
            self.0.write_all(frame).expect("it takes them");
        }
    }
}
