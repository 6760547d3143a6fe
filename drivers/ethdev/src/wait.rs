use std::time::{Duration, Instant};

/// Ask `done` until it says yes or `limit` has passed; returns its last answer.
///
/// For registers: a wait without a limit would hand the process to the device. `done` is asked once more after the
/// limit, so that a process that was not scheduled for a while does not mistake that for a dead device.
pub fn poll_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() >= limit {
            return done();
        }
        std::thread::sleep(Duration::from_micros(50).min(limit / 10));
    }
}
