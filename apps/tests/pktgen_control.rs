//! `pagewire pktgen --control`: commands to a running generator, and clients that mean no good.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a busy machine may take for anything.
const SOON: Duration = Duration::from_secs(20);

/// A generator, and its socket.
struct Generator {
    child: Child,
    socket: PathBuf,
    _folder: TempDir,
}

/// A client that asks one thing after the other.
struct Client {
    socket: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Generator {
    fn start(options: &str) -> Generator {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("control");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
        command
            .args("pktgen --port ring:a --port ring:a --json -T 0 --control".split_whitespace())
            .arg(&socket);
        command.args(options.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the program starts");
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < SOON, "no socket");
            std::thread::sleep(Duration::from_millis(5));
        }
        Generator { child, socket, _folder: folder }
    }

    fn connect(&self) -> UnixStream {
        let start = Instant::now();
        // Between the socket and somebody who listens there is a moment.
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(socket) => return socket,
                Err(error) => assert!(start.elapsed() < SOON, "{error}"),
            }
        }
    }

    fn client(&self) -> Client {
        let socket = self.connect();
        socket.set_read_timeout(Some(SOON)).expect("it is a socket");
        Client { answers: BufReader::new(socket.try_clone().expect("a descriptor")), socket }
    }

    /// The last report of a run that ends well.
    fn last(self) -> Value {
        let Generator { mut child, _folder, .. } = self;
        let start = Instant::now();
        while child.try_wait().expect("it is a child").is_none() {
            if start.elapsed() > SOON {
                child.kill().expect("it is a child");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        serde_json::from_str(text.lines().last().expect("a report")).expect("an object a line")
    }
}

impl Client {
    fn ask(&mut self, request: &str) -> Value {
        self.socket.write_all(format!("{request}\n").as_bytes()).expect("it listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("an answer");
        let answer: Value =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert_eq!(answer["version"], 1);
        answer
    }

    fn done(&mut self, request: &str) {
        assert_eq!(self.ask(request), json!({ "version": 1, "done": true }), "{request}");
    }

    fn refused(&mut self, request: &str, expected: &str) {
        let answer = self.ask(request);
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{request}: {answer}"));
        assert!(error.contains(expected), "{request}: {error}");
    }

    fn stream(&mut self, number: usize) -> Value {
        self.ask("{\"command\":\"statistics\"}")["streams"][number].clone()
    }

    fn sent(&mut self) -> u64 {
        self.stream(0)["sent"].as_u64().expect("a count")
    }

    /// Waits until more than so many are sent.
    fn await_more(&mut self, than: u64) -> u64 {
        let start = Instant::now();
        loop {
            let sent = self.sent();
            if sent > than {
                return sent;
            }
            assert!(start.elapsed() < SOON, "{sent} sent");
        }
    }
}

#[test]
fn a_generator_starts_stops_and_changes_its_rate_when_told_to() {
    let generator = Generator::start("--rate 10kpps --stopped");
    let mode = std::fs::metadata(&generator.socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = generator.client();
    assert_eq!((client.sent(), &client.stream(0)["stopped"]), (0, &Value::Bool(true)));
    client.done("{\"command\":\"start\"}");
    client.await_more(0);
    assert!(client.stream(0)["stopped"].is_null());
    client.done("{\"command\":\"stop\",\"stream\":\"stream0\"}");
    // Once it has looked, nothing more is sent.
    let start = Instant::now();
    let mut before = client.sent();
    let stopped = loop {
        std::thread::sleep(Duration::from_millis(50));
        match client.sent() {
            now if now == before => break now,
            now => before = now,
        }
        assert!(start.elapsed() < SOON, "it goes on");
    };
    client.done("{\"command\":\"set-rate\",\"rate\":\"123kpps\"}");
    assert_eq!(client.stream(0)["asked_pps"].as_f64().map(f64::round), Some(123e3));
    assert_eq!(client.sent(), stopped);
    client.done("{\"command\":\"start\"}");
    client.await_more(stopped + 1000);
    client.refused("{\"command\":\"set-rate\",\"rate\":\"20Mpps\"}", "at most 14880952 packets/s");
    client.refused(
        "{\"command\":\"stop\",\"stream\":\"other\"}",
        "there is no stream \"other\"; there are stream0",
    );
    client.refused("{\"command\":\"explode\"}", "unknown variant `explode`");
    client.refused("no JSON", "a request that is not");
    // Several lines at once are answered in turn.
    client
        .socket
        .write_all(b"{\"command\":\"statistics\"}\n{\"command\":\"set-rate\",\"rate\":\"max\"}\n")
        .expect("it listens");
    let mut lines = [String::new(), String::new()];
    for line in &mut lines {
        client.answers.read_line(line).expect("an answer");
    }
    assert!(lines[0].contains("streams") && lines[1].contains("\"done\":true"), "{lines:?}");
    let before = client.sent();
    client.await_more(before + 1000);
    client.done("{\"command\":\"quit\"}");
    let last = generator.last();
    let stream = &last["streams"][0];
    assert_eq!((&last["final"], &stream["lost"]), (&Value::Bool(true), &json!(0)), "{last:#}");
    assert_eq!(
        (&stream["reordered"], &stream["corrupt"], &stream["sent"]),
        (&json!(0), &json!(0), &stream["received"])
    );
}

#[test]
fn clients_that_mean_no_good_change_nothing() {
    let generator = Generator::start("--rate 20kpps");
    // Some say nothing, some ask and never read, some talk without end, some say half of it and leave.
    let mut crowd = Vec::new();
    for number in 0..100 {
        let mut socket = generator.connect();
        socket.set_write_timeout(Some(Duration::from_millis(20))).expect("it is a socket");
        let request: &[u8] = match number % 5 {
            0 => b"",
            1 => &b"{\"command\":\"statistics\"}\n".repeat(2000),
            2 => &[b'x'; 100_000],
            3 => b"\0\xff\n[[[[[[\n\n\n",
            _ => b"{\"command\":",
        };
        // It may be sent away before it has said all.
        let _ = socket.write_all(request);
        crowd.push(socket);
    }
    drop(crowd.drain(50..));
    // Among them somebody with a question waits for a place, and gets an answer.
    let mut client = generator.client();
    client.await_more(1000);
    // Who talks without end is told so, and sent away.
    let mut huge = generator.connect();
    huge.set_read_timeout(Some(SOON)).expect("it is a socket");
    huge.write_all(&[b'x'; 1024]).expect("it listens");
    let mut answer = String::new();
    huge.read_to_string(&mut answer).expect("an answer, and the end");
    assert!(answer.contains("a request of more than 1024 bytes"), "{answer}");
    drop(client);
    // Anew: who has rested meanwhile may have had to make room.
    let mut client = generator.client();
    client.done("{\"command\":\"quit\"}");
    drop(crowd);
    let last = generator.last();
    let stream = &last["streams"][0];
    assert_eq!((&stream["lost"], &stream["sent"]), (&json!(0), &stream["received"]), "{last:#}");
}

#[test]
fn a_socket_that_cannot_be_made_is_an_error_before_anything_else() {
    let generator = Generator::start("--rate 1kpps");
    let mut client = generator.client();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
    command.args("pktgen --port null: --control".split_whitespace()).arg(&generator.socket);
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("--control") && said.contains("of a server that runs"),
        "{said}"
    );
    client.done("{\"command\":\"quit\"}");
    generator.last();
}
