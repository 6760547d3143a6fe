//! One client: what it asks, and what it has taken of the answer. Nothing here waits.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::document::{Get, Request, refusal};

/// Bytes of a request, the end of the line included.
const LONGEST: usize = 1024;
/// How long a client may take to ask, and to take the whole answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client. It asks once.
pub(super) struct Connection {
    socket: UnixStream,
    until: Instant,
    state: State,
}

enum State {
    /// What came of the request so far.
    Asking(Vec<u8>),
    /// What it asks for, and since when.
    Waiting(Get, Instant),
    /// The answer, and how much of it has gone.
    Answered(Vec<u8>, usize),
    Over,
}

/// What a client needs to go on.
pub(super) enum Wants {
    Read,
    Write,
    Snapshot(Get, Instant),
}

impl Connection {
    pub(super) fn new(socket: UnixStream) -> Connection {
        Connection { socket, until: Instant::now() + PATIENCE, state: State::Asking(Vec::new()) }
    }

    pub(super) fn wants(&self) -> Wants {
        match self.state {
            State::Asking(_) => Wants::Read,
            State::Waiting(get, since) => Wants::Snapshot(get, since),
            State::Answered(..) | State::Over => Wants::Write,
        }
    }

    /// Whether somebody else has to do something for it.
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Waiting(..))
    }

    /// When it is out of time.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over) || !self.waits() && self.until <= Instant::now()
    }

    /// The socket is ready.
    pub(super) fn go_on(&mut self) {
        let done = match self.state {
            State::Asking(_) => self.read(),
            // Its user is gone: nothing else was waited for.
            State::Waiting(..) | State::Over => Err(io::ErrorKind::ConnectionReset.into()),
            State::Answered(..) => self.write(),
        };
        if done.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
            self.state = State::Over;
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
        let State::Asking(request) = &mut self.state else { return Ok(()) };
        let mut bytes = [0; LONGEST];
        let count = self.socket.read(&mut bytes)?;
        request.extend(&bytes[..count]);
        let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let whole = line.len() < request.len() || count == 0;
        if line.len() >= LONGEST {
            self.answer(refusal(&format!("a request of more than {LONGEST} bytes")));
        } else if whole {
            match serde_json::from_slice::<Request>(line) {
                Ok(Request { get }) => self.state = State::Waiting(get, Instant::now()),
                Err(error) => self.answer(refusal(&format!(
                    "a request that is not {{\"get\":\"process\"}}, pools or all in place of process: {error}"
                ))),
            }
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
        self.state = State::Over;
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a request.
    fn asked(request: &[u8]) -> Result<Get, String> {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        server.set_nonblocking(true).expect("it is a socket");
        let mut connection = Connection::new(server);
        client.write_all(request).expect("there is room");
        while matches!(connection.wants(), Wants::Read) && !connection.is_over() {
            connection.go_on();
        }
        match connection.wants() {
            Wants::Snapshot(get, _) => Ok(get),
            _ => {
                drop(connection);
                let mut text = String::new();
                // What was not read of the request resets the connection, behind the answer.
                let _ = client.read_to_string(&mut text);
                Err(text)
            }
        }
    }

    #[test]
    fn requests_are_one_line_of_what_there_is() {
        assert_eq!(asked(b"{\"get\":\"all\"}\nmore"), Ok(Get::All));
        assert_eq!(asked(b" {\"get\": \"pools\"} \n"), Ok(Get::Pools));
        for garbage in [
            &b"\n"[..],
            b"\0\xff\n",
            b"{}\n",
            b"[]\n",
            b"{\"get\":\"none\"}\n",
            b"{\"get\":\"all\",\"set\":1}\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            let answer = asked(garbage).expect_err("it is refused");
            assert!(answer.starts_with("{\"error\":\"a request that is not "), "{answer}");
        }
        let nested = [&[b'['; 1000][..], b"\n"].concat();
        assert!(asked(&nested).is_err_and(|answer| answer.contains("error")));
        let huge = asked(&[b'x'; 100_000]).expect_err("it is refused");
        assert!(huge.contains("more than 1024 bytes"), "{huge}");
    }

    #[test]
    fn an_answer_goes_in_pieces_and_who_takes_none_is_out_of_time() {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        server.set_nonblocking(true).expect("it is a socket");
        let mut connection = Connection::new(server);
        connection.answer(vec![b'x'; 1 << 22]);
        assert!(!connection.is_over());
        let mut taken = vec![0; 1 << 16];
        client.read_exact(&mut taken).expect("some of it");
        connection.go_on();
        assert!(!connection.is_over());
        connection.until = Instant::now();
        assert!(connection.is_over());
    }
}
