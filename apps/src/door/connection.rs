//! One client: what it asks, and what it has taken of the answer. Nothing here waits.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes of a request, the end of the line included.
const LONGEST: usize = 1024;
/// How long a client may take to ask, and to take the whole answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client.
pub(super) struct Connection<R> {
    socket: UnixStream,
    until: Instant,
    state: State<R>,
    /// What came and is not answered yet.
    came: Vec<u8>,
    /// It may ask again.
    many: bool,
}

enum State<R> {
    Asking,
    /// What it asks for, and since when.
    Waiting(R, Instant),
    /// The answer, and how much of it has gone.
    Answered(Vec<u8>, usize),
    Over,
}

/// What a client needs to go on.
pub(super) enum Wants {
    Read,
    Write,
    Nothing,
}

impl<R> Connection<R> {
    pub(super) fn new(socket: UnixStream, many: bool) -> Connection<R> {
        let (until, came) = (Instant::now() + PATIENCE, Vec::new());
        Connection { socket, until, state: State::Asking, came, many }
    }

    pub(super) fn wants(&self) -> Wants {
        match self.state {
            State::Asking => Wants::Read,
            State::Waiting(..) => Wants::Nothing,
            State::Answered(..) | State::Over => Wants::Write,
        }
    }

    /// Whether somebody else has to do something for it.
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Waiting(..))
    }

    /// When it is out of time. One that may ask again has all the time there is, unless others want its place.
    pub(super) fn until(&self, full: bool) -> Option<Instant> {
        let rests = self.many && matches!(self.state, State::Asking) && self.came.is_empty();
        (full || !rests).then_some(self.until)
    }

    pub(super) fn is_over(&self, full: bool) -> bool {
        let late = || self.until(full).is_some_and(|until| until <= Instant::now());
        matches!(self.state, State::Over) || !self.waits() && late()
    }

    /// The socket is ready.
    pub(super) fn go_on(&mut self) {
        let done = match self.state {
            State::Asking => self.read(),
            // Its user is gone: nothing else was waited for.
            State::Waiting(..) | State::Over => Err(io::ErrorKind::ConnectionReset.into()),
            State::Answered(..) => self.write(),
        };
        if done.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            self.state = State::Over;
        }
    }

    /// The line that it asks with, if it has come whole; an error if it never will.
    pub(super) fn line(&mut self) -> Option<Result<Vec<u8>, String>> {
        if !matches!(self.state, State::Asking) {
            return None;
        }
        let end = self.came.iter().position(|byte| *byte == b'\n');
        if end.unwrap_or(self.came.len()) >= LONGEST {
            // Nobody knows where the next one begins.
            self.many = false;
            return Some(Err(format!("a request of more than {LONGEST} bytes")));
        }
        let line = self.came.drain(..=end?).collect::<Vec<_>>();
        Some(Ok(line))
    }

    /// That is what it asks for.
    pub(super) fn ask(&mut self, request: R) {
        self.state = State::Waiting(request, Instant::now());
    }

    /// What it asks for, and since when.
    pub(super) fn request(&mut self) -> Option<(&mut R, Instant)> {
        match &mut self.state {
            State::Waiting(request, since) => Some((request, *since)),
            _ => None,
        }
    }

    /// What it gets.
    pub(super) fn answer(&mut self, document: Vec<u8>) {
        self.until = Instant::now() + PATIENCE;
        self.state = State::Answered(document, 0);
        // Nearly always there is room for all of it.
        self.go_on();
    }

    fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; LONGEST];
        let count = self.socket.read(&mut bytes)?;
        if self.came.is_empty() {
            self.until = Instant::now() + PATIENCE;
        }
        self.came.extend(&bytes[..count]);
        if count == 0 {
            if self.many && self.came.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // It asks nothing more, and its last line may lack its end.
            self.many = false;
            self.came.push(b'\n');
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let State::Answered(document, sent) = &mut self.state else { return Ok(()) };
        while *sent < document.len() {
            match self.socket.write(&document[*sent..])? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => *sent += count,
            }
        }
        self.until = Instant::now() + PATIENCE;
        self.state = if self.many { State::Asking } else { State::Over };
        Ok(())
    }
}

impl<R> AsFd for Connection<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(many: bool) -> (UnixStream, Connection<()>) {
        let (client, server) = UnixStream::pair().expect("a pair");
        server.set_nonblocking(true).expect("it is a socket");
        (client, Connection::new(server, many))
    }

    /// The line that comes of bytes, and whether another one may follow.
    fn line(request: &[u8], many: bool) -> (Option<Result<Vec<u8>, String>>, bool) {
        let (mut client, mut connection) = connection(many);
        client.write_all(request).expect("there is room");
        drop(client);
        for _ in 0..200 {
            if let Some(line) = connection.line() {
                return (Some(line), connection.many);
            }
            connection.go_on();
        }
        (None, false)
    }

    #[test]
    fn a_request_is_a_line_that_is_not_too_long() {
        assert_eq!(line(b"one\ntwo\n", true), (Some(Ok(b"one\n".to_vec())), true));
        assert_eq!(line(b"no end", true), (Some(Ok(b"no end\n".to_vec())), false));
        assert_eq!(line(b"", false), (Some(Ok(b"\n".to_vec())), false));
        assert_eq!(line(b"", true), (None, false));
        let just = [&[b'x'; LONGEST - 1][..], b"\n"].concat();
        assert_eq!(line(&just, true), (Some(Ok(just)), true));
        for huge in [&[b'x'; LONGEST][..], &[b'x'; 100_000]] {
            let (refused, more) = line(huge, true);
            assert!(refused.is_some_and(|line| line.is_err_and(|error| error.contains("1024"))) && !more);
        }
    }

    #[test]
    fn an_answer_goes_in_pieces_and_who_takes_none_is_out_of_time() {
        for many in [false, true] {
            let (mut client, mut connection) = connection(many);
            connection.answer(vec![b'x'; 1 << 22]);
            assert!(!connection.is_over(false));
            let mut taken = vec![0; 1 << 16];
            client.read_exact(&mut taken).expect("some of it");
            connection.go_on();
            assert!(!connection.is_over(false));
            connection.until = Instant::now();
            assert!(connection.is_over(false));
        }
    }

    #[test]
    fn who_may_ask_again_may_rest_unless_others_want_the_place() {
        let (mut client, mut connection) = connection(true);
        connection.answer(b"{}\n".to_vec());
        connection.until = Instant::now();
        assert!(!connection.is_over(false) && connection.is_over(true));
        client.write_all(b"half a li").expect("there is room");
        connection.go_on();
        connection.until = Instant::now();
        assert!(connection.is_over(false));
    }
}
