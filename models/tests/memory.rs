//! Memory of clients that did not hand it over, or that take it back: they are asked for it, and not trusted with the answer.

mod common;

use std::net::Shutdown;
use std::time::Duration;

use common::raw::{Came, Raw};
use common::{DONE, ECHO, IOVA, LEN, REFUSED, eventually, next_is_served, serve};
use pagewire_pci::vfio_user::transport::Wait;
use pagewire_pci::vfio_user::wire::{self, Command, Header, RegionAccess};

/// Starts a DMA of 16 bytes at `iova`, without waiting.
fn start_echo(raw: &mut Raw, iova: u64) -> u16 {
    raw.bus_master();
    assert!(matches!(raw.write(0, IOVA as u64, &iova.to_le_bytes()), Came::Reply(_)));
    assert!(matches!(raw.write(0, LEN as u64, &16_u32.to_le_bytes()), Came::Reply(_)));
    let header = raw.header(Command::RegionWrite as u16);
    let access = RegionAccess { offset: ECHO as u64, region: 0, count: 4 };
    raw.channel.send(header, &[&access.encode(), &[1, 0, 0, 0]], &[]).unwrap();
    header.id
}

/// Takes a command that the server sends.
fn asked(raw: &Raw, command: Command) -> (Header, Vec<u8>) {
    let mut body = Vec::new();
    let (header, _) = raw.channel.receive(&mut body, Wait::All(Duration::from_secs(5))).unwrap().unwrap();
    assert_eq!((header.command, header.is_reply()), (command as u16, false));
    (Header { flags: wire::REPLY, ..header }, body)
}

#[test]
fn memory_without_a_file_is_asked_for() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    assert_eq!(raw.map(0x1000, 0x1000, 0, None), Came::Reply(Vec::new()));
    let echo = start_echo(&mut raw, 0x1100);
    let (reply, body) = asked(&raw, Command::DmaRead);
    assert_eq!(body, [0x1100_u64.to_le_bytes(), 16_u64.to_le_bytes()].concat());
    // Another command before the answer is carried out after it.
    let between = raw.header(Command::RegionRead as u16);
    let access = RegionAccess { offset: DONE as u64, region: 0, count: 4 };
    raw.channel.send(between, &[&access.encode()], &[]).unwrap();
    raw.channel.send(reply, &[&body, &[5; 16]], &[]).unwrap();
    let (reply, body) = asked(&raw, Command::DmaWrite);
    assert_eq!(body, [0x1110_u64.to_le_bytes(), 16_u64.to_le_bytes(), [6; 8], [6; 8]].concat());
    raw.channel.send(reply, &[&body[..16]], &[]).unwrap();
    assert!(matches!(raw.came(echo), Came::Reply(_)));
    let Came::Reply(done) = raw.came(between.id) else { panic!() };
    assert_eq!(done[16..], [1, 0, 0, 0]);

    // A refusal is the model's to bear.
    let echo = start_echo(&mut raw, 0x1100);
    let (reply, _) = asked(&raw, Command::DmaRead);
    let refusal = Header { flags: wire::REPLY | wire::ERROR, error: libc::EFAULT as u32, ..reply };
    raw.channel.send(refusal, &[], &[]).unwrap();
    assert!(matches!(raw.came(echo), Came::Reply(_)));
    assert_eq!((raw.read(0, DONE as u64), raw.read(0, REFUSED as u64)), (1, 1));
}

#[test]
fn a_client_that_answers_wrongly_for_its_memory_is_dropped() {
    let running = serve(true);
    type Answer = fn(&Raw, Header, &[u8]);
    let cases: [(&str, Answer); 9] = [
        ("silence", |_, _, _| {}),
        ("gone", |raw, _, _| raw.socket.shutdown(Shutdown::Both).unwrap()),
        ("too little", |raw, reply, body| raw.channel.send(reply, &[body, &[1; 15]], &[]).unwrap()),
        ("nothing", |raw, reply, _| raw.channel.send(reply, &[], &[]).unwrap()),
        ("another", |raw, reply, body| {
            raw.channel.send(Header { id: reply.id ^ 1, ..reply }, &[body, &[1; 16]], &[]).unwrap();
        }),
        ("another command", |raw, reply, body| {
            raw.channel.send(Header { command: reply.command + 1, ..reply }, &[body, &[1; 16]], &[]).unwrap();
        }),
        ("another address", |raw, reply, body| {
            raw.channel.send(reply, &[&[body[0] ^ 8], &body[1..], &[1; 16]], &[]).unwrap();
        }),
        ("another length", |raw, reply, body| {
            raw.channel.send(reply, &[&body[..8], &[32, 0, 0, 0, 0, 0, 0, 0], &[1; 32]], &[]).unwrap();
        }),
        ("commands only", |raw, reply, _| {
            let command = Header { flags: 0, command: 4, ..reply };
            // It is dropped somewhere on the way.
            let _ = (0..100).try_for_each(|_| raw.channel.send(command, &[&[0; 16]], &[]));
        }),
    ];
    for (what, answer) in cases {
        let mut raw = Raw::greeted(&running.path);
        raw.map(0x1000, 0x1000, 0, None);
        start_echo(&mut raw, 0x1000);
        let (reply, body) = asked(&raw, Command::DmaRead);
        let clients = running.count(|counters| &counters.clients);
        answer(&raw, reply, &body);
        let mut body = Vec::new();
        eventually(what, || raw.channel.receive(&mut body, Wait::Rest(Duration::from_secs(1))).is_err());
        next_is_served(&running, what);
        assert_eq!(running.count(|counters| &counters.clients), clients + 1);
    }
}

#[test]
fn files_that_may_shrink_are_no_danger() {
    let running = serve(true);
    let mut raw = Raw::greeted(&running.path);
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x2000).unwrap();
    assert_eq!(raw.map(0x1000, 0x1000, 0x1000, Some(&file)), Came::Reply(Vec::new()));
    let echo = start_echo(&mut raw, 0x1000);
    assert!(matches!(raw.came(echo), Came::Reply(_)));
    assert_eq!((raw.read(0, DONE as u64), raw.read(0, REFUSED as u64)), (1, 0));
    let mut written = [0; 16];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut written, 0x1010).unwrap();
    assert_eq!(written, [1; 16]);
    file.set_len(0x1000).unwrap();
    let echo = start_echo(&mut raw, 0x1000);
    assert!(matches!(raw.came(echo), Came::Reply(_)));
    assert_eq!((raw.read(0, DONE as u64), raw.read(0, REFUSED as u64)), (1, 1));
    assert_eq!(file.metadata().unwrap().len(), 0x1000, "and nobody made it longer");
}
