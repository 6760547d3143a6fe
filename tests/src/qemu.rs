//! The QEMU process: its command line, its sockets, its end.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use pagewire_models::ixgbe::Kind;
use pagewire_models::wire as models;
use serde_json::json;

use crate::GuestOptions;
use crate::model::Model;
use crate::peer::Peer;

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
    /// A hub inside QEMU, by its number, for QEMU's cards: what one card sends, all others on it receive.
    Hub(u8),
    /// The next card with this link, or the one before: for our models.
    Pair,
    /// Another model, which our own driver drives in this process: a [`Peer`](crate::Peer). For our models.
    Peer,
    /// A generator, which wants its frames back from any card with this link: for our models.
    Generator {
        /// Frames on their way at most.
        window: u64,
    },
}

/// Who plays a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// QEMU, by its name of the device, such as `e1000e`.
    Qemu(String),
    /// Whoever serves a function at this socket; it is plugged into nothing of ours.
    Served(PathBuf),
    /// Our model of the 82599 or of another of its family, in this process.
    Ixgbe {
        /// Which.
        kind: Kind,
        /// Its doorbells are pages that the guest maps; else each access to a register is a message.
        mapped: bool,
    },
}

/// A network card of the guest. Each is behind a root port of its own and alone in its IOMMU group.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Who plays it.
    pub device: Device,
    /// What it is plugged into.
    pub link: Link,
}

impl Nic {
    /// A card of QEMU's plugged into a [`Wire`](crate::Wire).
    pub fn wired(device: &str) -> Self {
        Self { device: Device::Qemu(device.to_owned()), link: Link::Wire }
    }

    /// A card of QEMU's plugged into the first hub.
    pub fn on_hub(device: &str) -> Self {
        Self { device: Device::Qemu(device.to_owned()), link: Link::Hub(0) }
    }

    /// A function that somebody serves at a socket.
    pub fn served(socket: &Path) -> Self {
        Self { device: Device::Served(socket.to_owned()), link: Link::Pair }
    }

    /// Our model of the 82599.
    pub fn ixgbe(mapped: bool, link: Link) -> Self {
        Self { device: Device::Ixgbe { kind: Kind::I82599, mapped }, link }
    }

    /// Our model of another card of its family, every access a message.
    pub fn ixgbe_kind(kind: Kind, link: Link) -> Self {
        Self { device: Device::Ixgbe { kind, mapped: false }, link }
    }
}

/// Runs a script of `tests/lab`, which tells its user what it does, and returns the paths it prints.
pub fn script(name: &str, args: &[&str]) -> Result<Vec<PathBuf>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab").join(name);
    let output = Command::new(&script).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| script.display().to_string())?;
    ensure!(output.status.success(), "{} failed: {}", script.display(), output.status);
    Ok(String::from_utf8(output.stdout)?.lines().map(PathBuf::from).collect())
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
        let name = match kernel {
            Kernel::Debian => "debian",
            Kernel::Own => "own",
        };
        let [qemu, kernel_file, initrd] = <[PathBuf; 3]>::try_from(script("image", &[name])?)
            .map_err(|printed| anyhow!("tests/lab/image printed {printed:?}, expected three paths"))?;
        let image = Image { qemu, kernel: kernel_file, initrd };
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
    /// The cards that are models, in their order.
    pub(crate) models: Vec<Model>,
    /// One for each card with [`Link::Peer`], in their order.
    pub(crate) peers: Vec<Peer>,
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
        let (mut models, mut peers) = (Vec::new(), Vec::new());
        let (mut cable, generated) = (None, Arc::<models::Report>::default());
        for (index, nic) in options.nics.iter().enumerate() {
            let (path, mac) = (at(&format!("wire{index}")), [0x52, 0x54, 0, 0, 0, index as u8]);
            if nic.link == Link::Wire {
                wires.push(UnixListener::bind(&path)?);
            }
            let device = match (&nic.device, nic.link) {
                (Device::Qemu(name), link @ (Link::Wire | Link::Hub(_))) => {
                    let netdev = match link {
                        Link::Hub(hub) => format!("hubport,id=net{index},hubid={hub}"),
                        _ => stream(&format!("net{index}"), &path),
                    };
                    args.extend(["-netdev".into(), netdev]);
                    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
                    format!("{name},id=nic{index},bus=port{index},netdev=net{index},mac={mac}")
                }
                (&Device::Ixgbe { kind, mapped }, link) if !matches!(link, Link::Hub(_)) => {
                    let wire: Box<dyn models::Wire> = if link == Link::Wire {
                        Box::new(models::Stream::new(UnixStream::connect(&path)?)?)
                    } else if let Link::Generator { window } = link {
                        let stream = models.len() as u8;
                        let traffic = models::Traffic { stream, window, ..models::Traffic::default() };
                        Box::new(models::Generator::new(traffic, generated.clone()))
                    } else if link == Link::Peer {
                        let (here, there) = models::pair();
                        let (path, mac) = (at(&format!("peer{index}")), [0x52, 0x54, 0, 0, 1, index as u8]);
                        peers.push(Peer::start(
                            &path,
                            Model::ixgbe(kind, &path, mac, mapped, Box::new(there))?,
                        )?);
                        Box::new(here)
                    } else if let Some(end) = cable.take() {
                        Box::new(end)
                    } else {
                        let (here, there) = models::pair();
                        cable = Some(there);
                        Box::new(here)
                    };
                    let path = at(&format!("card{index}"));
                    models.push(Model::ixgbe(kind, &path, mac, mapped, wire)?);
                    vfio_user(index, &path)
                }
                (Device::Served(path), Link::Pair) => vfio_user(index, path),
                (device, link) => bail!("{device:?} cannot be plugged into {link:?}"),
            };
            args.extend([
                "-device".into(),
                // Function-level and hot resets need a port that says which speed it runs at.
                format!("pcie-root-port,id=port{index},chassis={index},addr={:#x},x-speed=5", 0x10 + index),
                "-device".into(),
                device,
            ]);
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
                Ok(Self { child, directory, agent, monitor, terminal, wires, models, peers })
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
        // An error means that it is dead already. The models end after it.
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
    if options.nics.iter().any(|nic| !matches!(nic.device, Device::Qemu(_))) {
        // Models reach it by descriptor.
        let memory = format!("memory-backend-memfd,id=memory,share=on,size={}M", options.memory_mib);
        args.extend(["-object".into(), memory, "-machine".into(), "memory-backend=memory".into()]);
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

/// The device for a function at a socket.
fn vfio_user(index: usize, path: &Path) -> String {
    let socket = json!({ "path": path, "type": "unix" });
    let (id, bus) = (format!("nic{index}"), format!("port{index}"));
    json!({ "driver": "vfio-user-pci", "id": id, "bus": bus, "socket": socket }).to_string()
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
