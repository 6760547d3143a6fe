//! A guest machine and what runs in it.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::model::{Model, take_warnings};
use crate::peer::Peer;
use crate::qemu::{Kernel, Nic, Qemu};
use crate::wire::Wire;

/// Ends each request to the guest's agent and the output of each answer; see `tests/lab/init`.
const SEPARATOR: u8 = 0x1e;

/// How long a command may take unless said otherwise: many times what the slowest needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tests of a process take turns: a guest keeps two processors busy, and that is all there may be.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct GuestOptions {
    /// Its cards; card `n` is at [`Guest::address`]`(n)`.
    pub nics: Vec<Nic>,
    /// Plug a [`Wire`] into the first hub too; it comes after the cards' own wires.
    pub hub_wire: bool,
    /// The kernel it runs.
    pub kernel: Kernel,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Huge pages of 2 MiB that the kernel sets aside at boot.
    pub hugepages: u32,
    /// Processors.
    pub processors: u32,
    /// Make time a count of instructions: the TSC runs at 1 GHz and advances by 2⁴ an instruction, whatever the load of
    /// the host. Much slower.
    pub count_instructions: bool,
    /// A folder of the host that the guest may mount, read-only: `mount -t 9p folder /mnt`.
    pub folder: Option<PathBuf>,
    /// Give the guest a third serial port, for [`Guest::take_terminal`].
    pub terminal: bool,
    /// Further arguments of the kernel.
    pub kernel_arguments: Vec<String>,
    /// Further arguments of QEMU.
    pub qemu_arguments: Vec<String>,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self {
            nics: Vec::new(),
            hub_wire: false,
            kernel: Kernel::Debian,
            memory_mib: 1024,
            hugepages: 128,
            processors: 2,
            count_instructions: false,
            folder: None,
            terminal: false,
            kernel_arguments: Vec::new(),
            qemu_arguments: Vec::new(),
        }
    }
}

/// What a command in the guest came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Exit status, as a shell counts it: 128 + the signal if one ended it.
    pub status: i32,
    /// What it printed, errors included.
    pub text: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit status {}, output:\n{}", self.status, self.text)
    }
}

/// A command that runs in the guest's background.
#[derive(Clone, Debug)]
pub struct Job {
    number: u32,
    command: String,
}

impl Job {
    /// The guest's file that holds the number of the job's process group.
    pub fn pid_file(&self) -> String {
        format!("/run/{}.pid", self.number)
    }
}

/// A running guest, gone when dropped.
///
/// It belongs to the thread that booted it: QEMU is killed when that thread ends.
pub struct Guest {
    /// The host's ends of the cards' cables, in the order of the cards that have one, then the hub's.
    pub wires: Vec<Wire>,
    /// Our own driver's ports at the other ends of cards' cables, in the order of the cards that have one.
    pub peers: Vec<Peer>,
    agent: BufReader<UnixStream>,
    monitor: BufReader<UnixStream>,
    jobs: u32,
    qemu: Qemu,
    // Released after QEMU is gone.
    _turn: MutexGuard<'static, ()>,
}

impl Guest {
    /// Boots a guest and returns when it takes commands.
    pub fn boot(options: GuestOptions) -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        take_warnings();
        let mut qemu = Qemu::start(&options)?;
        let wires = std::mem::take(&mut qemu.wires).into_iter().map(Wire::new).collect::<Result<_>>()?;
        let peers = std::mem::take(&mut qemu.peers);
        let agent = BufReader::new(qemu.agent.try_clone()?);
        let monitor = BufReader::new(qemu.monitor.try_clone()?);
        let mut guest = Self { wires, peers, agent, monitor, jobs: 0, qemu, _turn: turn };
        guest.boot_rest().map_err(|error| error.context(guest.state("the guest did not start")))?;
        Ok(guest)
    }

    fn boot_rest(&mut self) -> Result<()> {
        self.monitor.get_ref().set_read_timeout(Some(PATIENCE))?;
        self.monitor.read_line(&mut String::new()).context("QEMU's monitor does not greet")?;
        self.monitor("qmp_capabilities", json!({}))?;
        self.read_until(SEPARATOR, Instant::now() + 2 * PATIENCE).context("no sign of its agent")?;
        Ok(())
    }

    /// The PCI address of a card.
    pub fn address(nic: usize) -> String {
        format!("0000:{:02x}:00.0", nic + 1)
    }

    /// Runs a shell command and waits up to a minute for its end.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_within(command, PATIENCE)
    }

    /// Runs a shell command and waits for its end; an error means that it did not end in time.
    pub fn run_within(&mut self, command: &str, patience: Duration) -> Result<Output> {
        self.ask(command, patience)
            .map_err(|error| error.context(self.state(&format!("in the guest, `{command}` did not end"))))
    }

    /// Runs a shell command that must succeed and returns what it printed.
    pub fn check(&mut self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        ensure!(output.status == 0, self.state(&format!("in the guest, `{command}`: {output}")));
        Ok(output.text)
    }

    /// Waits until a shell command succeeds, asking about 20 times a second.
    pub fn until(&mut self, condition: &str, patience: Duration) -> Result<()> {
        let loops = patience.as_millis() / 50;
        let poll = format!(
            "n=0; until {condition}; do n=$((n+1)); [ $n -lt {loops} ] || exit 99; usleep 50000; done >/dev/null 2>&1"
        );
        let output = self.run_within(&poll, 4 * patience + PATIENCE)?;
        ensure!(
            output.status == 0,
            self.state(&format!("in the guest, `{condition}` was not so within {patience:?}: {output}"))
        );
        Ok(())
    }

    /// Loads modules of the kernel's, those that others need before them.
    pub fn load(&mut self, modules: &[&str]) -> Result<()> {
        let modules = modules.join(" ");
        self.check(&format!("for module in {modules}; do insmod /lib/modules/$module.ko || exit; done"))
            .map(drop)
    }

    /// Starts a shell command in the background; prefix a single program with `exec`, so that signals reach it alone.
    pub fn start(&mut self, command: &str) -> Result<Job> {
        self.jobs += 1;
        let job = Job { number: self.jobs, command: command.to_owned() };
        // In a session of its own, so that a signal to the job leaves somebody to note its status.
        let n = job.number;
        self.check(&format!(
            "printf '%s\\n' 'echo $$ >/run/{n}.pid' {} >/run/{n}
             {{ setsid sh /run/{n} >/run/{n}.out 2>&1; echo $? >/run/{n}.status; }} </dev/null >/dev/null 2>&1 &
             until [ -s /run/{n}.pid ]; do usleep 1000; done",
            quote(command)
        ))?;
        Ok(job)
    }

    /// What a job has printed so far.
    pub fn output_of(&mut self, job: &Job) -> Result<String> {
        self.check(&format!("cat /run/{}.out", job.number))
    }

    /// Waits until a job has printed a line that matches a `grep` pattern.
    pub fn wait_for(&mut self, job: &Job, pattern: &str, patience: Duration) -> Result<()> {
        let Job { number: n, .. } = job;
        let found = format!("grep -q '{pattern}' /run/{n}.out");
        let met = self
            .until(&format!("[ -e /run/{n}.status ] || {found}"), patience)
            .and_then(|()| self.check(&found));
        if let Err(error) = met {
            let output = self.output_of(job)?;
            bail!("`{}` did not print '{pattern}' but:\n{output}\n{error:#}", job.command);
        }
        Ok(())
    }

    /// Sends a signal, such as `INT`, to a job and its children.
    pub fn signal(&mut self, job: &Job, signal: &str) -> Result<()> {
        self.check(&format!("kill -{signal} -$(cat {})", job.pid_file())).map(drop)
    }

    /// A job's exit status, if it has ended.
    pub fn status_of(&mut self, job: &Job) -> Result<Option<i32>> {
        let status = self.run(&format!("cat /run/{}.status", job.number))?;
        // There is no such file yet, or its line is being written.
        Ok(status.text.strip_suffix('\n').and_then(|line| line.parse().ok()))
    }

    /// Waits for a job's end.
    pub fn wait(&mut self, job: &Job, patience: Duration) -> Result<Output> {
        let n = job.number;
        if let Err(error) = self.until(&format!("[ -s /run/{n}.status ]"), patience) {
            let output = self.output_of(job)?;
            bail!("`{}` did not end within {patience:?}; it printed:\n{output}\n{error:#}", job.command);
        }
        self.run(&format!("cat /run/{n}.out; exit $(cat /run/{n}.status)"))
    }

    /// What the guest wrote to its console: the kernel's messages of level warning and above.
    pub fn console(&self) -> String {
        self.qemu.console()
    }

    /// Every access to memory that the IOMMU has refused, one line each. The guest's kernel reports only the first few.
    pub fn iommu_faults(&self) -> Vec<String> {
        self.qemu.log().lines().filter(|line| line.contains("vtd_dmar_fault")).map(str::to_owned).collect()
    }

    /// The cards that are models of ours, in their order.
    pub fn models(&self) -> &[Model] {
        &self.qemu.models
    }

    /// An error if a driver has made one of the models do what its card cannot or must not do, or anything was logged as a
    /// warning since the last call.
    pub fn check_models(&mut self) -> Result<()> {
        let warnings = take_warnings();
        for (number, model) in self.models().iter().enumerate() {
            model.unharmed().with_context(|| format!("model {number} says {warnings:#?}"))?;
        }
        ensure!(warnings.is_empty(), "the models say {warnings:#?}");
        Ok(())
    }

    /// Plugs the cable of one of QEMU's cards in or pulls it.
    pub fn set_link(&mut self, nic: usize, up: bool) -> Result<()> {
        self.monitor("set_link", json!({ "name": format!("nic{nic}"), "up": up })).map(drop)
    }

    /// Plugs the hub's wire in or pulls it: pulled, its end need not be read.
    pub fn plug_hub_wire(&mut self, plugged: bool) -> Result<()> {
        self.monitor("set_link", json!({ "name": "hubwire", "up": plugged })).map(drop)
    }

    /// Runs a QMP command.
    pub fn monitor(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.monitor.get_mut(), "{request}")?;
        loop {
            let mut line = String::new();
            let n = self.monitor.read_line(&mut line).with_context(|| format!("no answer to {request}"))?;
            ensure!(n > 0, self.state("QEMU has ended"));
            let mut answer: Value = serde_json::from_str(&line)?;
            if answer.get("error").is_some() {
                bail!("QEMU refuses {request}: {line}");
            }
            // Anything else is an event.
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// The host's end of the guest's third serial port, once.
    pub fn take_terminal(&mut self) -> Option<UnixStream> {
        self.qemu.terminal.take()
    }

    fn ask(&mut self, command: &str, patience: Duration) -> Result<Output> {
        ensure!(!command.as_bytes().contains(&SEPARATOR), "the command contains the separator 0x1e");
        let deadline = Instant::now() + patience;
        self.agent.get_mut().write_all(&[command.as_bytes(), &[SEPARATOR]].concat())?;
        let text = String::from_utf8_lossy(&self.read_until(SEPARATOR, deadline)?).into_owned();
        let status = String::from_utf8_lossy(&self.read_until(b'\n', deadline)?).into_owned();
        let status = status.parse().with_context(|| format!("exit status {status:?} after {text:?}"))?;
        Ok(Output { status, text })
    }

    fn read_until(&mut self, end: u8, deadline: Instant) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("time is up; so far it printed: {}", String::from_utf8_lossy(&bytes));
            }
            self.agent.get_ref().set_read_timeout(Some(left))?;
            let mut byte = [0];
            match self.agent.read(&mut byte) {
                Ok(0) => bail!("QEMU has ended; before that: {}", String::from_utf8_lossy(&bytes)),
                Ok(_) if byte[0] == end => return Ok(bytes),
                Ok(_) => bytes.push(byte[0]),
                // The loop's head says so.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// For a failure's message: what happened, and the ends of the console and of QEMU's own log.
    fn state(&self, what: &str) -> String {
        format!("{what}\n--- console:\n{}\n--- QEMU:\n{}\n---", tail(&self.console()), tail(&self.qemu.log()))
    }
}

/// A word as the guest's shell reads it back.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
