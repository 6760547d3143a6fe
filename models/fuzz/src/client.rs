//! The client, and a server that is the fuzzer's.
//!
//! The client does all that a driver does to a function. An input is what becomes of the replies to that, one after the
//! other; when it ends they are right. Each is three bytes and what they say follows:
//!
//! | byte | bits |
//! | --- | --- |
//! | 0 | 0-1: the right reply with changes, a body, raw bytes, or a command of the server's before what comes next |
//! | | 2: it is an error; 3: to another message; 4: to another command; 5: the connection ends then |
//! | 1 | 0-3 descriptors, 4-5 their kind |
//! | 2 | bytes that follow: of the body, or raw; for changes pairs of an offset and what is flipped there |

#[path = "../../../pci/src/vfio_user/tests/answers.rs"]
mod answers;

use std::io::Write;
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use pagewire_hugepages::PageSize;
use pagewire_pci::vfio_user::transport::{Broken, Channel, Wait};
use pagewire_pci::vfio_user::wire::{self, Command, Header};
use pagewire_pci::{AddressSpace, AddressSpaceOptions, Error, Function};

use super::input::{Input, descriptors, open_descriptors};

/// For an answer, of which part may never come.
const LIMIT: Duration = Duration::from_millis(20);
/// Messages of the server's own, at most.
const MOST_COMMANDS: usize = 100;

/// Runs one input. Whatever it is, the client does not panic, and keeps no descriptor.
pub fn run(input: &[u8]) {
    // What a process opens once is open then.
    static WARM: LazyLock<()> = LazyLock::new(|| once(&[]));
    LazyLock::force(&WARM);
    let before = open_descriptors();
    once(input);
    assert_eq!(open_descriptors(), before, "descriptors are left");
}

/// A socket's path.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn once(input: &[u8]) {
    let path = std::env::temp_dir().join(format!("pagewire-fuzz-{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket in the folder for temporary files");
    let place = Place(path);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let (socket, _) = listener.accept().expect("the client comes");
            // An error is the end of the connection, at either end.
            let _ = serve(socket, Input(input));
        });
        // An error is what most inputs lead to.
        let _ = drive(&place.0);
        // Should the client never have come.
        let _ = UnixStream::connect(&place.0);
        // Joined, and not only waited for: what the thread had is back then.
        server.join().expect("it does not panic");
    });
}

fn serve(mut raw: UnixStream, mut input: Input<'_>) -> Result<(), Broken> {
    let channel = Channel::accepted(raw.try_clone()?, LIMIT)?;
    let mut body = Vec::new();
    loop {
        let received = channel.receive(&mut body, Wait::All(10 * LIMIT))?;
        let (header, _) = received.ok_or(Broken::Closed)?;
        let Some(command) = Command::from_number(header.command) else { return Ok(()) };
        if header.is_reply() {
            continue;
        }
        let right = answers::right(command, &body);
        let reply = Header { flags: wire::REPLY, ..header };
        for _ in 0..MOST_COMMANDS {
            if answer(&channel, &mut raw, reply, &right, &mut input)? {
                break;
            }
        }
    }
}

/// Says the next thing. Gives whether that was a reply.
fn answer(
    channel: &Channel,
    raw: &mut UnixStream,
    reply: Header,
    right: &[u8],
    input: &mut Input<'_>,
) -> Result<bool, Broken> {
    if input.0.is_empty() {
        channel.send(reply, &[right], &[])?;
        return Ok(true);
    }
    let [kind, extra, length] = [input.byte(), input.byte(), input.byte()];
    let bytes = input.bytes(length.into());
    let fds: Vec<BorrowedFd<'_>> = descriptors(extra);
    let mut header = reply;
    if kind & 1 << 2 != 0 {
        (header.flags, header.error) = (header.flags | wire::ERROR, extra.into());
    }
    header.id ^= u16::from(kind >> 3 & 1);
    header.command ^= u16::from(kind >> 4 & 1);
    match kind & 3 {
        0 => {
            let mut body = right.to_vec();
            for change in bytes.chunks_exact(2) {
                if let Some(byte) = body.get_mut(change[0] as usize) {
                    *byte ^= change[1];
                }
            }
            channel.send(header, &[&body], &fds)?;
        }
        1 => channel.send(header, &[bytes], &fds)?,
        2 => raw.write_all(bytes)?,
        _ => {
            let number = bytes.first().map_or(Command::DmaRead as u16, |&byte| byte.into());
            channel.send(
                Header { flags: header.flags & !wire::REPLY, command: number, ..header },
                &[bytes],
                &fds,
            )?;
            return Ok(false);
        }
    }
    if kind & 1 << 5 != 0 {
        return Err(Broken::Closed);
    }
    Ok(true)
}

type Step = fn(&Function) -> Result<(), Error>;

/// All that a driver does.
fn drive(path: &Path) -> Result<(), Error> {
    let options = AddressSpaceOptions { dma_page_size: PageSize::Size4K, ..AddressSpaceOptions::default() };
    let space = AddressSpace::new(options)?;
    let early = space.allocate_dma(4096, 64)?;
    let function = space.open_vfio_user_within(path, LIMIT)?;
    // Each may fail, and the others are tried then.
    let steps: [Step; 5] = [
        |function| function.config().capabilities().map(drop),
        |function| function.set_bus_master(true),
        |function| function.enable_msix(4)?[0].try_read().map(drop),
        |function| function.enable_intx()?.unmask(),
        Function::reset,
    ];
    for index in 0..6 {
        let Ok(bar) = function.bar(index) else { continue };
        let last = bar.len().saturating_sub(4) & !3;
        for offset in [0, 8, last].into_iter().filter(|offset| offset + 4 <= bar.len()) {
            bar.write32(offset, bar.read32(offset));
            let _ = bar.doorbell(offset).map(|doorbell| doorbell.ring(1));
        }
    }
    for step in steps {
        let _ = step(&function);
    }
    let late = space.allocate_dma(8192, 64);
    drop((early, late));
    Ok(())
}
