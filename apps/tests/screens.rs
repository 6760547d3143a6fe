//! The live screens of `pagewire l2fwd` and `pktgen`, on a terminal made by script(1): they come, and the terminal comes back.

mod common;

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::Model;

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// A terminal of 80 by 24 with a command on it.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    out: ChildStdout,
    text: String,
}

impl Terminal {
    /// Says `pid N` first, and the terminal's settings last.
    fn run(arguments: &str) -> Terminal {
        let program = env!("CARGO_BIN_EXE_pagewire");
        let line = format!(
            "stty rows 24 cols 80; sh -c 'echo pid $$; exec {program} {arguments}'; echo status $?; stty -a"
        );
        let mut command = Command::new("script");
        command.args(["-qfc", &line, "/dev/null"]).env("TERM", "xterm");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = command.spawn().expect("script(1), of Debian's bsdutils, is there");
        let keys = script.stdin.take().expect("piped");
        let out = script.stdout.take().expect("piped");
        Terminal { script, keys, out, text: String::new() }
    }

    /// Reads until something is on it.
    fn wait_for(&mut self, what: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        let mut bytes = [0; 4096];
        while !self.text.contains(what) {
            let count = self.out.read(&mut bytes).expect("the terminal");
            assert!(count > 0 && Instant::now() < end, "no {what:?}: {}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Reads until something is to be seen: a screen that is drawn anew sends only what differs.
    fn shows(&mut self, what: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        let mut bytes = [0; 4096];
        loop {
            let mut screen = vt100::Parser::new(24, 80, 0);
            screen.process(self.text.as_bytes());
            let seen = screen.screen().contents();
            if seen.contains(what) {
                return;
            }
            let count = self.out.read(&mut bytes).expect("the terminal");
            assert!(count > 0 && Instant::now() < end, "no {what:?}:\n{seen}");
            self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn pid(&self) -> &str {
        let pid = self.text.split("pid ").nth(1).and_then(|rest| rest.split_whitespace().next());
        pid.expect("it said so")
    }

    fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([&format!("-{signal}"), self.pid()]).status();
        assert!(kill.expect("kill is there").success());
    }

    /// Reads to the end, and checks that the terminal is as it was. What came after the screen.
    fn end(mut self) -> String {
        self.wait_for("status ");
        self.wait_for("eol2");
        // Words behind a minus are off.
        self.wait_for("echoke");
        let (before, after) = self.text.split_once(ENTER).expect("a screen");
        assert!(!before.contains(LEAVE));
        let (_, after) = after.split_once(LEAVE).expect("the screen is gone");
        assert!(!after.contains(ENTER), "{after}");
        let words: Vec<&str> = after.split(|c: char| c.is_whitespace() || c == ';').collect();
        for on in ["icanon", "echo", "isig", "opost"] {
            assert!(words.contains(&on), "{on} is off: {after}");
        }
        after.to_owned()
    }
}

impl Drop for Terminal {
    /// What still runs on it is told by SIGHUP.
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn a_key_ends_it_and_totals_and_messages_follow() {
    for key in [b"q", b"\x03"] {
        let mut terminal = Terminal::run("l2fwd -T 0.1");
        terminal.wait_for("q: end");
        terminal.wait_for("82599-1");
        terminal.keys.write_all(key).expect("a key");
        let after = terminal.end();
        assert!(after.contains("link up, 10000 Mb/s") && after.contains("frames sent"), "{after}");
        assert!(after.contains("nothing lost") && after.contains("status 0"), "{after}");
    }
}

#[test]
fn its_time_or_a_signal_ends_it_too() {
    let mut terminal = Terminal::run("l2fwd --port null: --duration 0.3 -T 0.1");
    terminal.wait_for(ENTER);
    assert!(terminal.end().contains("status 0"));
    for signal in ["INT", "TERM", "HUP"] {
        let mut terminal = Terminal::run("l2fwd --port null: -T 0.1");
        terminal.wait_for("q: end");
        terminal.signal(signal);
        let after = terminal.end();
        assert!(after.contains("nothing lost") && after.contains("status 0"), "{signal}: {after}");
    }
}

#[test]
fn a_terminal_that_goes_takes_the_command_along() {
    for command in ["l2fwd --port null:", "pktgen --port ring:a --port ring:a --rate 1000pps"] {
        let mut terminal = Terminal::run(&format!("{command} -T 0.1"));
        terminal.wait_for("q: end");
        let process = format!("/proc/{}/comm", terminal.pid());
        drop(terminal);
        let end = Instant::now() + Duration::from_secs(20);
        while std::fs::read_to_string(&process).is_ok_and(|name| name.trim() == "pagewire") {
            assert!(Instant::now() < end, "{command} goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_gives_the_terminal_back() {
    let model = Model::started("--socket card --trapped -T 0");
    let mut terminal =
        Terminal::run(&format!("l2fwd --port vfio-user:{} -T 0.1", model.path("card").display()));
    terminal.wait_for("duplex");
    // From now on every register takes 5 seconds.
    let id = model.child.as_ref().expect("it runs").id().to_string();
    assert!(Command::new("kill").args(["-STOP", &id]).status().expect("kill is there").success());
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    terminal.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    terminal.signal("TERM");
    assert!(terminal.end().contains("status 143"));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn pktgens_pages_are_turned_by_keys() {
    let rings = "--port ring:a --port ring:a --rate 1000pps";
    let mut terminal = Terminal::run(&format!("pktgen {rings} -T 0.1"));
    terminal.shows("rx missed");
    // A digit, Tab, the arrow to the right, Shift and Tab, the arrow to the left: each page has something of its own.
    for (key, shown) in [
        ("2", "other run"),
        ("\t", "p99.99"),
        ("\x1b[C", "cycles/pk"),
        ("\x1b[Z", "p99.99"),
        ("\x1b[D", "of what came"),
        ("4", "empty %"),
    ] {
        terminal.keys.write_all(key.as_bytes()).expect("a key");
        terminal.shows(shown);
    }
    terminal.keys.write_all(b"q").expect("a key");
    let after = terminal.end();
    assert!(after.contains("latency min") && after.contains("status 0"), "{after}");
}

#[test]
fn what_is_no_terminal_gets_lines() {
    for arguments in ["--no-tui", "--json", "-T 0"] {
        let mut terminal = Terminal::run(&format!("l2fwd --port null: --duration 0.3 {arguments}"));
        terminal.wait_for("status 0");
        assert!(!terminal.text.contains('\x1b'), "{arguments}: {}", terminal.text);
        assert!(
            terminal.text.contains("rx_packets") || terminal.text.contains("rx packets"),
            "{}",
            terminal.text
        );
    }
}
