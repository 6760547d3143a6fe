//! The QEMU process: its command line, its sockets, its end.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::GuestOptions;

/// Which kernel the guest runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernel {
    /// Debian's own: VFIO by groups only.
    #[default]
    Debian,
    /// Built from Debian's source by `tests/lab/own-kernel`: adds VFIO device files with IOMMUFD, and VFIO without an
    /// IOMMU.
    Own,
}

/// Where the other end of a card's cable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// A [`Wire`](crate::Wire) in this process.
    Wire,
    /// A hub inside QEMU: what one card sends, all others on it receive.
    Hub,
}

/// A network card of the guest. Each is behind a root port of its own and alone in its IOMMU group.
#[derive(Clone, Debug)]
pub struct Nic {
    /// QEMU's name of the device, such as `e1000e`.
    pub model: String,
    /// What it is plugged into.
    pub link: Link,
}

impl Nic {
    /// A card plugged into a [`Wire`](crate::Wire).
    pub fn wired(model: &str) -> Self {
        Self { model: model.to_owned(), link: Link::Wire }
    }

    /// A card plugged into the hub.
    pub fn on_hub(model: &str) -> Self {
        Self { model: model.to_owned(), link: Link::Hub }
    }
}

/// What QEMU is started from; the scripts in `tests/lab` print where it is.
#[derive(Clone)]
struct Image {
    qemu: PathBuf,
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Image {
    /// Downloads and builds what is missing, once a process and kernel.
    fn prepare(kernel: Kernel) -> Result<Self> {
        static PREPARED: Mutex<Vec<(Kernel, Image)>> = Mutex::new(Vec::new());
        let mut prepared = PREPARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, image)) = prepared.iter().find(|(of, _)| *of == kernel) {
            return Ok(image.clone());
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/image");
        let name = match kernel {
            Kernel::Debian => "debian",
            Kernel::Own => "own",
        };
        let output = Command::new(script).arg(name).stdin(Stdio::null()).output().context(script)?;
        if !output.status.success() {
            bail!("{script} {name} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let printed = String::from_utf8(output.stdout)?;
        let [qemu, kernel_file, initrd, _pagewire] = printed.lines().collect::<Vec<_>>()[..] else {
            bail!("{script} printed {printed:?}, expected four paths");
        };
        let image = Image { qemu: qemu.into(), kernel: kernel_file.into(), initrd: initrd.into() };
        prepared.push((kernel, image.clone()));
        Ok(image)
    }
}

/// A running QEMU. Killed when dropped, and by the kernel when the thread that started it ends.
pub(crate) struct Qemu {
    child: Child,
    directory: tempfile::TempDir,
    /// The serial port of the guest's agent.
    pub(crate) agent: UnixStream,
    /// The QMP monitor.
    pub(crate) monitor: UnixStream,
    /// The serial port for a person's terminal, if there is to be one.
    pub(crate) terminal: Option<UnixStream>,
    /// One for each card with [`Link::Wire`], in their order, then the hub's.
    pub(crate) wires: Vec<UnixStream>,
}

impl Qemu {
    pub(crate) fn start(options: &GuestOptions) -> Result<Self> {
        let image = Image::prepare(options.kernel)?;
        let directory = tempfile::Builder::new().prefix("pagewire-lab.").tempdir()?;
        let at = |name: &str| directory.path().join(name);
        let mut args = machine(options, &image, directory.path());

        // QEMU connects to sockets that are listened on already, so nobody has to wait for one to appear.
        let agent = UnixListener::bind(at("agent"))?;
        let monitor = UnixListener::bind(at("monitor"))?;
        let terminal = options.terminal.then(|| UnixListener::bind(at("terminal"))).transpose()?;
        let mut wires = Vec::new();
        for (index, nic) in options.nics.iter().enumerate() {
            let path = at(&format!("wire{index}"));
            let netdev = match nic.link {
                Link::Wire => {
                    format!("stream,id=net{index},server=off,addr.type=unix,addr.path={}", path.display())
                }
                Link::Hub => format!("hubport,id=net{index},hubid=0"),
            };
            args.extend(["-netdev".into(), netdev]);
            args.extend([
                "-device".into(),
                // Function-level and hot resets need a port that says which speed it runs at.
                format!("pcie-root-port,id=port{index},chassis={index},addr={:#x},x-speed=5", 0x10 + index),
                "-device".into(),
                format!(
                    "{},id=nic{index},bus=port{index},netdev=net{index},mac=52:54:00:00:00:{index:02x}",
                    nic.model
                ),
            ]);
            if nic.link == Link::Wire {
                wires.push(UnixListener::bind(path)?);
            }
        }

        if options.hub_wire {
            let path = at("hub");
            args.extend(["-netdev".into(), stream("hub", &path)]);
            args.extend(["-netdev".into(), "hubport,id=hubwire,hubid=0,netdev=hub".into()]);
            wires.push(UnixListener::bind(path)?);
        }

        // Debian's newer QEMU on this machine's libraries: its own loader finds its own.
        let libraries = image.qemu.join("usr/lib/x86_64-linux-gnu");
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(image.qemu.join("usr/lib64/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(&libraries)
            .arg(image.qemu.join("usr/bin/qemu-system-x86_64"))
            .arg("-L")
            .arg(image.qemu.join("usr/share/qemu"))
            .arg("-L")
            .arg(image.qemu.join("usr/share/seabios"))
            .args(&args)
            .args(&options.qemu_arguments)
            .env("QEMU_MODULE_DIR", libraries.join("qemu"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(at("qemu.log"))?)
            .spawn()
            .context("cannot start QEMU")?;

        let mut connect = || -> Result<_> {
            let wires = wires.iter().map(|wire| accept(wire, &mut child)).collect::<Result<_>>()?;
            let agent = accept(&agent, &mut child)?;
            let monitor = accept(&monitor, &mut child)?;
            let terminal = terminal.as_ref().map(|terminal| accept(terminal, &mut child)).transpose()?;
            Ok((agent, monitor, terminal, wires))
        };
        match connect() {
            Ok((agent, monitor, terminal, wires)) => {
                Ok(Self { child, directory, agent, monitor, terminal, wires })
            }
            Err(error) => {
                // Already dead, or of no use.
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(at("qemu.log")).unwrap_or_default();
                Err(error.context(format!("QEMU said: {log}")))
            }
        }
    }

    /// What QEMU itself wrote: errors, warnings, traces.
    pub(crate) fn log(&self) -> String {
        read_lossy(&self.directory.path().join("qemu.log"))
    }

    /// What the guest wrote to its console.
    pub(crate) fn console(&self) -> String {
        read_lossy(&self.directory.path().join("console.log"))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // An error means that it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The machine without its cards.
fn machine(options: &GuestOptions, image: &Image, directory: &Path) -> Vec<String> {
    let socket = |id: &str| format!("socket,id={id},server=off,path={}", directory.join(id).display());
    let mut append = String::from(
        "console=ttyS0 panic=-1 intel_iommu=on quiet mitigations=off no_timer_check tsc=reliable \
         cryptomgr.notests random.trust_cpu=1 nowatchdog audit=0 rcupdate.rcu_expedited=1 nokaslr",
    );
    append += &format!(" hugepages={}", options.hugepages);
    for argument in &options.kernel_arguments {
        append += &format!(" {argument}");
    }
    let mut args: Vec<String> = [
        "-nodefaults -no-user-config -display none -no-reboot -machine q35 -cpu max,la57=off",
        "-device intel-iommu,intremap=on,caching-mode=on -trace vtd_dmar_fault",
    ]
    .join(" ")
    .split(' ')
    .map(str::to_owned)
    .collect();
    // Counting: time is instructions, the random numbers and the date are always the same ones.
    let accelerator = if options.count_instructions {
        "tcg,thread=single -icount shift=4,sleep=off -rtc base=2026-01-01,clock=vm -seed 42"
    } else {
        "tcg,thread=multi"
    };
    args.extend(format!("-accel {accelerator}").split(' ').map(str::to_owned));
    for (option, value) in [
        ("-smp", options.processors.to_string()),
        ("-m", options.memory_mib.to_string()),
        ("-kernel", image.kernel.display().to_string()),
        ("-initrd", image.initrd.display().to_string()),
        ("-append", append),
        ("-serial", format!("file:{}", directory.join("console.log").display())),
        ("-chardev", socket("agent")),
        ("-serial", "chardev:agent".into()),
        ("-chardev", socket("monitor")),
        ("-object", "monitor-qmp,id=qmp,chardev=monitor".into()),
    ] {
        args.extend([option.to_owned(), value]);
    }
    if options.terminal {
        args.extend(["-chardev".into(), socket("terminal"), "-serial".into(), "chardev:terminal".into()]);
    }
    if let Some(folder) = &options.folder {
        let fs = format!("local,id=folder,path={},security_model=none,readonly=on", folder.display());
        args.extend(["-fsdev".into(), fs]);
        args.extend(["-device".into(), "virtio-9p-pci,fsdev=folder,mount_tag=folder".into()]);
    }
    args
}

fn stream(id: &str, path: &Path) -> String {
    format!("stream,id={id},server=off,addr.type=unix,addr.path={}", path.display())
}

/// Takes QEMU's connection to a socket; QEMU opens them all before the guest runs.
fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    let deadline = Instant::now() + Duration::from_secs(30);
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            bail!("QEMU ended at start: {status}");
        }
        if Instant::now() > deadline {
            bail!("QEMU did not connect to its sockets within 30 s");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read_lossy(path: &Path) -> String {
    // A file that is not there yet is empty.
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
