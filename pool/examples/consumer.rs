//! Receives packets that another process hands over, and says what they are: the smallest consumer.
//!
//! ```text
//! pagewire l2fwd --capture-socket /tmp/watch &
//! cargo run -p pagewire-pool --example consumer /tmp/watch
//! ```

use std::process::ExitCode;
use std::time::Duration;

use pagewire_pool::handover::{Access, Consumer, Error};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("consumer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: consumer SOCKET")?;
    let consumer = Consumer::attach(path, Access::Read)?;
    let names = consumer.producers();
    println!("{consumer:?}: may hold {} fragments of each", consumer.quota());
    let mut counts = vec![(0u64, 0u64); names.len()];
    loop {
        match consumer.wait(Duration::from_secs(1)) {
            Ok(true) => {}
            Ok(false) => {
                println!("{counts:?} packets and bytes of {names:?}");
                continue;
            }
            Err(Error::Closed { .. }) => break,
            Err(error) => return Err(error.into()),
        }
        while let Some(packet) = consumer.receive()? {
            if let Some((packets, bytes)) = counts.get_mut(packet.producer()) {
                *packets += 1;
                *bytes += packet.len() as u64;
            }
            // Dropped here, and so given back.
        }
    }
    println!("{counts:?} packets and bytes of {names:?}; their process has ended");
    Ok(())
}
