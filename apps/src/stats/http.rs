//! What processes say, over HTTP, for Prometheus and its like on this machine.
//!
//! This process asks the others as `pagewire stats` does; whoever connects here reaches none of them. A thread for each of a
//! bounded number of clients, each with a bounded time, and one question to the processes for all that come together.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Found, LOOK, metrics};

/// Clients at one time. Others wait until one of these is done, or out of time.
const CLIENTS: usize = 64;
/// How long a client may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a request, and fields of its head.
const LONGEST: usize = 8192;
const FIELDS: usize = 64;
/// What was asked of the processes so recently is not asked again.
const FRESH: Duration = Duration::from_millis(100);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An address of this machine's own.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:9184 or [::1]:9184".to_owned())?;
    match address.ip().to_canonical().is_loopback() {
        true => Ok(address),
        false => Err(format!(
            "{} can be reached from other machines, and there is no password here: take a loopback address, such as \
             127.0.0.1:{}, and let a proxy that knows who asks pass it on",
            address.ip(),
            address.port()
        )),
    }
}

/// Serves until it is time to stop.
pub(super) fn serve(address: SocketAddr, id: Option<&str>, stop: &AtomicBool) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening at {address}"))?;
    listener.set_nonblocking(true)?;
    // The port may have been left to choice.
    note!("serving OpenMetrics at http://{}/metrics", listener.local_addr()?);
    let (clients, latest) = (AtomicUsize::new(0), Latest { id, said: Mutex::new(None) });
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            if clients.load(Ordering::Relaxed) >= CLIENTS {
                std::thread::sleep(LOOK);
                continue;
            }
            match listener.accept() {
                Ok((socket, _)) => {
                    clients.fetch_add(1, Ordering::Relaxed);
                    let (clients, latest) = (&clients, &latest);
                    let client = move || {
                        if let Err(error) = answer(socket, latest) {
                            log::debug!("a client of OpenMetrics: {error}");
                        }
                        clients.fetch_sub(1, Ordering::Relaxed);
                    };
                    if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, client) {
                        clients.fetch_sub(1, Ordering::Relaxed);
                        log::warn!("no thread for a client: {error}");
                    }
                }
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        log::warn!("accepting at {address}: {error}");
                    }
                    std::thread::sleep(LOOK);
                }
            }
        }
    });
    Ok(())
}

/// What processes said last, and when.
struct Latest<'a> {
    id: Option<&'a str>,
    said: Mutex<Option<(Instant, Arc<str>)>>,
}

impl Latest<'_> {
    /// Who comes while somebody else asks gets the same.
    fn get(&self) -> Result<Arc<str>> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, text)) = &*said
            && when.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let text: Arc<str> = metrics::exposition(Found::all(self.id)?)?.into();
        *said = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

/// What a client gets: a status, the kind of text, and the text.
type Answer = (&'static str, &'static str, Arc<str>);

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Metrics,
    /// Without the text.
    Head,
    Refused(&'static str, &'static str),
}

fn answer(mut socket: TcpStream, latest: &Latest<'_>) -> std::io::Result<()> {
    socket.set_nonblocking(false)?;
    let until = Instant::now() + PATIENCE;
    let (mut request, mut bytes) = (Vec::new(), [0; 1024]);
    let asked = loop {
        if let Some(asked) = understand(&request) {
            break asked;
        }
        socket.set_read_timeout(Some(left(until)?))?;
        match socket.read(&mut bytes)? {
            0 => return Ok(()),
            count => request.extend(&bytes[..count]),
        }
    };
    let plain = |status, text: &str| (status, "text/plain; charset=utf-8", Arc::from(text));
    let answer: Answer = match asked {
        Asked::Refused(status, why) => plain(status, why),
        Asked::Metrics | Asked::Head => match latest.get() {
            Ok(text) => ("200 OK", OPEN_METRICS, text),
            Err(error) => plain("500 Internal Server Error", &format!("{error:#}\n")),
        },
    };
    send(socket, &answer, asked != Asked::Head)
}

/// What a request asks for, as soon as it is whole, or wrong.
fn understand(request: &[u8]) -> Option<Asked> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(request) {
        _ if request.len() > LONGEST => {
            Some(Asked::Refused("431 Request Header Fields Too Large", "a request of more than 8192 bytes\n"))
        }
        Ok(httparse::Status::Partial) => None,
        Err(_) => Some(Asked::Refused("400 Bad Request", "this is not HTTP\n")),
        Ok(httparse::Status::Complete(_)) => {
            let path = head.path.unwrap_or_default().split('?').next();
            Some(match (head.method, path) {
                (Some("GET"), Some("/metrics")) => Asked::Metrics,
                (Some("HEAD"), Some("/metrics")) => Asked::Head,
                (Some("GET" | "HEAD"), _) => Asked::Refused("404 Not Found", "there is /metrics\n"),
                _ => Asked::Refused("405 Method Not Allowed", "there is GET /metrics\n"),
            })
        }
    }
}

fn send(mut socket: TcpStream, answer: &Answer, whole: bool) -> std::io::Result<()> {
    let (status, kind, text) = answer;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let until = Instant::now() + PATIENCE;
    for part in [head.as_bytes(), if whole { text.as_bytes() } else { b"" }] {
        let mut sent = 0;
        while sent < part.len() {
            socket.set_write_timeout(Some(left(until)?))?;
            match socket.write(&part[sent..])? {
                0 => return Err(ErrorKind::WriteZero.into()),
                count => sent += count,
            }
        }
    }
    Ok(())
}

/// Time that is left.
fn left(until: Instant) -> std::io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machines_own_are_served() {
        for good in ["127.0.0.1:9184", "127.9.9.9:1", "[::1]:9184", "[::ffff:127.0.0.1]:80"] {
            assert!(loopback(good).is_ok(), "{good}");
        }
        for open in ["0.0.0.0:9184", "[::]:9184", "192.168.1.2:9184", "[2001:db8::1]:9184"] {
            let refused = loopback(open).expect_err(open);
            assert!(
                refused.contains("can be reached from other machines") && refused.contains("127.0.0.1:9184"),
                "{refused}"
            );
        }
        for bad in ["", "9184", "127.0.0.1", "localhost:9184", "127.0.0.1:99999"] {
            assert!(loopback(bad).expect_err(bad).starts_with("expected an address and a port"), "{bad}");
        }
    }

    #[test]
    fn requests_are_understood_when_they_are_whole_and_refused_when_they_are_wrong() {
        let whole = b"GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n";
        assert_eq!(understand(whole), Some(Asked::Metrics));
        for end in 0..whole.len() {
            assert_eq!(understand(&whole[..end]), None, "{end}");
        }
        let status = |request: &[u8]| match understand(request) {
            Some(Asked::Refused(status, _)) => status.split(' ').next().expect("a number"),
            other => panic!("{other:?}"),
        };
        assert_eq!(understand(b"HEAD /metrics HTTP/1.0\r\n\r\n"), Some(Asked::Head));
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(status(b"POST /metrics HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(status(b"\0\xff\n"), "400");
        assert_eq!(status(b"{\"get\":\"all\"}\n"), "400");
        assert_eq!(
            status(
                &[b"GET /metrics HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(FIELDS + 1), b"\r\n"].concat()
            ),
            "400"
        );
        let endless = [b"GET /".as_slice(), &[b'x'; LONGEST]].concat();
        assert_eq!((status(&endless), understand(&endless[..LONGEST])), ("431", None));
    }
}
