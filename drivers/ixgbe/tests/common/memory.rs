//! A device that is nothing but memory, served by a process of its own: what an accelerator is to a network card that writes into it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pagewire_models::server::{Server, ServerOptions};
use pagewire_models::{Area, Function, Host, Region, RegionInfo};
use pagewire_pci::{AddressSpace, Bar};
use pagewire_pool::DeviceMemory;
use tempfile::TempDir;

use super::eventually;

/// Bytes of its memory.
pub(crate) const LEN: u64 = 1 << 20;
/// The BAR whose words are those of the memory, read and written by the device: each access is a message to it.
const WINDOW: u8 = 0;
/// The BAR that is the memory, all of which may be mapped.
const MEMORY: u8 = 2;

/// Offset of the command register and bytes of a configuration space (PCI Local Bus Specification 3.0, 6.1).
const COMMAND: u64 = 4;
const CONFIG: usize = 256;

struct MemoryCard {
    config: [u8; CONFIG],
}

impl MemoryCard {
    fn new() -> MemoryCard {
        let mut config = [0; CONFIG];
        // A memory controller: class 05h 80h, header type 0.
        (config[0x0a], config[0x0b]) = (0x80, 0x05);
        MemoryCard { config }
    }
}

impl Function for MemoryCard {
    fn region(&self, region: Region) -> RegionInfo {
        let (size, mappable) = match region {
            Region::Config => (CONFIG as u64, vec![]),
            Region::Bar(WINDOW) => (LEN, vec![]),
            Region::Bar(MEMORY) => (LEN, vec![Area { offset: 0, size: LEN }]),
            Region::Bar(_) => (0, vec![]),
        };
        RegionInfo { size, mappable }
    }

    fn vectors(&self) -> u16 {
        0
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8], host: &mut dyn Host) {
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = match region {
                Region::Config => self.config.get(at as usize).copied().unwrap_or(0xff),
                Region::Bar(_) => {
                    host.shared_read(Region::Bar(MEMORY), at & !3).to_le_bytes()[at as usize % 4]
                }
            };
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8], host: &mut dyn Host) {
        match (region, <[u8; 4]>::try_from(data)) {
            (Region::Bar(WINDOW), Ok(word)) => {
                host.shared_write(Region::Bar(MEMORY), offset, u32::from_le_bytes(word));
            }
            (Region::Config, _) if offset == COMMAND => self.config[COMMAND as usize] = data[0] & 7,
            _ => {}
        }
    }

    fn reset(&mut self, _: &mut dyn Host) {
        self.config[COMMAND as usize] = 0;
    }

    fn poll(&mut self, _: &mut dyn Host) -> bool {
        false
    }
}

/// Has the socket's path for the process that serves, which otherwise is one that runs the tests.
const SOCKET: &str = "MEMORY_CARD_SOCKET";

/// Serves a memory card if this is the process for that, until whoever started it closes its input, or is gone.
pub(crate) fn serve_if_asked() -> bool {
    let Some(path) = std::env::var_os(SOCKET) else { return false };
    let server = Server::bind(Path::new(&path), ServerOptions::default()).unwrap();
    let stopper = server.stopper();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stopper.stop();
    });
    server.run(&mut MemoryCard::new()).unwrap();
    true
}

/// How a device goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Killed,
    Closed,
}

/// A process that serves a memory card, until this is dropped.
pub(crate) struct Process {
    pub(crate) path: PathBuf,
    child: Child,
    _folder: TempDir,
}

impl Process {
    /// The process runs `test`, which calls [`serve_if_asked`].
    pub(crate) fn start(test: &str) -> Process {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("memory");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--quiet"])
            .env(SOCKET, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Process { path, child, _folder: folder }
    }

    /// Open the card, once it is there.
    pub(crate) fn open(&self, space: &AddressSpace) -> Memory {
        let mut opened = None;
        eventually("a memory card at its socket", || {
            opened = space.open_vfio_user(&self.path).ok();
            opened.is_some()
        });
        let function = opened.expect("just opened");
        Memory { window: function.bar(WINDOW).unwrap(), bar: function.bar(MEMORY).unwrap() }
    }

    /// The device is gone when this returns.
    pub(crate) fn end(&mut self, how: End) {
        match how {
            End::Killed => self.child.kill().unwrap(),
            End::Closed => drop(self.child.stdin.take()),
        }
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An open memory card.
#[derive(Clone)]
pub(crate) struct Memory {
    window: Bar,
    pub(crate) bar: Bar,
}

impl Memory {
    /// All of it, for a pool.
    pub(crate) fn provider(&self) -> DeviceMemory {
        DeviceMemory::bar(&self.bar, 0..LEN).unwrap()
    }

    /// What the device has in its memory.
    pub(crate) fn sees(&self, offset: u64, len: usize) -> Vec<u8> {
        let first = offset as usize / 4 * 4;
        let words = (first..offset as usize + len).step_by(4);
        let bytes: Vec<u8> = words.flat_map(|at| self.window.read32(at).to_le_bytes()).collect();
        bytes[offset as usize - first..][..len].to_vec()
    }

    /// Have the device write a word into its memory.
    pub(crate) fn write(&self, offset: u64, word: u32) {
        self.window.write32(offset as usize, word);
    }
}
