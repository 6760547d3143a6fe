//! The server, and a client that is the fuzzer's.
//!
//! An input is a byte of switches and then messages, which are sent all at once: the server finds them, and then the end
//! of the stream. A message is three bytes and a body:
//!
//! | byte | bits |
//! | --- | --- |
//! | 0 | 0-4 the command; 5 no reply wanted; 6 it is a reply, to the server's next command; 7 not a message: raw bytes |
//! | 1 | 0-3 descriptors, 4-5 their kind; 6 a reply is an error; 7 the size that the header gives is wrong |
//! | 2 | bytes of the body, or raw ones, which follow |

#[path = "../../tests/common/card.rs"]
#[allow(dead_code)]
mod card;

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use pagewire_models::server::{ServerOptions, serve_connected};
use pagewire_pci::vfio_user::transport::Channel;
use pagewire_pci::vfio_user::wire::{self, Command, Header, Version};

use super::input::{Input, descriptors, open_descriptors};

/// Longer inputs would fill the socket before the server reads.
const LONGEST: usize = 16 << 10;
/// Nobody answers, and nobody takes what the socket has no room for: soon over.
const TIMEOUT: Duration = Duration::from_millis(5);

/// First byte: begin with a proper `VERSION`.
const GREET: u8 = 1;
/// First byte: offer areas to map.
const MAPPABLE: u8 = 2;

/// Runs one input. Whatever it is, the server does not panic, and keeps no descriptor.
pub fn run(input: &[u8]) {
    let before = open_descriptors();
    let mut input = Input(&input[..input.len().min(LONGEST)]);
    let switches = input.byte();
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let mut raw = ours.try_clone().expect("a descriptor");
    let channel = Channel::accepted(ours, TIMEOUT).expect("a socket takes a time limit");
    if switches & GREET != 0 {
        let version = Version { major: wire::MAJOR, minor: wire::MINOR };
        let header = Header { id: 1, command: Command::Version as u16, ..Header::default() };
        let _ = channel.send(header, &[&version.encode(), &wire::OWN_LIMITS.encode()], &[]);
    }
    let mut replies = 0;
    while !input.0.is_empty() {
        let [kind, extra, length] = [input.byte(), input.byte(), input.byte()];
        let body = input.bytes(length.into());
        let reply = kind & 1 << 6 != 0;
        // Errors mean that there is no more room: the rest is not sent.
        if kind & 1 << 7 != 0 {
            if raw.write_all(body).is_err() {
                break;
            }
            continue;
        }
        let mut header = Header { id: 2, command: (kind & 0x1f).into(), ..Header::default() };
        if kind & 1 << 5 != 0 {
            header.flags |= wire::NO_REPLY;
        }
        if reply {
            (header.id, header.flags) = (replies, header.flags | wire::REPLY);
            replies += 1;
            if extra & 1 << 6 != 0 {
                (header.flags, header.error) = (header.flags | wire::ERROR, 14);
            }
        }
        if extra & 1 << 7 != 0 {
            header.size = body.first().copied().unwrap_or(0).into();
            if raw.write_all(&header.encode()).and_then(|()| raw.write_all(body)).is_err() {
                break;
            }
        } else if channel.send(header, &[body], &descriptors(extra)).is_err() {
            break;
        }
    }
    let _ = raw.shutdown(Shutdown::Write);
    let options = ServerOptions { mappable: switches & MAPPABLE != 0, timeout: TIMEOUT };
    // Why it was dropped is of no interest.
    let _ = serve_connected(&mut card::Card::new(), theirs, &options);
    drop((raw, channel));
    assert_eq!(open_descriptors(), before, "descriptors are left");
}
