//! The machine as the function sees it: its client's memory and interrupts.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use pagewire_pci::vfio_user::transport::{Broken, Channel, Wait};
use pagewire_pci::vfio_user::wire::{self, Command, DmaAccess, Header, Limits, Malformed};

use super::dma::{Backing, Table};
use super::interrupts::Interrupts;
use super::shared::Shared;
use crate::{DmaError, Function, Host, Region};

/// What a server has counted since it was made.
#[derive(Debug, Default)]
pub struct Counters {
    /// Clients that connected.
    pub clients: AtomicU64,
    /// Clients whose connection was dropped because of what they sent, or did not take.
    pub dropped: AtomicU64,
    /// DMA that was refused.
    pub refused_dma: AtomicU64,
    /// Interrupts that the function raised.
    pub interrupts: AtomicU64,
}

/// A command that came while an answer was awaited.
pub(crate) type Received = (Header, Vec<u8>, Vec<OwnedFd>);

/// Refusals of DMA that are logged as warnings, a client; the others are counted and logged for debugging.
const LOUD: u64 = 16;
/// Commands that a client may send while it owes an answer, and the bytes of them.
const MOST_QUEUED: usize = 64;
const MOST_QUEUED_BYTES: usize = 4 * wire::MAX_MESSAGE;

pub(crate) struct Machine {
    pub(crate) table: Table,
    pub(crate) interrupts: Interrupts,
    pub(crate) shared: Shared,
    pub(crate) channel: Channel,
    /// What the client takes in one message.
    pub(crate) limits: Limits,
    /// Commands that came while an answer was awaited, to be carried out next.
    pub(crate) queued: VecDeque<Received>,
    /// What went wrong with the connection during a DMA.
    pub(crate) broken: Option<Broken>,
    counters: Arc<Counters>,
    /// The function's command register allows it to read and write memory.
    bus_master: bool,
    refused: u64,
    next_id: u16,
    timeout: Duration,
}

impl Machine {
    pub(crate) fn new(
        channel: Channel,
        interrupts: Interrupts,
        shared: Shared,
        counters: Arc<Counters>,
        timeout: Duration,
    ) -> Machine {
        Machine {
            table: Table::default(),
            interrupts,
            shared,
            channel,
            limits: wire::OWN_LIMITS,
            queued: VecDeque::new(),
            broken: None,
            counters,
            bus_master: false,
            refused: 0,
            next_id: 0,
            timeout,
        }
    }

    /// Looks at the command register: called after everything that could have changed it.
    pub(crate) fn look_at_command(&mut self, function: &mut dyn Function) {
        let mut command = [0; 2];
        function.read(Region::Config, 4, &mut command, self);
        self.bus_master = u16::from_le_bytes(command) & 1 << 2 != 0;
    }

    /// Takes everything of the client's away: from here on the function reaches nothing.
    pub(crate) fn unplug(&mut self) {
        self.channel.shutdown();
        self.bus_master = false;
        self.table.clear();
        self.interrupts.clear();
    }

    /// The one place where it is decided whether the function may do a DMA.
    fn allow(&mut self, iova: u64, len: usize, write: bool) -> Result<(), DmaError> {
        if self.bus_master && self.table.covers(iova, len, write) {
            return Ok(());
        }
        Err(self.refuse(iova, len, write))
    }

    #[cold]
    fn refuse(&mut self, iova: u64, len: usize, write: bool) -> DmaError {
        let error = DmaError { iova, len, write };
        self.counters.refused_dma.fetch_add(1, Relaxed);
        self.refused += 1;
        let level = if self.refused <= LOUD { log::Level::Warn } else { log::Level::Debug };
        let why = if self.bus_master { "" } else { " (bus mastering is off)" };
        log::log!(level, "refused: {error}{why}");
        error
    }

    /// Asks the client to read or write memory that it did not hand over.
    fn ask(&mut self, command: Command, iova: u64, data: Data<'_>) -> bool {
        if self.broken.is_some() {
            return false;
        }
        match self.exchange(command, iova, data) {
            Ok(done) => done,
            Err(broken) => {
                self.broken = Some(broken);
                false
            }
        }
    }

    fn exchange(&mut self, command: Command, iova: u64, data: Data<'_>) -> Result<bool, Broken> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let access = DmaAccess { address: iova, count: data.len() as u64 };
        let header = Header { id, command: command as u16, ..Header::default() };
        let written = if let Data::Write(data) = &data { data } else { [].as_slice() };
        self.channel.send(header, &[&access.encode(), written], &[])?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let mut body = Vec::new();
            let left = deadline.saturating_duration_since(Instant::now());
            let received = self.channel.receive(&mut body, Wait::All(left))?;
            let (header, fds) = received.ok_or(Broken::TimedOut(self.timeout))?;
            if !header.is_reply() {
                let bytes: usize = self.queued.iter().map(|(_, body, _)| body.len()).sum();
                if self.queued.len() == MOST_QUEUED || bytes > MOST_QUEUED_BYTES {
                    let queued = self.queued.len() as u64;
                    return Err(Malformed::field("commands instead of a reply", queued, "fewer").into());
                }
                self.queued.push_back((header, body, fds));
                continue;
            }
            if (header.id, header.command) != (id, command as u16) {
                return Err(Malformed::field("number of the message replied to", header.id, id).into());
            }
            if header.flags & wire::ERROR != 0 {
                return Ok(false);
            }
            if let Data::Read(into) = data {
                let (about, read) = DmaAccess::decode(&body)?;
                if about != access {
                    let expected = format_args!("{:#x}", access.address);
                    return Err(Malformed::field("address replied to", about.address, expected).into());
                }
                let short = Malformed::Short { needed: into.len(), found: read.len() };
                into.copy_from_slice(read.get(..into.len()).ok_or(short)?);
            }
            return Ok(true);
        }
    }
}

enum Data<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

impl Data<'_> {
    fn len(&self) -> usize {
        match self {
            Data::Read(data) => data.len(),
            Data::Write(data) => data.len(),
        }
    }
}

impl Host for Machine {
    fn dma_read(&mut self, iova: u64, data: &mut [u8]) -> Result<(), DmaError> {
        let len = data.len();
        self.allow(iova, len, false)?;
        let mut done = 0;
        while done < len {
            let at = iova + done as u64;
            let Some(piece) = self.table.piece(at, len - done) else {
                return Err(self.refuse(iova, len, false));
            };
            let most = if matches!(piece.backing, Backing::Client) {
                self.limits.max_data_xfer_size
            } else {
                usize::MAX
            };
            let part = &mut data[done..done + piece.len.min(most)];
            done += part.len();
            let read = match piece.backing {
                Backing::Client => self.ask(Command::DmaRead, at, Data::Read(part)),
                backing => backing.read(piece.offset, part),
            };
            if !read {
                return Err(self.refuse(iova, len, false));
            }
        }
        Ok(())
    }

    fn dma_write(&mut self, iova: u64, data: &[u8]) -> Result<(), DmaError> {
        let len = data.len();
        self.allow(iova, len, true)?;
        let mut done = 0;
        while done < len {
            let at = iova + done as u64;
            let Some(piece) = self.table.piece(at, len - done) else {
                return Err(self.refuse(iova, len, true));
            };
            let most = if matches!(piece.backing, Backing::Client) {
                self.limits.max_data_xfer_size
            } else {
                usize::MAX
            };
            let part = &data[done..done + piece.len.min(most)];
            done += part.len();
            let written = match piece.backing {
                Backing::Client => self.ask(Command::DmaWrite, at, Data::Write(part)),
                backing => backing.write(piece.offset, part),
            };
            if !written {
                return Err(self.refuse(iova, len, true));
            }
        }
        Ok(())
    }

    fn interrupt(&mut self, vector: u16) {
        self.counters.interrupts.fetch_add(1, Relaxed);
        // A message is a write to memory.
        if self.bus_master || !self.interrupts.messages() {
            self.interrupts.fire(vector);
        }
    }

    fn shared_read(&mut self, region: Region, offset: u64) -> u32 {
        self.shared.load(region, offset)
    }

    fn shared_write(&mut self, region: Region, offset: u64, value: u32) {
        self.shared.store(region, offset, &value.to_le_bytes());
    }
}
