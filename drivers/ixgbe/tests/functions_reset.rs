//! What becomes of virtual functions and of the card when either is reset, dies or is pulled out.

mod common;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::bench::bytes;
use common::functions::*;
use common::{config, eventually, space};
use pagewire_ethdev::{Error, Link, MacAddr, Port};
use pagewire_ixgbe::{Ixgbe, IxgbeVf};
use pagewire_models::wire::Wire;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[test]
fn without_a_driver_for_the_card_a_function_says_so() {
    let served = serve(1);
    let error = common::within(5, || open_vf(&served, 0, &space()).err().expect("no answer")).to_string();
    assert!(
        error.contains("physical function") && error.contains("started with virtual functions"),
        "{error}"
    );
    // One that is there and has none to look after is no better.
    let space = space();
    let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&served.paths[0]).unwrap()).unwrap();
    let (rx, tx) = port.start(config(&space)).unwrap();
    let error = common::within(5, || open_vf(&served, 0, &common::space()).err().expect("no answer"));
    assert!(matches!(error, Error::Device { .. }), "{error}");
    drop((rx, tx));
    // And one that does not answer.
    port.stop().unwrap();
    let queues = port.start(beside(&space, &TWO[..1])).unwrap();
    let error = common::within(5, || open_vf(&served, 0, &common::space()).err().expect("no answer"));
    assert!(error.to_string().contains("has not answered within 1 s"), "{error}");
    drop(queues);
    port.stop().unwrap();
}

/// The physical function goes and comes: its functions notice, stop, and start again when it is back.
#[test]
fn the_physical_function_goes_and_comes_back() {
    let mut served = serve(2);
    let mut physical = Physical::start(&served, &TWO, |_, _| ());
    let mut a = Virtual::start(&served, 0);
    for _ in 0..3 {
        assert!(a.port.check().is_ok());
        physical.stop();
        eventually("a notice", || a.port.check().is_err());
        assert!(matches!(a.port.check(), Err(Error::WasReset { .. })), "until it is started again");
        assert_eq!(a.port.link(), Link::Down);
        // Its queues are dead and harmless.
        a.send(OUTSIDE, b"to nobody");
        served.assert_nothing();
        drop((std::mem::take(&mut a.rx), std::mem::take(&mut a.tx)));
        a.port.stop().unwrap();
        let error = a.port.start(vf_config(&a.space, 1)).err().expect("nobody to talk to");
        assert!(matches!(error, Error::Device { .. }), "{error}");
        physical = Physical::start(&served, &TWO, |_, _| ());
        (a.rx, a.tx) = a.port.start(vf_config(&a.space, 1)).unwrap();
        assert_eq!(a.port.info().mac, a.mac, "its address is its own");
        eventually("the link", || a.port.link().is_up());
        let sent = a.send(OUTSIDE, b"there again");
        assert_eq!(served.take(), sent);
    }
    a.stop();
    served.assert_clean();
    physical.stop();
}

/// A function that is reset, or whose process dies, is forgotten by the card: what was for it is for nobody.
#[test]
fn a_function_goes_and_comes_back() {
    let mut served = serve(2);
    let physical = Physical::start(&served, &TWO, |_, _| ());
    let mut b = Virtual::start(&served, 1);
    for _ in 0..3 {
        let mut a = Virtual::start(&served, 0);
        a.port.set_vlan_filter(Some(&[9])).unwrap();
        a.port.set_multicast(&[MacAddr([1, 0, 0x5e, 9, 9, 9])]).unwrap();
        let sent = b.send(a.mac, b"there");
        assert_eq!(bytes(&a.receive()), sent);
        let mac = a.mac;
        // As when its process dies: nothing is said to anybody.
        drop(a);
        eventually("the card has forgotten it", || {
            b.send(mac, b"gone");
            let mut frame = Vec::new();
            std::thread::sleep(Duration::from_millis(5));
            // What is for no address here goes out.
            served.wire.receive(&mut frame).is_some()
        });
        while served.wire.receive(&mut Vec::new()).is_some() {}
    }
    b.stop();
    served.assert_clean();
    physical.stop();
}

/// The card is pulled out: with it all its functions, which end in errors and give everything back.
#[test]
fn a_card_that_is_pulled_out_takes_its_functions_along() {
    let served = serve(1);
    let space = space();
    let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&served.paths[0]).unwrap()).unwrap();
    let queues = port.start(beside(&space, &TWO[..1])).unwrap();
    let port = Arc::new(Mutex::new(port));
    let (answering, stop) = (port.clone(), Arc::new(AtomicBool::new(false)));
    let told = stop.clone();
    let answers = std::thread::spawn(move || {
        let mut last = Ok(());
        while !told.load(Relaxed) && last.is_ok() {
            last = answering.lock().unwrap().serve_functions();
            std::thread::sleep(Duration::from_micros(500));
        }
        last
    });
    let mut vf = Virtual::start(&served, 0);
    drop(served);
    eventually("a notice", || vf.port.check().is_err());
    assert!(matches!(vf.port.check(), Err(Error::Gone { .. })));
    assert_eq!(vf.port.link(), Link::Down);
    let error = common::within(10, || vf.port.set_mac(MacAddr([2; 6])).unwrap_err());
    assert!(matches!(error, Error::Device { .. }), "{error}");
    vf.send(OUTSIDE, b"to nobody");
    common::within(10, || drop(vf));
    let answered = common::within(10, || answers.join().unwrap());
    assert!(matches!(answered, Err(Error::Gone { .. })), "{answered:?}");
    stop.store(true, Relaxed);
    drop(queues);
}

/// Who drives the card need not look all the time: what its functions ask raises its interrupt.
#[test]
fn the_card_is_told_by_interrupt() {
    let served = serve(1);
    let space = space();
    let mut port = Ixgbe::with_function(&space, space.open_vfio_user(&served.paths[0]).unwrap()).unwrap();
    let queues = port.start(beside(&space, &TWO[..1])).unwrap();
    eventually("the link", || port.link().is_up());
    let opening = {
        let path = served.paths[1].clone();
        std::thread::spawn(move || {
            let space = common::space();
            IxgbeVf::with_function(&space, space.open_vfio_user(&path).unwrap()).map(drop)
        })
    };
    let mut answered = 0;
    while !opening.is_finished() {
        let interrupt = port.event_interrupt().expect("MSI-X");
        let mut fds = [PollFd::new(&interrupt, PollFlags::IN)];
        let fired = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 500_000_000 })).unwrap();
        // Acknowledged first: what comes after that raises it again.
        port.link();
        port.serve_functions().unwrap();
        answered += fired;
    }
    opening.join().unwrap().unwrap();
    assert!(answered >= 2, "its reset, and questions");
    drop(queues);
    port.stop().unwrap();
    served.assert_clean();
}

/// What happens to a function's link, or to its physical function, raises its interrupt.
#[test]
fn a_function_is_told_by_interrupt() {
    let served = serve(1);
    let physical = Physical::start(&served, &TWO[..1], |_, _| ());
    let mut vf = Virtual::start(&served, 0);
    let has_fired = |vf: &Virtual| {
        let interrupt = vf.port.event_interrupt().expect("MSI-X");
        let mut fds = [PollFd::new(&interrupt, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    // That of its start.
    eventually("quiet", || {
        vf.port.link();
        std::thread::sleep(Duration::from_millis(5));
        !has_fired(&vf)
    });
    for up in [false, true] {
        served.controls[0].set_cable(up);
        eventually("an interrupt", || has_fired(&vf));
        eventually("the link", || vf.port.link().is_up() == up);
        std::thread::sleep(Duration::from_millis(20));
        vf.port.link();
        assert!(!has_fired(&vf));
    }
    physical.stop();
    eventually("an interrupt", || has_fired(&vf));
    assert!(matches!(vf.port.check(), Err(Error::WasReset { .. })));
    drop((std::mem::take(&mut vf.rx), std::mem::take(&mut vf.tx)));
    vf.port.stop().unwrap();
    served.assert_clean();
}
