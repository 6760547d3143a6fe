//! The consumer's half.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pagewire_pci::vfio_user::transport::{Broken, Channel, Wait};
use pagewire_pci::vfio_user::wire::{self, Header, Malformed};

use super::layout::{
    self, Hello, LaneInfo, Piece, RetiredInfo, SegmentId, SegmentInfo, Token, Welcome, words,
};
use super::memory::{Mapping, Rings};
use super::received::{Data, Received};
use super::{Access, Error, wake};
use crate::packet::Chain;

/// How long a server may take to let this process in, and for each message.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Attached to a [`Server`](super::Server): receives what its producers offer. Dropping it detaches, and gives everything back.
///
/// It belongs to one thread at a time. Packets may be held side by side and returned in any order.
pub struct Consumer {
    path: PathBuf,
    pub(super) channel: Channel,
    quota: u32,
    access: Access,
    pub(super) segments: RefCell<Vec<Option<Known>>>,
    pub(super) lanes: RefCell<Vec<Lane>>,
    /// The lane to look at first.
    next: Cell<usize>,
    /// Looks for packets, each so many of which is one for messages too.
    looks: Cell<u32>,
    /// Lanes so far.
    age: Cell<u64>,
}

/// Memory that packets are in.
pub(super) struct Known {
    generation: u16,
    memory: Arc<Mapping>,
}

/// Looks for packets between two for messages, when there is never a reason to wait.
const LOOKS: u32 = 256;

/// The end of a lane to one producer.
pub(super) struct Lane {
    name: String,
    /// No other lane has had this one. Its place among the lanes may come to be another's.
    age: u64,
    pub(super) rings: Rings,
    pub(super) wake: UnixStream,
    /// Positions in the rings.
    taken: u64,
    returned: u64,
    /// The producer has gone.
    ended: bool,
}

impl Lane {
    /// The producer has gone, or looks at it no more.
    fn has_gone(&self) -> bool {
        self.ended || self.rings.is_revoked()
    }

    /// Offers that have not been taken.
    fn waiting(&self) -> u64 {
        if self.has_gone() { 0 } else { self.rings.position(words::OFFERED).wrapping_sub(self.taken) }
    }
}

impl Consumer {
    /// Connects to the server at a socket, and maps all it is told of.
    ///
    /// # Errors
    ///
    /// [`Error::NoServer`], [`Error::Refused`] with the server's reason, and whatever else can go wrong.
    pub fn attach(path: impl AsRef<Path>, access: Access) -> Result<Consumer, Error> {
        let path = path.as_ref();
        let channel =
            Channel::connect(path, TIMEOUT).map_err(|cause| Error::NoServer { path: path.into(), cause })?;
        let mut consumer = Consumer {
            path: path.into(),
            channel,
            quota: 0,
            access,
            segments: RefCell::default(),
            lanes: RefCell::default(),
            next: Cell::new(0),
            looks: Cell::new(0),
            age: Cell::new(0),
        };
        consumer.greet()?;
        Ok(consumer)
    }

    fn greet(&mut self) -> Result<(), Error> {
        let access = match self.access {
            Access::Read => layout::READ,
            Access::ReadWrite => layout::READ_WRITE,
        };
        let hello = Hello { magic: layout::MAGIC, version: layout::VERSION, access };
        let header = Header { command: layout::HELLO, ..Header::default() };
        self.channel.send(header, &[&hello.encode()], &[]).map_err(self.broken())?;
        let mut body = Vec::new();
        let reply = self.channel.receive(&mut body, Wait::All(TIMEOUT)).map_err(self.broken())?;
        let Some((header, _)) = reply else { return Err(self.broken()(Broken::TimedOut(TIMEOUT))) };
        if header.flags & wire::ERROR != 0 {
            body.truncate(layout::MAX_TEXT * 2);
            let why = String::from_utf8_lossy(&body).escape_debug().to_string();
            return Err(Error::Refused { path: self.path.clone(), why });
        }
        let (welcome, _) = Welcome::decode(&body).map_err(self.malformed())?;
        if header.command != layout::HELLO || !header.is_reply() || welcome.version != layout::VERSION {
            let cause = Malformed::field("version", welcome.version, layout::VERSION);
            return Err(self.malformed()(cause));
        }
        self.quota = welcome.quota;
        while !self.hear(Wait::All(TIMEOUT))? {}
        Ok(())
    }

    /// Takes one message, if there is one, and says whether that was `READY`.
    fn hear(&self, wait: Wait) -> Result<bool, Error> {
        let mut body = Vec::new();
        let message = self.channel.receive(&mut body, wait).map_err(self.broken())?;
        let Some((header, fds)) = message else { return Ok(false) };
        match header.command {
            layout::SEGMENT => self.add_segment(&body, fds)?,
            layout::RETIRED => self.retire_segment(&body)?,
            layout::LANE => self.add_lane(&body, fds)?,
            layout::READY => return Ok(true),
            other => return Err(self.malformed()(Malformed::field("message", other, "2 to 5"))),
        }
        Ok(false)
    }

    fn add_segment(&self, body: &[u8], fds: Vec<OwnedFd>) -> Result<(), Error> {
        let (info, _) = SegmentInfo::decode(body).map_err(self.malformed())?;
        let [file] = self.descriptors(fds)?;
        let index = info.index as usize;
        let mut segments = self.segments.borrow_mut();
        if index >= layout::MAX_PARTS || info.generation >= layout::GENERATIONS {
            let expected = format!("a number below {}", layout::MAX_PARTS);
            return Err(self.malformed()(Malformed::field("segment", info.index, expected)));
        }
        let generation = info.generation as u16;
        if segments.len() <= index {
            segments.resize_with(index + 1, || None);
        }
        let writable = self.may_write();
        let mapping = Mapping::new(File::from(file), info.offset, info.len as usize, writable);
        let memory = mapping.map_err(super::error::failed("mapping the producer's memory"))?;
        // Packets of a segment that had the number keep its memory as long as they are here.
        segments[index] = Some(Known { generation, memory: Arc::new(memory) });
        Ok(())
    }

    fn retire_segment(&self, body: &[u8]) -> Result<(), Error> {
        let (info, _) = RetiredInfo::decode(body).map_err(self.malformed())?;
        if let Some(place) = self.segments.borrow_mut().get_mut(info.index as usize)
            && place.as_ref().is_some_and(|known| u32::from(known.generation) == info.generation)
        {
            *place = None;
        }
        Ok(())
    }

    fn add_lane(&self, body: &[u8], fds: Vec<OwnedFd>) -> Result<(), Error> {
        let (info, name) = LaneInfo::decode(body).map_err(self.malformed())?;
        let [rings, wake] = self.descriptors(fds)?;
        let mut lanes = self.lanes.borrow_mut();
        if name.len() > layout::MAX_TEXT || lanes.len() > layout::MAX_PARTS {
            return Err(self.malformed()(Malformed::field("lane", name.len() as u64, "a shorter name")));
        }
        let rings = Rings::map(File::from(rings), info.slots);
        self.age.set(self.age.get() + 1);
        let lane = Lane {
            age: self.age.get(),
            name: String::from_utf8_lossy(name).into_owned(),
            rings: rings.map_err(super::error::failed("mapping the rings"))?,
            wake: UnixStream::from(wake),
            taken: 0,
            returned: 0,
            ended: false,
        };
        match lanes.iter_mut().find(|lane| lane.has_gone()) {
            Some(gone) => *gone = lane,
            None => lanes.push(lane),
        }
        Ok(())
    }

    fn descriptors<const N: usize>(&self, fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], Error> {
        let found = fds.len();
        fds.try_into().map_err(|_| self.malformed()(Malformed::Descriptors { fds: found, expected: N }))
    }

    pub(super) fn may_write(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// Fragments of each producer that it may hold.
    pub fn quota(&self) -> u32 {
        self.quota
    }

    /// The producers' names. The number of one that has gone may become another's.
    pub fn producers(&self) -> Vec<String> {
        self.lanes.borrow().iter().map(|lane| lane.name.clone()).collect()
    }

    pub(super) fn name_of(&self, lane: usize) -> String {
        self.lanes.borrow()[lane].name.clone()
    }

    /// The next packet, if one is there. The producers take turns.
    ///
    /// # Errors
    ///
    /// When the producer's process does not keep to the protocol.
    pub fn receive(&self) -> Result<Option<Received<'_>>, Error> {
        self.looks.set(self.looks.get().wrapping_add(1));
        if self.looks.get().is_multiple_of(LOOKS) {
            self.hear_all()?;
        }
        let count = self.lanes.borrow().len();
        for turn in 0..count {
            let lane = (self.next.get() + turn) % count;
            let waiting = self.lanes.borrow()[lane].waiting();
            if waiting > 0 {
                self.next.set(lane + 1);
                return self.take(lane, waiting).map(Some);
            }
        }
        Ok(None)
    }

    /// Takes the messages that are there, for a consumer that never waits: the server does not keep one that does not read.
    fn hear_all(&self) -> Result<(), Error> {
        while wake::wait(&[self.channel.as_fd()], Some(Instant::now())).is_ok_and(|ready| ready[0]) {
            match self.hear(Wait::Rest(TIMEOUT)) {
                Ok(_) => {}
                // What is in the rings can still be received; waiting says that there is no more.
                Err(Error::Closed { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&self, number: usize, waiting: u64) -> Result<Received<'_>, Error> {
        let mut packet: Option<Received<'_>> = None;
        for _ in 0..waiting.min(Chain::MAX_SEGMENTS.into()) {
            let (offer, age) = {
                let lane = &mut self.lanes.borrow_mut()[number];
                let offer = lane.rings.read_offer(lane.taken);
                lane.taken = lane.taken.wrapping_add(1);
                (offer, lane.age)
            };
            let data = self.find(offer.piece)?;
            match &mut packet {
                Some(packet) => packet.rest.push(data),
                None => {
                    let (time, token) = (Duration::from_nanos(offer.time), offer.token);
                    packet = Some(Received {
                        consumer: self,
                        lane: number,
                        age,
                        token,
                        time,
                        first: data,
                        rest: Vec::new(),
                    });
                }
            }
            if !offer.piece.more {
                break;
            }
        }
        packet.ok_or_else(|| self.malformed()(Malformed::field("ring", waiting, "an offer")))
    }

    fn find(&self, piece: Piece) -> Result<Data, Error> {
        while self.memory(piece.segment).is_none()
            && wake::wait(&[self.channel.as_fd()], Some(Instant::now())).is_ok_and(|ready| ready[0])
        {
            // The server tells of a segment before any producer refers to it.
            self.hear(Wait::Rest(TIMEOUT))?;
        }
        let memory = self.memory(piece.segment).filter(|memory| memory.contains(piece.offset, piece.len));
        let memory = memory.ok_or_else(|| {
            self.malformed()(Malformed::field("offset", piece.offset, "a place in a segment"))
        })?;
        Ok(Data { memory, offset: piece.offset as usize, len: piece.len as usize })
    }

    fn memory(&self, id: SegmentId) -> Option<Arc<Mapping>> {
        let segments = self.segments.borrow();
        let known = segments.get(usize::from(id.index))?.as_ref()?;
        (known.generation == id.generation).then(|| known.memory.clone())
    }

    /// Waits until there is a packet to receive: `false` if the time is up first.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when the producer's process has ended or has closed the connection, and all has been received.
    pub fn wait(&self, within: Duration) -> Result<bool, Error> {
        let until = wake::after(within);
        loop {
            let has_some = || self.lanes.borrow().iter().any(|lane| lane.waiting() > 0);
            if has_some() {
                return Ok(true);
            }
            self.lanes.borrow().iter().for_each(|lane| lane.rings.ask(words::CONSUMER_SLEEPS));
            let ready = if has_some() { Ok(Vec::new()) } else { self.sleep(until) };
            self.lanes.borrow().iter().for_each(|lane| lane.rings.ask_no_more(words::CONSUMER_SLEEPS));
            let ready = ready.map_err(super::error::failed("waiting for packets"))?;
            for lane in &mut *self.lanes.borrow_mut() {
                lane.ended |= !wake::drain(&lane.wake);
            }
            if has_some() {
                return Ok(true);
            }
            if ready.first() == Some(&true) {
                self.hear(Wait::Rest(TIMEOUT))?;
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    fn sleep(&self, until: Instant) -> io::Result<Vec<bool>> {
        let lanes = self.lanes.borrow();
        let wakes = lanes.iter().filter(|lane| !lane.ended).map(|lane| lane.wake.as_fd());
        let fds: Vec<_> = std::iter::once(self.channel.as_fd()).chain(wakes).collect();
        wake::wait(&fds, Some(until))
    }

    pub(super) fn give_back(&self, lane: usize, age: u64, token: Token) {
        let mut lanes = self.lanes.borrow_mut();
        // A producer that has gone took its packets back itself.
        let Some(lane) = lanes.get_mut(lane).filter(|lane| lane.age == age) else { return };
        lane.rings.write_return(lane.returned, token);
        lane.returned = lane.returned.wrapping_add(1);
        if lane.rings.publish(words::RETURNED, lane.returned, words::PRODUCER_SLEEPS) {
            wake::poke(&lane.wake);
        }
    }

    pub(super) fn is_revoked(&self, lane: usize, age: u64) -> bool {
        let lane = &self.lanes.borrow()[lane];
        lane.age != age || lane.rings.is_revoked()
    }

    pub(super) fn revoked(&self) -> Error {
        Error::Revoked { path: self.path.clone() }
    }

    fn broken(&self) -> impl Fn(Broken) -> Error {
        let path = self.path.clone();
        move |cause| match cause {
            Broken::Closed => Error::Closed { path: path.clone() },
            cause => Error::Broken { path: path.clone(), cause },
        }
    }

    fn malformed(&self) -> impl Fn(Malformed) -> Error {
        let broken = self.broken();
        move |cause| broken(cause.into())
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consumer({}, {:?})", self.path.display(), self.producers())
    }
}
