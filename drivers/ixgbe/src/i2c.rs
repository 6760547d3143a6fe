//! The two wires to the module, moved bit by bit through I2CCTL (section 8.2.3.1.5): 100 kHz at most, a single master.
//!
//! Every write is read back before its delay begins, since a posted write may be held up (82599 specification update,
//! "Serial Interfaces Programmed by Bit Banging").

use std::time::{Duration, Instant};

use pagewire_ethdev::nic::Registers;

use crate::registers::*;

/// Half a clock at 100 kHz: longer than any set-up or hold time of the bus.
const HALF: Duration = Duration::from_micros(5);
/// How long a module may hold the clock down (SFF-8431 allows 500 µs).
const STRETCH: Duration = Duration::from_millis(1);
/// Clocks after which a module that waits for the rest of a byte has had it.
const RECOVERY_CLOCKS: usize = 9;

/// Nobody acknowledged, or the clock was held down.
#[derive(Debug)]
pub(crate) struct NoAnswer;

/// The bus, while the firmware keeps off it.
pub(crate) struct Bus<'a> {
    registers: &'a Registers,
    /// Levels driven.
    driven: u32,
    /// The clock did not rise in time: the transfer is over.
    held: bool,
}

impl<'a> Bus<'a> {
    pub(crate) fn new(registers: &'a Registers) -> Bus<'a> {
        Bus { registers, driven: i2cctl::CLK_OUT | i2cctl::DATA_OUT, held: false }
    }

    /// Read bytes from `offset` on of the device at `address`, which is eight bits with the lowest 0.
    pub(crate) fn read(&mut self, address: u8, offset: u8, into: &mut [u8]) -> Result<(), NoAnswer> {
        self.held = false;
        let done = self.transfer(address, offset, into);
        if done.is_err() {
            self.recover();
        }
        self.stop();
        done
    }

    fn transfer(&mut self, address: u8, offset: u8, into: &mut [u8]) -> Result<(), NoAnswer> {
        self.start();
        self.send(address)?;
        self.send(offset)?;
        self.start();
        self.send(address | 1)?;
        let count = into.len();
        for (number, byte) in into.iter_mut().enumerate() {
            *byte = (0..8).fold(0, |bits, _| bits << 1 | u8::from(self.bit(true)));
            // The last byte is not acknowledged: no more are wanted.
            self.bit(number + 1 == count);
            if self.held {
                return Err(NoAnswer);
            }
        }
        Ok(())
    }

    /// Data falls while the clock is high. Also in the middle of a transfer, to begin the next.
    fn start(&mut self) {
        self.drive(i2cctl::DATA_OUT, true);
        self.raise_clock();
        self.drive(i2cctl::DATA_OUT, false);
        self.drive(i2cctl::CLK_OUT, false);
    }

    /// Data rises while the clock is high.
    fn stop(&mut self) {
        self.drive(i2cctl::DATA_OUT, false);
        self.raise_clock();
        self.drive(i2cctl::DATA_OUT, true);
    }

    /// A byte, highest bit first, and the other end's acknowledgement.
    fn send(&mut self, byte: u8) -> Result<(), NoAnswer> {
        for number in (0..8).rev() {
            self.bit(byte >> number & 1 != 0);
        }
        match self.bit(true) || self.held {
            false => Ok(()),
            true => Err(NoAnswer),
        }
    }

    /// Clock one bit, and return the level that the wire has with it: a 1 leaves it to the other end.
    fn bit(&mut self, level: bool) -> bool {
        self.drive(i2cctl::DATA_OUT, level);
        let lines = self.raise_clock();
        self.drive(i2cctl::CLK_OUT, false);
        lines & i2cctl::DATA_IN != 0
    }

    /// Free a bus that a module holds because a transfer was cut short.
    fn recover(&mut self) {
        self.drive(i2cctl::CLK_OUT, false);
        for _ in 0..RECOVERY_CLOCKS {
            self.bit(true);
        }
    }

    /// Raise the clock and wait until it is high, which a slow module may put off. Returns the lines then.
    fn raise_clock(&mut self) -> u32 {
        self.drive(i2cctl::CLK_OUT, true);
        let limit = Instant::now() + STRETCH;
        let mut lines = self.registers.read(I2CCTL);
        while lines & i2cctl::CLK_IN == 0 && !self.held {
            self.held = Instant::now() >= limit;
            lines = self.registers.read(I2CCTL);
        }
        lines
    }

    /// Set a line, and wait until it has settled. Costs nothing if the line has that level: where a register is a message,
    /// it is the number of accesses that takes the time.
    fn drive(&mut self, line: u32, high: bool) {
        let driven = if high { self.driven | line } else { self.driven & !line };
        if driven != self.driven {
            self.driven = driven;
            self.registers.write(I2CCTL, driven);
            self.registers.read(I2CCTL);
            let until = Instant::now() + HALF;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
    }
}
