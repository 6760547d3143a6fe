//! What a virtual function and its physical one may ask of each other, and what becomes of nonsense.

mod common;

use std::sync::atomic::Ordering::Relaxed;

use common::bench::{bytes, receive};
use common::functions::*;
use common::{config, eventually, pool, space};
use pagewire_ethdev::{
    Error, FlowAction, FlowRule, FunctionConfig, MacAddr, Port, PortConfig, RxQueue, RxQueueConfig, TxQueue,
};
use pagewire_ixgbe::Ixgbe;

/// Whatever stands in the mailbox, the answer is no, and the card and the others go on.
#[test]
fn garbage_in_the_mailbox_is_refused() {
    const VFMAILBOX: usize = 0x2fc;
    const VFMBMEM: usize = 0x200;
    let served = serve(2);
    let mut physical = Physical::start(&served, &TWO, |_, _| ());
    let mut b = Virtual::start(&served, 1);
    let space = space();
    let function = space.open_vfio_user(&served.paths[1]).unwrap();
    let bar = function.bar(0).unwrap();
    let ask = |question: &[u32]| {
        let mut seen = 0;
        let mut status = |bit: u32| {
            seen |= bar.read32(VFMAILBOX);
            seen & bit != 0
        };
        // Ours, and what was said before is not the answer.
        eventually("the mailbox", || {
            bar.write32(VFMAILBOX, 1 << 2);
            bar.read32(VFMAILBOX) & 1 << 2 != 0
        });
        (0..16).for_each(|n| bar.write32(VFMBMEM + 4 * n, question.get(n).copied().unwrap_or(0)));
        bar.write32(VFMAILBOX, 1);
        eventually("an answer", || status(1 << 4));
        let answer: [u32; 4] = std::array::from_fn(|n| bar.read32(VFMBMEM + 4 * n));
        bar.write32(VFMAILBOX, 1 << 1);
        answer
    };
    let no = |question: u32, answer: u32| {
        assert_eq!(answer & 0xc000_0000, 0x4000_0000, "{question:#x} was answered by {answer:#x}");
    };
    // Before it has said that it is there nothing is granted, whatever it says.
    eventually("the card is ready", || bar.read32(VFMAILBOX) & 0x40 == 0);
    for kind in (0..0x20).filter(|kind| *kind != 1) {
        no(kind, ask(&[kind, 3])[0]);
    }
    assert_eq!(ask(&[1])[0], 0x8000_0001, "its reset is answered");
    assert_eq!(ask(&[8, 3])[0], 0xa000_0008, "version 1.2 is known");
    let broken: &[&[u32]] = &[
        &[0],
        &[7],
        &[8, 1],
        &[8, 77],
        &[10],
        &[11],
        &[0xffff_ffff, 1, 2, 3],
        &[2, 0, 0],
        &[2, 0x0100_5e01, 0],
        &[2, 0x0000_0002, 0x0100],
        &[3 | 31 << 16, u32::MAX],
        &[3 | 255 << 16],
        &[4 | 1 << 16, 4095],
        &[4 | 1 << 16, u32::MAX],
        &[5, 0],
        &[5, 63],
        &[5, 1519],
        &[5, u32::MAX],
        &[6 | 1 << 16, 2, 3],
        &[12, 2],
        &[12, 3],
        &[12, u32::MAX],
        &[0x100],
    ];
    for question in broken {
        no(question[0], ask(question)[0]);
    }
    // More VLANs than there is room for.
    let granted = (0..100).filter(|vlan| ask(&[4 | 1 << 16, *vlan])[0] & 1 << 31 != 0).count();
    assert_eq!(granted, 64);
    // At random, with a seed that is told.
    let mut state = 0x1234_5678_9abc_def1u64;
    for round in 0..300 {
        let question: Vec<u32> = (0..16)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 16) as u32
            })
            .collect();
        // A kind that there is, every other time.
        let first = if round % 2 == 0 { question[0] & 0xff_000f } else { question[0] };
        let answer = ask(&[&[first], &question[1..]].concat())[0];
        assert!(answer & 0xc000_0000 != 0 && answer & 0xffff == first & 0xffff, "round {round}: {answer:#x}");
    }
    // Asking without waiting, or keeping the mailbox, holds nobody up.
    (0..50).for_each(|_| bar.write32(VFMAILBOX, 0xf));
    bar.write32(VFMAILBOX, 1 << 2);
    let sent = b.send(OWN, b"meanwhile");
    assert_eq!(bytes(&receive(&mut physical.rx, 1)[0][0]), sent);
    b.port.set_multicast(&[MacAddr([1, 2, 3, 4, 5, 6])]).unwrap();
    b.stop();
    drop((bar, function));
    let a = Virtual::start(&served, 0);
    a.stop();
    served.assert_clean();
    physical.stop();
}

/// A physical function that says what none says: an error in bounded time, or bounded to what there can be.
#[test]
fn nonsense_from_the_physical_function_is_bounded() {
    const PFMAILBOX: usize = 0x4b00;
    const PFMBMEM: usize = 0x13000;
    type Answers = fn(u32) -> [u32; 5];
    let cases: [(Answers, &str); 6] = [
        (|_| [0; 5], "0x00000000"),
        (|_| [u32::MAX; 5], "0xffffffff"),
        (|kind| [(kind + 1) | 1 << 31, 2, 0, 0, 0], "granted or refused"),
        (|kind| [kind | 3 << 30, 2, 0, 0, 0], "granted or refused"),
        // A group's address, and queues without end: it makes an address up, and has eight.
        (|kind| [kind | 1 << 31, u32::MAX, u32::MAX, u32::MAX, u32::MAX], ""),
        // Everything but its reset is refused: version 1.0, one queue.
        (|kind| [kind | if kind == 1 { 1 << 31 } else { 1 << 30 }, 2, 7 << 8, 0, 0], ""),
    ];
    for (number, (answers, expected)) in cases.into_iter().enumerate() {
        let served = serve(1);
        let space = space();
        let card = space.open_vfio_user(&served.paths[0]).unwrap();
        let bar = card.bar(0).unwrap();
        bar.write32(0x18, 1 << 14);
        let done = std::sync::atomic::AtomicBool::new(false);
        let opened = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    let asked = bar.read32(0x710);
                    bar.write32(0x710, asked);
                    if asked & 1 != 0 {
                        let kind = bar.read32(PFMBMEM) & 0xffff;
                        for (word, value) in answers(kind).into_iter().enumerate() {
                            bar.write32(PFMBMEM + 4 * word, value);
                        }
                        bar.write32(PFMAILBOX, 3);
                    }
                }
            });
            let opened = common::within(10, || open_vf(&served, 0, &common::space()));
            done.store(true, Relaxed);
            opened
        });
        match (opened, expected) {
            (Ok(port), "") => {
                let info = port.info();
                let queues = if number == 4 { 8 } else { 1 };
                assert_eq!(info.capabilities.rx_queues, queues);
                assert!(info.mac.is_valid_unicast());
                assert_eq!(info.mac.0 == [2, 0, 0, 0, 0, 7], number == 5, "{}", info.mac);
            }
            (Err(error), expected) => {
                assert!(
                    !expected.is_empty() && error.to_string().contains(expected),
                    "case {number}: {error}"
                );
            }
            (Ok(_), expected) => panic!("case {number}: {expected}"),
        }
    }
}

#[test]
fn what_cannot_be_beside_functions_is_refused() {
    let served = serve(2);
    let space = space();
    let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&served.paths[0]).unwrap()).unwrap();
    let mac = |last| Some(MacAddr([2, 0, 0, 0, 0, last]));
    let functions = |macs: &[Option<MacAddr>]| -> Vec<FunctionConfig> {
        macs.iter().map(|mac| FunctionConfig { mac: *mac, trusted: false }).collect()
    };
    for (asked, expected) in [
        (functions(&[None; 63]), "virtual functions 63 is not possible; the port has 62"),
        (functions(&[mac(5), mac(5)]), "an address of its own"),
        (functions(&[mac(1)]), "an address of its own"),
        (functions(&[Some(MacAddr::BROADCAST)]), "an address of its own"),
    ] {
        let config = PortConfig { functions: asked, ..config(&space) };
        let error = port.start(config).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut several = PortConfig { functions: TWO.to_vec(), ..config(&space) };
    for _ in 0..2 {
        several.rx.push(RxQueueConfig::new(pool(&space, 512), 64));
    }
    let error = port.start(several).err().expect("three queues").to_string();
    assert!(error.contains("1, 2 or 4 of its own beside 2 virtual functions"), "{error}");
    // Without functions these buffers hold what the MTU lets in: its frames come by the MAC alone.
    let narrow = PortConfig { functions: TWO.to_vec(), ..config(&space) };
    let error = port.start(narrow).err().expect("1,792 bytes").to_string();
    assert!(error.contains("receive buffers of 1024 bytes, and RxOffloads::SCATTER"), "{error}");
    let (rx, tx) = port.start(beside(&space, &TWO)).unwrap();
    assert!(matches!(port.set_vlan_filter(Some(&[5])), Err(Error::Unsupported { .. })));
    port.set_vlan_filter(None).unwrap();
    let rule = FlowRule::new(FlowAction::Drop);
    assert!(matches!(port.set_flows(&[rule]), Err(Error::Unsupported { .. })));
    let many: Vec<MacAddr> = (0..126).map(|n| MacAddr([2, 1, 0, 0, 0, n])).collect();
    assert!(matches!(port.set_extra_unicast(&many), Err(Error::Unsupported { .. })));
    port.set_extra_unicast(&many[..125]).unwrap();
    drop((rx, tx));
    port.stop().unwrap();
    served.assert_clean();
}

/// A function may have no more than is its physical function's to give.
#[test]
fn a_longer_mtu_than_the_cards_is_refused() {
    let mut served = serve(1);
    let physical = Physical::start(&served, &TWO[..1], |_, config| config.mtu = 1600);
    let space = space();
    let mut port = open_vf(&served, 0, &space).unwrap();
    let refused = PortConfig { mtu: 1601, ..vf_config(&space, 1) };
    let error = port.start(refused).err().expect("too long");
    assert!(error.to_string().contains("refuses an MTU of 1601"), "{error}");
    let (mut rx, tx) = port.start(PortConfig { mtu: 1600, ..vf_config(&space, 1) }).unwrap();
    let mac = port.info().mac;
    let long = addressed(mac, OUTSIDE, &vec![7; 1600]);
    served.give(&long);
    assert_eq!(bytes(&receive(&mut rx, 1)[0][0]), long);
    let mut tx = tx;
    tx[0].reclaim();
    assert_eq!(rx[0].posted(), 64);
    drop((rx, tx));
    port.stop().unwrap();
    served.assert_clean();
    physical.stop();
}
