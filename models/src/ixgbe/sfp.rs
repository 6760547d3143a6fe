//! The SFP+ module's memory behind the two-wire bus of I2CCTL (SFF-8472, SFF-8431; bus: 8.2.3.1).

const CLOCK_IN: u32 = 1 << 0;
const CLOCK_OUT: u32 = 1 << 1;
const DATA_IN: u32 = 1 << 2;
const DATA_OUT: u32 = 1 << 3;

/// The module's identification, and its diagnostics.
const ADDRESSES: [u8; 2] = [0xa0, 0xa2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody speaks to us.
    Idle,
    /// Taking the bus address.
    Address,
    /// Addressed for reading, the acknowledge bit not over.
    Turn,
    /// Taking the byte number.
    Offset,
    /// Taking bytes, which are not kept: the memory is read-only.
    Write,
    /// Giving bytes.
    Read,
}

/// A short-range optical module, as seen on its two wires.
#[derive(Debug)]
pub(super) struct Sfp {
    memory: [[u8; 256]; 2],
    clock: bool,
    data: bool,
    /// The module lets the data wire go.
    released: bool,
    state: State,
    bits: u8,
    byte: u8,
    which: usize,
    offset: u8,
}

impl Default for Sfp {
    fn default() -> Self {
        Self::new()
    }
}

impl Sfp {
    /// A 10GBASE-SR module.
    pub(super) fn new() -> Self {
        let mut id = [0u8; 256];
        id[0] = 0x03; // SFP or SFP+
        id[1] = 0x04; // defined by the two-wire interface alone
        id[2] = 0x07; // LC
        id[3] = 0x10; // 10GBASE-SR
        id[6] = 0x01; // 1000BASE-SX
        id[11] = 0x06; // 64B/66B
        id[12] = 103; // 10.3 Gb/s
        id[16] = 8; // 80 m on 50 µm
        id[17] = 2; // 20 m on 62.5 µm
        id[20..36].copy_from_slice(b"pagewire        ");
        id[37..40].copy_from_slice(&[0x00, 0x1b, 0x21]);
        id[40..56].copy_from_slice(b"MODEL-10G-SR    ");
        id[56..60].copy_from_slice(b"1   ");
        id[60..62].copy_from_slice(&850u16.to_be_bytes());
        id[63] = id[..63].iter().fold(0, |sum, &b| sum.wrapping_add(b));
        id[68..84].copy_from_slice(b"0000000000000001");
        id[84..92].copy_from_slice(b"260101  ");
        id[95] = id[64..95].iter().fold(0, |sum, &b| sum.wrapping_add(b));
        Self {
            memory: [id, [0; 256]],
            clock: true,
            data: true,
            released: true,
            state: State::Idle,
            bits: 0,
            byte: 0,
            which: 0,
            offset: 0,
        }
    }

    /// Change a byte of the identification.
    pub(super) fn set_byte(&mut self, address: u8, value: u8) {
        self.memory[0][address as usize] = value;
    }

    /// What I2CCTL reads as: the levels of the two open-drain wires, and what the card drives.
    pub(super) fn read(&self) -> u32 {
        let mut value = 0;
        if self.clock {
            value |= CLOCK_IN | CLOCK_OUT;
        }
        if self.data {
            value |= DATA_OUT;
            if self.released {
                value |= DATA_IN;
            }
        }
        value
    }

    /// I2CCTL written: the card's levels.
    pub(super) fn write(&mut self, value: u32, present: bool) {
        let (clock, data) = (value & CLOCK_OUT != 0, value & DATA_OUT != 0);
        let (clock_before, data_before) = (self.clock, self.data);
        self.clock = clock;
        self.data = data;
        if !present {
            self.released = true;
            self.state = State::Idle;
        } else if clock && clock_before && data != data_before {
            // Data moves while the clock is high: stop, or (repeated) start.
            self.released = true;
            self.bits = 0;
            self.byte = 0;
            self.state = if data { State::Idle } else { State::Address };
        } else if clock && !clock_before {
            self.rise();
        } else if !clock && clock_before {
            self.fall();
        }
    }

    /// The receiver looks at the wire.
    fn rise(&mut self) {
        if self.state == State::Idle {
            return;
        }
        if self.bits < 8 {
            self.byte = self.byte << 1 | self.data as u8;
        } else if self.state == State::Read && self.data {
            // Not acknowledged: that was the last byte wanted.
            self.state = State::Idle;
        }
        self.bits += 1;
    }

    /// The sender changes the wire.
    fn fall(&mut self) {
        if self.state == State::Idle {
            self.released = true;
            return;
        }
        match self.bits {
            8 if self.state == State::Read => self.released = true,
            8 => self.acknowledge(),
            9 => {
                if self.state == State::Turn {
                    self.state = State::Read;
                }
                self.bits = 0;
                self.byte = 0;
                self.give();
            }
            _ => self.give(),
        }
    }

    /// A byte has come in: pull the wire low if it is for us.
    fn acknowledge(&mut self) {
        match self.state {
            State::Address => match ADDRESSES.iter().position(|&a| a == self.byte & !1) {
                Some(which) => {
                    self.which = which;
                    // The acknowledge bit of a read's address is ours, not the reader's.
                    self.state = if self.byte & 1 != 0 { State::Turn } else { State::Offset };
                    self.released = false;
                }
                None => {
                    self.released = true;
                    self.state = State::Idle;
                }
            },
            State::Offset => {
                self.offset = self.byte;
                self.state = State::Write;
                self.released = false;
            }
            State::Write | State::Read | State::Turn | State::Idle => self.released = false,
        }
    }

    /// Put the next bit on the wire when reading.
    fn give(&mut self) {
        self.released = true;
        if self.state == State::Read {
            self.released = self.memory[self.which][self.offset as usize] >> (7 - self.bits) & 1 != 0;
            if self.bits == 7 {
                self.offset = self.offset.wrapping_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A driver's side of the bus.
    struct Master {
        sfp: Sfp,
        present: bool,
    }

    impl Master {
        fn set(&mut self, clock: bool, data: bool) -> bool {
            let value = if clock { CLOCK_OUT } else { 0 } | if data { DATA_OUT } else { 0 };
            self.sfp.write(value, self.present);
            self.sfp.read() & DATA_IN != 0
        }

        fn start(&mut self) {
            self.set(false, true);
            self.set(true, true);
            self.set(true, false);
            self.set(false, false);
        }

        fn stop(&mut self) {
            self.set(false, false);
            self.set(true, false);
            self.set(true, true);
        }

        fn bit(&mut self, data: bool) -> bool {
            self.set(false, data);
            self.set(true, data);
            let seen = self.sfp.read() & DATA_IN != 0;
            self.set(false, data);
            seen
        }

        /// Gives whether it was acknowledged.
        fn put(&mut self, byte: u8) -> bool {
            for n in (0..8).rev() {
                self.bit(byte >> n & 1 != 0);
            }
            !self.bit(true)
        }

        fn get(&mut self, last: bool) -> u8 {
            let byte = (0..8).fold(0, |byte, _| byte << 1 | self.bit(true) as u8);
            self.bit(last);
            byte
        }
    }

    fn master(present: bool) -> Master {
        Master { sfp: Sfp::new(), present }
    }

    #[test]
    fn a_module_says_what_it_is() {
        let mut bus = master(true);
        for (offset, expected) in [(0u8, 0x03u8), (3, 0x10), (37, 0x00), (38, 0x1b), (39, 0x21), (255, 0)] {
            bus.start();
            assert!(bus.put(0xa0));
            assert!(bus.put(offset));
            bus.start();
            assert!(bus.put(0xa1));
            assert_eq!(bus.get(true), expected, "byte {offset}");
            bus.stop();
        }
    }

    #[test]
    fn reading_goes_on_until_not_acknowledged() {
        let mut bus = master(true);
        bus.start();
        assert!(bus.put(0xa0) && bus.put(20));
        bus.start();
        assert!(bus.put(0xa1));
        let name: Vec<u8> = (0..8).map(|n| bus.get(n == 7)).collect();
        bus.stop();
        assert_eq!(name, b"pagewire");
    }

    #[test]
    fn nobody_answers_at_other_addresses_or_without_a_module() {
        let mut bus = master(true);
        bus.start();
        assert!(!bus.put(0xac));
        bus.stop();
        let mut bus = master(false);
        bus.start();
        assert!(!bus.put(0xa0));
        bus.stop();
    }

    #[test]
    fn both_checksums_hold() {
        let [id, _] = Sfp::new().memory;
        assert_eq!(id[63], id[..63].iter().fold(0u8, |s, &b| s.wrapping_add(b)));
        assert_eq!(id[95], id[64..95].iter().fold(0u8, |s, &b| s.wrapping_add(b)));
    }
}
