//! The register file: storage for every register of the [table](super::table), its access modes, and a record of what was
//! reached for that is not there.

use super::kind::Kind;
use super::table::TABLE;

/// Bytes of the register BAR.
pub const BAR_SIZE: u32 = 128 << 10;

/// What reading and writing a register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads give the value, writes are ignored.
    Ro,
    /// Reads give what was written.
    Rw,
    /// Reads give the value and clear it, writes are ignored: statistics.
    Rc,
    /// Writing ones clears those bits.
    W1c,
    /// Reads give 0.
    Wo,
}

/// The unit of the card that a register belongs to, if more than storage hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Storage only, or read by a unit when it works.
    Plain,
    /// Device control and status.
    Control,
    /// EEPROM.
    Eeprom,
    /// Two-wire bus to the SFP+ module.
    Sfp,
    /// MAC, link and pins.
    Link,
    /// Interrupts.
    Interrupt,
    /// One receive queue's block, by queue.
    Receive,
    /// One transmit queue's block, by queue.
    Transmit,
    /// Station addresses.
    Address,
    /// Five-tuple filters.
    FiveTuple,
    /// The key of receive-side scaling.
    Hash,
    /// What the card has of its virtual functions: mailboxes, resets, switches.
    Function,
    /// Commands to the firmware.
    Firmware,
    /// A second address of registers elsewhere: of queue blocks (stride 0x40) or of the same stride.
    Alias(u32, u32),
}

/// One line of the table: a register, or an array of them.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// The datasheet's name.
    pub name: &'static str,
    /// Offset of the first, from the BAR's start.
    pub offset: u32,
    /// Bytes from one to the next.
    pub stride: u32,
    /// How many there are.
    pub count: u32,
    /// What accesses do.
    pub access: Access,
    /// Value after a reset.
    pub reset: u32,
    /// Section of the 82599 datasheet that describes it.
    pub section: &'static str,
    /// Whose it is.
    pub unit: Unit,
    /// Software resets leave it alone: semaphores with firmware, PCIe.
    pub sticky: bool,
    /// Those that have it.
    pub kinds: &'static [Kind],
}

impl Register {
    /// A single register.
    pub const fn new(
        name: &'static str,
        offset: u32,
        access: Access,
        reset: u32,
        section: &'static str,
    ) -> Self {
        Self {
            name,
            offset,
            stride: 4,
            count: 1,
            access,
            reset,
            section,
            unit: Unit::Plain,
            sticky: false,
            kinds: &Kind::ALL,
        }
    }

    /// An array, this the first of it.
    pub const fn array(mut self, stride: u32, count: u32) -> Self {
        self.stride = stride;
        self.count = count;
        self
    }

    /// Owned by a unit.
    pub const fn of(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Left alone by software resets.
    pub const fn sticky(mut self) -> Self {
        self.sticky = true;
        self
    }

    /// Of the X540 and what came after it.
    pub const fn x540(mut self) -> Self {
        self.kinds = &[Kind::X540, Kind::X550, Kind::X552];
        self
    }

    /// Of the X550's generation.
    pub const fn x550(mut self) -> Self {
        self.kinds = &[Kind::X550, Kind::X552];
        self
    }

    /// Of the X552.
    pub const fn x552(mut self) -> Self {
        self.kinds = &[Kind::X552];
        self
    }
}

const UNKNOWN: u16 = u16::MAX;
const WORDS: usize = BAR_SIZE as usize / 4;

/// Accesses to an offset where the table has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAccess {
    /// Offset in the BAR.
    pub offset: u32,
    /// How often it was read.
    pub reads: u64,
    /// How often it was written.
    pub writes: u64,
}

/// The registers' values.
#[derive(Debug)]
pub(super) struct Registers {
    kind: Kind,
    values: Box<[u32]>,
    lines: Box<[u16]>,
    unknown: Vec<UnknownAccess>,
}

impl Default for Registers {
    fn default() -> Self {
        Self::new()
    }
}

impl Registers {
    /// All of an 82599's registers at their reset values.
    pub(super) fn new() -> Self {
        Self::of(Kind::I82599)
    }

    /// Those of another card of the family.
    pub(super) fn of(kind: Kind) -> Self {
        let mut lines = vec![UNKNOWN; WORDS].into_boxed_slice();
        // The first line that names an offset has it: some blocks overlap others' unused words.
        let of_kind = |register: &Register| register.kinds.contains(&kind);
        for (line, register) in TABLE.iter().enumerate().filter(|(_, register)| of_kind(register)) {
            for n in 0..register.count {
                let word = &mut lines[((register.offset + n * register.stride) / 4) as usize];
                if *word == UNKNOWN {
                    *word = line as u16;
                }
            }
        }
        let mut registers =
            Self { kind, values: vec![0; WORDS].into_boxed_slice(), lines, unknown: Vec::new() };
        registers.load(true);
        registers
    }

    /// Whose they are.
    #[inline]
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    fn load(&mut self, all: bool) {
        for (value, &line) in self.values.iter_mut().zip(&self.lines) {
            let Some(register) = TABLE.get(line as usize) else { continue };
            if all || !register.sticky {
                *value = register.reset;
            }
        }
    }

    /// What a software reset does: everything but the sticky registers at its reset value.
    pub(super) fn reset(&mut self) {
        self.load(false);
    }

    /// What a function-level reset or power-up does.
    pub(super) fn reset_all(&mut self) {
        self.load(true);
    }

    /// The register at an offset, which must be a multiple of 4 inside the BAR, and its index in its array.
    pub(super) fn lookup(&self, offset: u32) -> Option<(&'static Register, u32)> {
        let line = *self.lines.get((offset / 4) as usize)?;
        let register = TABLE.get(line as usize)?;
        Some((register, (offset - register.offset) / register.stride))
    }

    /// A register's value, without the effects of reading it.
    #[inline]
    pub(super) fn get(&self, offset: u32) -> u32 {
        self.values[(offset / 4) as usize % WORDS]
    }

    /// Change a register's value, without the effects of writing it.
    #[inline]
    pub(super) fn set(&mut self, offset: u32, value: u32) {
        self.values[(offset / 4) as usize % WORDS] = value;
    }

    /// Whether any of some bits is set in a register.
    #[inline]
    pub(super) fn has(&self, offset: u32, bits: u32) -> bool {
        self.get(offset) & bits != 0
    }

    /// Count in a 32-bit statistics register, which sticks at its maximum (8.2.3.23).
    #[inline]
    pub(super) fn count(&mut self, offset: u32, n: u32) {
        let value = &mut self.values[(offset / 4) as usize % WORDS];
        *value = value.saturating_add(n);
    }

    /// Count in a 36-bit statistics register: its low word at `offset`, its upper four bits `high` bytes after it.
    #[inline]
    pub(super) fn count36(&mut self, offset: u32, n: u32) {
        let low = self.get(offset);
        let (sum, carry) = low.overflowing_add(n);
        if !carry {
            self.set(offset, sum);
        } else if self.get(offset + 4) == 0xf {
            self.set(offset, u32::MAX);
        } else {
            self.set(offset, sum);
            self.set(offset + 4, self.get(offset + 4) + 1);
        }
    }

    /// Read a register as its line says.
    pub(super) fn read(&mut self, register: &Register, offset: u32) -> u32 {
        let value = self.get(offset);
        match register.access {
            Access::Ro | Access::Rw | Access::W1c => value,
            Access::Rc => {
                self.set(offset, 0);
                value
            }
            Access::Wo => 0,
        }
    }

    /// Write a register as its line says.
    pub(super) fn write(&mut self, register: &Register, offset: u32, value: u32) {
        match register.access {
            Access::Rw | Access::Wo => self.set(offset, value),
            Access::W1c => self.set(offset, self.get(offset) & !value),
            Access::Ro | Access::Rc => {}
        }
    }

    /// Remember an access to an offset that the table does not have. Logged when it is the offset's first.
    #[cold]
    pub(super) fn note_unknown(&mut self, offset: u32, write: Option<u32>) {
        let at = match self.unknown.binary_search_by_key(&offset, |u| u.offset) {
            Ok(at) => at,
            Err(at) => {
                match write {
                    Some(value) => log::warn!("82599: write of {value:#x} to unknown register {offset:#07x}"),
                    None => log::warn!("82599: read of unknown register {offset:#07x}"),
                }
                self.unknown.insert(at, UnknownAccess { offset, reads: 0, writes: 0 });
                at
            }
        };
        match write {
            Some(_) => self.unknown[at].writes += 1,
            None => self.unknown[at].reads += 1,
        }
    }

    /// Offsets that were accessed and that the table does not have, in ascending order.
    pub(super) fn unknown(&self) -> &[UnknownAccess] {
        &self.unknown
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::*;
    use super::*;

    #[test]
    fn every_line_is_inside_the_bar_and_found_under_its_own_offset() {
        let registers = Registers::of(Kind::X552);
        for register in TABLE {
            let last = register.offset + (register.count - 1) * register.stride;
            assert!(register.offset % 4 == 0 && last + 4 <= BAR_SIZE, "{}", register.name);
            assert!(register.stride >= 4 && register.section.starts_with("8.2.3."), "{}", register.name);
            let (found, n) = registers.lookup(register.offset).expect(register.name);
            assert_eq!((found.name, n), (register.name, 0));
            if let Unit::Alias(to, stride) = register.unit {
                for n in 0..register.count {
                    let (of, _) = registers.lookup(to + n * stride).expect(register.name);
                    assert!(!matches!(of.unit, Unit::Alias(..)), "{} names a second name", register.name);
                }
            }
        }
    }

    #[test]
    fn wide_counters_carry_and_stick() {
        let mut registers = Registers::new();
        registers.set(GORCL, u32::MAX);
        registers.count36(GORCL, 3);
        assert_eq!((registers.get(GORCL), registers.get(GORCL + 4)), (2, 1));
        registers.set(GORCL, u32::MAX - 1);
        registers.set(GORCL + 4, 0xf);
        registers.count36(GORCL, 100);
        assert_eq!((registers.get(GORCL), registers.get(GORCL + 4)), (u32::MAX, 0xf));
        registers.set(GPRC, u32::MAX - 1);
        registers.count(GPRC, 5);
        let (line, _) = registers.lookup(GPRC).unwrap();
        assert_eq!(registers.read(line, GPRC), u32::MAX);
        assert_eq!(registers.read(line, GPRC), 0);
    }

    #[test]
    fn unknown_offsets_are_counted() {
        let mut registers = Registers::new();
        assert!(registers.lookup(0x1_fff0).is_none());
        registers.note_unknown(0x1_fff0, None);
        registers.note_unknown(0x1_fff0, Some(1));
        registers.note_unknown(0x1_0ff0, None);
        assert_eq!(registers.unknown().len(), 2);
        assert_eq!(registers.unknown()[1], UnknownAccess { offset: 0x1_fff0, reads: 1, writes: 1 });
    }
}
