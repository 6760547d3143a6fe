//! The server's thread: it lets consumers in, tells them of memory and lanes, and notices when they go. It touches no packet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pagewire_pci::vfio_user::Listener;
use pagewire_pci::vfio_user::transport::{Broken, Channel, Outgoing, Peer, Wait};
use pagewire_pci::vfio_user::wire::{self, Header};

use super::Access;
use super::attached::Attached;
use super::error::Refusal;
use super::hub::{Hub, Lane, Mailbox, News, Shared};
use super::layout::{self, Hello, LaneInfo, RetiredInfo, SegmentInfo, Welcome};
use super::memory::Rings;
use super::stats::Client;
use super::wake;

/// Connections that have not greeted yet.
const MAX_GREETING: usize = 8;
/// How long the rest of a greeting may take that has begun.
const REST: Duration = Duration::from_millis(100);
/// How long nobody is let in after that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// What the thread has.
pub(super) struct Door {
    hub: Arc<Hub>,
    listener: Listener,
    /// Connected, until when they may greet.
    greeting: Vec<(Channel, Instant, Peer)>,
    seats: Vec<Seat>,
    next: u64,
    closed_until: Option<Instant>,
}

/// A consumer that was let in, and what it has been told of.
struct Seat {
    client: Arc<Client>,
    channel: Channel,
    /// The change of segments, and of lanes, that it was told of last, and the last there was when it came.
    segments: u64,
    lanes: u64,
    came: u64,
    /// Whether it knows that it has been told of all there was when it came.
    ready: bool,
    writes: bool,
    /// The message that it is being told, if its socket has no room for all of it. It stays what there is to tell until then: a consumer
    /// that does not read costs one message, and holds up nobody.
    telling: Option<Telling>,
}

/// A message on its way to a consumer, and until when it has to be gone.
struct Telling {
    message: Outgoing,
    until: Instant,
    step: Step,
}

/// What a message tells, and what is to be done once it is sent.
enum Step {
    Segments(u64),
    Lane(u64, Arc<Mailbox>, Box<Attached>),
    Ready,
}

impl Door {
    pub(super) fn new(hub: Arc<Hub>, listener: Listener) -> Door {
        Door { hub, listener, greeting: Vec::new(), seats: Vec::new(), next: 1, closed_until: None }
    }

    pub(super) fn run(mut self) {
        while !self.hub.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.closed_until = self.closed_until.filter(|until| *until > now);
            let listens = self.closed_until.is_none() && self.greeting.len() < MAX_GREETING;
            let told =
                self.seats.iter().filter_map(|seat| seat.telling.as_ref()).map(|telling| telling.until);
            let greeted = self.greeting.iter().map(|(_, until, _)| *until);
            let until = greeted.chain(told).chain(self.closed_until).min();
            let mut fds: Vec<BorrowedFd<'_>> = vec![self.hub.event.as_fd()];
            fds.extend(self.greeting.iter().map(|(channel, ..)| channel.as_fd()));
            fds.extend(self.seats.iter().map(|seat| seat.channel.as_fd()));
            if listens {
                fds.push(self.listener.as_fd());
            }
            let full = self.seats.iter().filter(|seat| seat.telling.is_some());
            let full: Vec<_> = full.map(|seat| seat.channel.as_fd()).collect();
            let ready = wake::wait_for(&fds, &full, until).unwrap_or_else(|error| {
                log::warn!("waiting for consumers: {error}");
                std::thread::sleep(PAUSE);
                Vec::new()
            });
            self.hub.event.clear();
            self.hub.clear_dead();
            let is_ready = |index: usize| ready.get(index).copied().unwrap_or(false);
            let (first, behind) = (1 + self.greeting.len(), 1 + self.greeting.len() + self.seats.len());
            let mut at = first;
            self.seats.retain(|seat| {
                at += 1;
                // It has nothing more to say: whatever can be read is its end, or as good as that.
                stays(&self.hub, seat, is_ready(at - 1))
            });
            self.hear_greetings(|number| is_ready(1 + number));
            if listens && is_ready(behind) {
                self.open();
            }
            self.tell_all();
        }
        self.seats.drain(..).for_each(|seat| leave(&self.hub, &seat));
    }

    /// Takes who knocks, if it is somebody who may.
    fn open(&mut self) {
        let come = self.listener.accept().and_then(|socket| {
            let channel = Channel::accepted(socket, self.hub.options.timeout)?;
            let who = channel.peer()?;
            Ok((channel, who))
        });
        match come {
            Ok((channel, who)) => {
                self.greeting.push((channel, Instant::now() + self.hub.options.timeout, who));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                log::warn!("accepting a consumer at {}: {error}", self.listener.path().display());
                self.closed_until = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn hear_greetings(&mut self, is_ready: impl Fn(usize) -> bool) {
        let now = Instant::now();
        for (number, (channel, until, who)) in std::mem::take(&mut self.greeting).into_iter().enumerate() {
            if !is_ready(number) {
                match until > now {
                    true => self.greeting.push((channel, until, who)),
                    false => log::info!("process {} connected and said nothing", who.pid),
                }
                continue;
            }
            let mut body = Vec::new();
            match channel.receive(&mut body, Wait::Rest(REST)) {
                Ok(Some((header, _))) => match self.admit(channel, header, &body, who) {
                    Ok(()) => {}
                    Err(Broken::Closed) => log::debug!("process {} left while it was let in", who.pid),
                    Err(error) => log::warn!("letting process {} in: {error}", who.pid),
                },
                Ok(None) => self.greeting.push((channel, until, who)),
                Err(error) => log::info!("process {}: {error}", who.pid),
            }
        }
    }

    /// Answers a greeting.
    fn admit(&mut self, channel: Channel, header: Header, body: &[u8], who: Peer) -> Result<(), Broken> {
        let reply = Header { flags: wire::REPLY, ..header };
        let hello = match self.check(header, body, who) {
            Ok(hello) => hello,
            Err(refusal) => {
                log::warn!("process {} may not attach: {refusal}", who.pid);
                let reply = Header { flags: wire::REPLY | wire::ERROR, ..reply };
                return channel.send(reply, &[refusal.to_string().as_bytes()], &[]);
            }
        };
        let pid = who.pid;
        let client = Arc::new(Client::new(self.next, pid, who.uid));
        let seat = Seat {
            client,
            channel,
            segments: 0,
            lanes: 0,
            came: self.hub.state().changes,
            ready: false,
            writes: hello.access == layout::READ_WRITE,
            telling: None,
        };
        self.next += 1;
        let quota = self.hub.options.quota;
        let welcome = Welcome { version: layout::VERSION, access: hello.access, quota, reserved: 0 };
        seat.channel.send(reply, &[&welcome.encode()], &[])?;
        log::info!("consumer {}: process {} has attached", seat.client.id, pid);
        self.hub.state().clients.push(seat.client.clone());
        self.seats.push(seat);
        Ok(())
    }

    fn check(&self, header: Header, body: &[u8], who: Peer) -> Result<Hello, Refusal> {
        let options = &self.hub.options;
        let (own, found) = (rustix::process::geteuid().as_raw(), who.uid);
        if found != own && found != 0 && Some(found) != options.user {
            let user = options.user.map_or_else(String::new, |user| format!(", {user}"));
            return Err(Refusal::User { found, allowed: format!("{own}{user} and root") });
        }
        let expected = layout::HELLO;
        if header.command != expected || header.is_reply() {
            return Err(wire::Malformed::field("message", header.command, expected).into());
        }
        let (hello, _) = Hello::decode(body)?;
        if hello.magic != layout::MAGIC {
            return Err(wire::Malformed::field("magic", hello.magic, format!("{:#x}", layout::MAGIC)).into());
        }
        if hello.version != layout::VERSION {
            return Err(Refusal::Version { found: hello.version, expected: layout::VERSION });
        }
        match hello.access {
            layout::READ => {}
            layout::READ_WRITE if options.access == Access::ReadWrite => {}
            layout::READ_WRITE => return Err(Refusal::Access),
            other => return Err(wire::Malformed::field("access", other, "0 or 1").into()),
        }
        // Of those who left, too, until producers could have heard of it.
        if self.seats.len() >= options.consumers as usize {
            return Err(Refusal::Full(self.seats.len()));
        }
        Ok(hello)
    }

    /// Tells every consumer what there is that it has not been told of, and then the producers.
    fn tell_all(&mut self) {
        let mut seats = std::mem::take(&mut self.seats);
        seats.retain_mut(|seat| match tell(&self.hub, seat) {
            Ok(()) => true,
            Err(why) => {
                log::warn!("consumer {} is thrown out: {why}", seat.client.id);
                leave(&self.hub, seat);
                false
            }
        });
        self.seats = seats;
        let told = self.seats.iter().map(|seat| seat.segments).min();
        self.hub.confirm_segments(told.unwrap_or(u64::MAX));
    }
}

/// Whether a consumer stays, when there was something to read from it or not.
fn stays(hub: &Hub, seat: &Seat, spoke: bool) -> bool {
    let Client { id, pid, .. } = *seat.client;
    if seat.client.is_evicted() {
        log::warn!(
            "consumer {id}, process {pid}, is thrown out: it returned what it did not hold, or broke its rings"
        );
    } else if spoke {
        log::info!("consumer {id}: process {pid} has left");
    } else {
        return true;
    }
    leave(hub, seat);
    false
}

/// Ends a consumer's connection, and lets the producers know.
fn leave(hub: &Hub, seat: &Seat) {
    seat.channel.shutdown();
    let mut state = hub.state();
    state.clients.retain(|client| client.id != seat.client.id);
    for lane in state.lanes.iter() {
        lane.mailbox.post(News::Gone(seat.client.id));
    }
}

/// Sends a consumer what it has not been told of, as far as its socket has room.
fn tell(hub: &Hub, seat: &mut Seat) -> Result<(), Broken> {
    while !hub.stop.load(Ordering::Relaxed) {
        let Some(mut telling) = seat.telling.take().map_or_else(|| next(hub, seat), |left| Ok(Some(left)))?
        else {
            break;
        };
        if !seat.channel.send_part(&mut telling.message)? {
            if telling.until <= Instant::now() {
                return Err(Broken::TimedOut(hub.options.timeout));
            }
            seat.telling = Some(telling);
            break;
        }
        match telling.step {
            Step::Segments(change) => seat.segments = change,
            Step::Lane(change, mailbox, end) => {
                seat.lanes = change;
                mailbox.post(News::Attached(*end));
            }
            Step::Ready => seat.ready = true,
        }
    }
    Ok(())
}

/// What a consumer is to be told next: of memory before the lanes that may refer to it.
fn next(hub: &Hub, seat: &mut Seat) -> Result<Option<Telling>, Broken> {
    let telling = |command, body: &[&[u8]], fds, step| {
        let header = Header { command, flags: wire::NO_REPLY, ..Header::default() };
        let until = Instant::now() + hub.options.timeout;
        Ok(Some(Telling { message: Outgoing::new(header, body, fds), until, step }))
    };
    let state = hub.state();
    while let Some((number, part)) = state.segments.after(seat.segments) {
        let (index, generation, change) = (number as u32, part.generation.into(), part.change);
        let Some(Shared { segment, .. }) = &part.what else {
            if change > seat.came {
                let info = RetiredInfo { index, generation };
                return telling(layout::RETIRED, &[&info.encode()], vec![], Step::Segments(change));
            }
            // Gone before it came.
            seat.segments = change;
            continue;
        };
        let segment = segment.clone();
        // No lock is held over what takes a system call.
        drop(state);
        let (offset, len) = (segment.fd_offset(), segment.len() as u64);
        let info = SegmentInfo { index, generation, offset, len };
        let file = match seat.writes {
            true => segment.fd().try_clone_to_owned()?,
            false => segment.read_only_fd().map_err(io::Error::other)?,
        };
        return telling(layout::SEGMENT, &[&info.encode()], vec![file], Step::Segments(change));
    }
    while let Some((_, part)) = state.lanes.after(seat.lanes) {
        let change = part.change;
        let Some(Lane { name, mailbox }) = &part.what else {
            // It hears of that by the lane's socket.
            seat.lanes = change;
            continue;
        };
        let (name, mailbox) = (name.clone(), mailbox.clone());
        drop(state);
        let (rings, memory) = Rings::new(hub.options.quota).map_err(io::Error::other)?;
        let (own, theirs) = UnixStream::pair()?;
        let info = LaneInfo { slots: rings.slots(), reserved: 0 };
        let fds = vec![memory.fd().try_clone_to_owned()?, theirs.into()];
        let end = Attached::new(seat.client.clone(), rings, own);
        let step = Step::Lane(change, mailbox, Box::new(end));
        return telling(layout::LANE, &[&info.encode(), name.as_bytes()], fds, step);
    }
    if seat.ready { Ok(None) } else { telling(layout::READY, &[], vec![], Step::Ready) }
}
