//! Processes that serve statistics, in a folder of a test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A user's runtime directory, in which nobody else's processes are. One at a time: what forwards takes all of a core.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

/// A run of pagewire that serves statistics, killed if a test forgets it.
pub(crate) struct Run {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            _turn: TURN.lock().unwrap_or_else(PoisonError::into_inner),
            folder: TempDir::new().expect("a folder"),
        }
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
        command.args(arguments.split_whitespace()).env("XDG_RUNTIME_DIR", self.folder.path());
        command.current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn socket(&self, command: &str, pid: u32) -> PathBuf {
        self.folder.path().join("pagewire").join(format!("{command}-{pid}.sock"))
    }

    /// Starts a run and waits until it says what it says when all is set up.
    pub(crate) fn start(&self, arguments: &str, says: &str) -> Run {
        self.start_saying(arguments, says).0
    }

    /// The same, with what it said until then.
    pub(crate) fn start_saying(&self, arguments: &str, says: &str) -> (Run, String) {
        let mut child = self.command(arguments).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        while !said.contains(says) {
            assert_ne!(lines.read_line(&mut said).expect("text"), 0, "{says} is never said: {said}");
        }
        // What it says later is not to stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let command = arguments.split_whitespace().next().expect("a command");
        let socket = self.socket(command, child.id());
        (Run { child, socket }, said)
    }

    pub(crate) fn l2fwd(&self, arguments: &str) -> Run {
        self.start(&format!("l2fwd -T 0 --json --duration 600 {arguments}"), "port 1 (")
    }

    pub(crate) fn output(&self, arguments: &str) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    pub(crate) fn text(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// What the processes say, as JSON.
    pub(crate) fn processes(&self, arguments: &str) -> Vec<Value> {
        let all: Value = serde_json::from_str(&self.text(arguments)).expect("JSON");
        assert_eq!(all["version"], 1);
        all["processes"].as_array().expect("a list").clone()
    }
}

impl Run {
    pub(crate) fn id(&self) -> String {
        self.socket.file_stem().expect("a name").to_str().expect("text").to_owned()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
    }

    /// Ends it, and gives the last line that it printed.
    pub(crate) fn end(mut self) -> Value {
        self.signal("INT");
        let mut out = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut out).expect("its totals");
        assert!(self.child.wait().expect("it ends").success(), "{out}");
        assert!(!self.socket.exists(), "its socket is left");
        serde_json::from_str(out.lines().last().expect("totals")).expect("JSON")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a socket answers.
pub(crate) fn ask(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    stream.set_read_timeout(Some(LONG)).expect("a time limit");
    // Who is not listened to any more has an answer already.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    // A request that was not read to its end resets the connection, behind the answer.
    let _ = stream.read_to_end(&mut answer);
    answer
}

pub(crate) fn get(socket: &Path, what: &str) -> Value {
    let answer = ask(socket, format!("{{\"get\":\"{what}\"}}\n").as_bytes());
    serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

pub(crate) fn count(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}
