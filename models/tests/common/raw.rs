//! A client that says what a test wants it to.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use pagewire_pci::vfio_user::transport::{Broken, Channel, Wait};
use pagewire_pci::vfio_user::wire::{self, Command, DmaMap, Header, RegionAccess};

pub(crate) struct Raw {
    pub(crate) channel: Channel,
    pub(crate) socket: UnixStream,
    next_id: u16,
}

/// What a command came to.
#[derive(Debug, PartialEq)]
pub(crate) enum Came {
    Reply(Vec<u8>),
    Errno(i32),
    /// The server hung up.
    Dropped,
}

impl Raw {
    pub(crate) fn connect(path: &Path) -> Raw {
        let socket = UnixStream::connect(path).unwrap();
        let channel = Channel::accepted(socket.try_clone().unwrap(), Duration::from_secs(5)).unwrap();
        Raw { channel, socket, next_id: 0 }
    }

    /// Connects and agrees on a version.
    pub(crate) fn greeted(path: &Path) -> Raw {
        let mut raw = Raw::connect(path);
        let body =
            [wire::Version { major: 0, minor: 0 }.encode().as_slice(), &wire::OWN_LIMITS.encode()].concat();
        let Came::Reply(reply) = raw.ask(Command::Version as u16, &body, &[]) else { panic!("no version") };
        assert_eq!(reply[..4], [0; 4], "no newer than what was offered");
        raw
    }

    pub(crate) fn header(&mut self, command: u16) -> Header {
        self.next_id += 1;
        Header { id: self.next_id, command, ..Header::default() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The server may hang up before it has taken all.
        let _ = self.socket.write_all(bytes);
    }

    /// Sends a command and waits for what becomes of it.
    pub(crate) fn ask(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Came {
        let header = self.header(command);
        match self.channel.send(header, &[body], fds) {
            Ok(()) => self.came(header.id),
            Err(_) => Came::Dropped,
        }
    }

    /// Waits for a reply.
    pub(crate) fn came(&self, id: u16) -> Came {
        let mut body = Vec::new();
        match self.channel.receive(&mut body, Wait::All(Duration::from_secs(5))) {
            Ok(Some((header, _))) => {
                assert!(header.is_reply() && header.id == id, "{header:?}");
                let failed = header.flags & wire::ERROR != 0;
                if failed { Came::Errno(header.error as i32) } else { Came::Reply(body) }
            }
            Err(Broken::Closed) => Came::Dropped,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Came {
        let access = RegionAccess { offset, region, count: data.len() as u32 };
        self.ask(Command::RegionWrite as u16, &[access.encode().as_slice(), data].concat(), &[])
    }

    pub(crate) fn read(&mut self, region: u32, offset: u64) -> u32 {
        let access = RegionAccess { offset, region, count: 4 };
        let Came::Reply(reply) = self.ask(Command::RegionRead as u16, &access.encode(), &[]) else {
            panic!("reading region {region} at {offset:#x}")
        };
        u32::from_le_bytes(reply[16..].try_into().unwrap())
    }

    pub(crate) fn bus_master(&mut self) {
        assert!(matches!(self.write(wire::CONFIG_REGION, 4, &[6, 0]), Came::Reply(_)));
    }

    pub(crate) fn map(&mut self, address: u64, size: u64, offset: u64, file: Option<&File>) -> Came {
        let map = DmaMap { argsz: 32, flags: 3, offset, address, size };
        let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        self.ask(Command::DmaMap as u16, &map.encode(), &fds)
    }
}
