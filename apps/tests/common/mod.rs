//! What tests of several commands share.

// Each of them uses its part of it.
#![allow(dead_code)]

pub(crate) mod capture;
pub(crate) mod driver;
pub(crate) mod frames;
pub(crate) mod place;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The program, copied into a folder that is opened to every user.
pub(crate) fn for_everybody(folder: &Path) -> PathBuf {
    let program = folder.join("pagewire");
    // Made by another process: one that this one forks meanwhile would hold it open for writing, and it could not be run.
    let mut install = Command::new("install");
    install.args(["-m", "755", env!("CARGO_BIN_EXE_pagewire")]).arg(&program);
    assert!(install.status().expect("install, of the package coreutils").success());
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).expect("it is ours");
    program
}

/// `pagewire model` in a folder of its own.
pub(crate) struct Model {
    /// Of which card: by default the 82599.
    pub(crate) card: &'static str,
    pub(crate) folder: TempDir,
    pub(crate) child: Option<Child>,
}

impl Model {
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pagewire"));
        command.args(["model", self.card]).args(arguments.split_whitespace()).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// One that is not started yet.
    pub(crate) fn folder() -> Model {
        Model { card: "82599", folder: TempDir::new().unwrap(), child: None }
    }

    /// Starts it, and waits until it serves: it says so.
    pub(crate) fn start(&mut self, arguments: &str) -> String {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.as_mut().unwrap());
        let mut said = String::new();
        while !said.contains("vfio-user-pci") {
            assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{arguments}: {said}");
        }
        self.child = Some(child);
        said
    }

    pub(crate) fn started(arguments: &str) -> Model {
        let mut model = Model::folder();
        model.start(arguments);
        model
    }

    /// All of a run that ends by itself.
    pub(crate) fn output(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Why it does not start.
    pub(crate) fn refusal(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments}: {said}");
        said
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends a signal and waits for the end: how it ended, and what it printed.
    pub(crate) fn end(&mut self, signal: &str) -> (ExitStatus, String) {
        let mut child = self.child.take().unwrap();
        let kill = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let start = Instant::now();
        let mut printed = String::new();
        child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        let status = child.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "{signal}: {:?}", start.elapsed());
        (status, printed)
    }

    /// The totals of one that prints JSON.
    pub(crate) fn totals(&mut self) -> Value {
        let (status, printed) = self.end("TERM");
        assert!(status.success(), "{printed}");
        let last: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        assert_eq!(last["final"], true);
        last
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
