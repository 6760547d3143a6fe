//! The EEPROM: its image, the read register EERD, and the four wires of EEC that a driver may move itself.

use super::kind::Kind;

/// Words of the image. EEC.EE_SIZE says 2^(8 + 6).
pub(super) const WORDS: usize = 16384;

const EMPTY: u16 = 0xffff;
const CHECKSUM_AT: usize = 0x3f;
const CHECKSUM: u16 = 0xbaba;

/// EERD.START.
const START: u32 = 1 << 0;
/// EERD.DONE.
const DONE: u32 = 1 << 1;

const SK: u32 = 1 << 0;
const CS: u32 = 1 << 1;
const DI: u32 = 1 << 2;
const DO: u32 = 1 << 3;
const REQ: u32 = 1 << 6;
const GNT: u32 = 1 << 7;

/// SPI instructions of the part.
const SPI_READ: u8 = 0x03;
const SPI_READ_STATUS: u8 = 0x05;

/// Where the sections are that the image has.
const CORE_0: usize = 0x50;
const PCIE_ANALOG: usize = 0x58;
const PCIE_GENERAL: usize = 0x60;
/// Words of the X550's general PCIe section.
const X550_PCIE_GENERAL: usize = 0x24;
const FIRMWARE: usize = 0x100;
const PASS_THROUGH: usize = 0x120;
const SFP_INIT: usize = 0x140;

/// SFP types of the init list: passive copper, optics, on the first and the second port.
const SFP_TYPES: [u16; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// EEPROM with its serial interface.
#[derive(Debug)]
pub(super) struct Eeprom {
    words: Box<[u16]>,
    spi: Spi,
}

/// A transfer on the four wires.
#[derive(Debug, Default)]
struct Spi {
    clock: bool,
    selected: bool,
    bits: u32,
    instruction: u8,
    address: u16,
    out: bool,
}

impl Eeprom {
    /// An image for a card with this address.
    pub(super) fn new(kind: Kind, mac: [u8; 6]) -> Self {
        let mut words = vec![EMPTY; WORDS].into_boxed_slice();
        words[0x00] = 0x0024;
        words[0x15] = 0x1234;
        words[0x16] = 0x0000;
        words[0x2a] = 0x0000;
        words[0x2b] = SFP_INIT as u16;
        // Device capabilities: any SFP+ module may be used.
        words[0x2c] = 0x0001;
        words[0x2d] = 0x0001;
        words[0x03] = PCIE_ANALOG as u16;
        words[0x06] = PCIE_GENERAL as u16;
        words[0x09] = CORE_0 as u16;
        words[0x0f] = FIRMWARE as u16;
        section(&mut words, PCIE_ANALOG, &[0x0000]);
        match kind.x550() {
            // Of known length: it does not begin with it.
            true => words[PCIE_GENERAL..][..X550_PCIE_GENERAL].fill(0x0014),
            false => section(&mut words, PCIE_GENERAL, &[0x0000, 0x0014, 0x6cf6]),
        }
        let [a, b, c] = [0, 2, 4].map(|at| u16::from_le_bytes([mac[at], mac[at + 1]]));
        section(&mut words, CORE_0, &[a, b, c]);
        // Firmware: the pass-through module, whose patch version is above 5.
        words[FIRMWARE + 4] = PASS_THROUGH as u16;
        words[PASS_THROUGH + 7] = 6;
        // SFP init list: an empty sequence for every type of module.
        let empty = SFP_INIT + 2 * SFP_TYPES.len() + 2;
        for (n, id) in SFP_TYPES.into_iter().enumerate() {
            words[SFP_INIT + 1 + 2 * n] = id;
            words[SFP_INIT + 2 + 2 * n] = empty as u16;
        }
        words[SFP_INIT] = (2 * SFP_TYPES.len()) as u16;
        let sum = sum(kind, &words).wrapping_sub(words[CHECKSUM_AT]);
        words[CHECKSUM_AT] = CHECKSUM.wrapping_sub(sum);
        Self { words, spi: Spi::default() }
    }

    /// A word; all ones past the end.
    pub(super) fn word(&self, address: usize) -> u16 {
        self.words.get(address).copied().unwrap_or(EMPTY)
    }

    /// Change a word, without mending the checksum.
    pub(super) fn set_word(&mut self, address: usize, value: u16) {
        if let Some(word) = self.words.get_mut(address) {
            *word = value;
        }
    }

    /// The station address of the first port.
    pub(super) fn mac(&self) -> [u8; 6] {
        let core = self.word(0x09) as usize;
        let mut mac = [0; 6];
        for n in 0..3 {
            mac[2 * n..2 * n + 2].copy_from_slice(&self.word(core + 1 + n).to_le_bytes());
        }
        mac
    }

    /// What EERD holds after a write of `value`.
    pub(super) fn eerd(&self, value: u32) -> u32 {
        if value & START == 0 {
            return value;
        }
        let address = value >> 2 & 0x3fff;
        (self.word(address as usize) as u32) << 16 | address << 2 | DONE
    }

    /// What EEC holds after a write of `value` over `old`: the request is granted at once, the wires do what they do.
    pub(super) fn write_eec(&mut self, old: u32, value: u32) -> u32 {
        const WRITABLE: u32 = SK | CS | DI | 0x30 | REQ;
        let mut eec = old & !(WRITABLE | GNT | DO) | value & WRITABLE;
        if value & REQ != 0 {
            eec |= GNT;
        }
        self.spi.wires(value & CS == 0 && value & REQ != 0, value & SK != 0, value & DI != 0, &self.words);
        if self.spi.out {
            eec |= DO;
        }
        eec
    }
}

/// Sum over the image's basic part and the sections that it points to. The later cards' leaves out PHY and option ROM; the X550's takes
/// in another pointer and two more words, and has sections of known length.
fn sum(kind: Kind, words: &[u16]) -> u16 {
    let (last, pointers) = match kind {
        Kind::I82599 | Kind::X540 => (CHECKSUM_AT, 0x03..0x0f),
        Kind::X550 | Kind::X552 => (0x41, 0x02..0x0f),
    };
    let counts = |pointer: &usize| {
        let covered = kind == Kind::I82599 || !matches!(*pointer, 0x04 | 0x05);
        covered && !matches!(words[*pointer], 0 | EMPTY)
    };
    let sections = pointers.filter(counts).flat_map(|pointer| {
        let at = words[pointer] as usize;
        let (start, length) = match pointer {
            0x06 if kind.x550() => (at, X550_PCIE_GENERAL),
            0x07 | 0x08 if kind.x550() => (at, 8),
            _ => (at + 1, words[at] as usize),
        };
        &words[start..][..length]
    });
    words[..=last].iter().chain(sections).fold(0, |sum, &word| sum.wrapping_add(word))
}

/// A section starts with the number of its words.
fn section(words: &mut [u16], at: usize, content: &[u16]) {
    words[at] = content.len() as u16;
    words[at + 1..][..content.len()].copy_from_slice(content);
}

impl Spi {
    /// The wires' new levels. Data is taken on the rising edge and given on the falling one.
    fn wires(&mut self, selected: bool, clock: bool, data: bool, words: &[u16]) {
        let edge = clock != self.clock;
        self.clock = clock;
        if !selected {
            *self = Self { clock, ..Self::default() };
            return;
        }
        if !self.selected {
            self.selected = true;
            return;
        }
        if edge && clock {
            match self.bits {
                0..8 => self.instruction = self.instruction << 1 | data as u8,
                8..24 if self.instruction == SPI_READ => self.address = self.address << 1 | data as u16,
                _ => {}
            }
            self.bits = self.bits.saturating_add(1);
        } else if edge {
            self.out = match (self.instruction, self.bits) {
                (SPI_READ, 24..) => {
                    let bit = self.bits - 24;
                    let byte = (self.address as usize).wrapping_add((bit / 8) as usize);
                    let word = words.get(byte / 2).copied().unwrap_or(EMPTY);
                    // Bytes are in memory order, a word's low byte first.
                    word.to_le_bytes()[byte % 2] >> (7 - bit % 8) & 1 != 0
                }
                // Ready, not write-protected.
                (SPI_READ_STATUS, 8..) => false,
                _ => false,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0x1b, 0x21, 0x82, 0x59, 0x09];

    #[test]
    fn checksum_covers_the_basic_words_and_the_sections() {
        for kind in Kind::ALL {
            let eeprom = Eeprom::new(kind, MAC);
            assert_eq!(sum(kind, &eeprom.words), CHECKSUM);
            assert_eq!(eeprom.mac(), MAC);
        }
    }

    #[test]
    fn eerd_answers_with_the_word_and_done() {
        let eeprom = Eeprom::new(Kind::default(), MAC);
        let answer = eeprom.eerd(0x0f << 2 | START);
        assert_eq!(answer, 0x0100 << 16 | 0x0f << 2 | DONE);
        assert_eq!(eeprom.eerd(0x3fff << 2 | START) >> 16, EMPTY as u32);
    }

    #[test]
    fn firmware_pointer_leads_to_a_version_above_5() {
        let eeprom = Eeprom::new(Kind::default(), MAC);
        let module = eeprom.word(eeprom.word(0x0f) as usize + 4) as usize;
        assert!(eeprom.word(module + 7) > 5);
    }

    #[test]
    fn the_init_list_has_an_empty_sequence_for_optics() {
        let eeprom = Eeprom::new(Kind::default(), MAC);
        let mut at = eeprom.word(0x2b) as usize + 1;
        while eeprom.word(at) != 5 {
            assert_ne!(eeprom.word(at), EMPTY);
            at += 2;
        }
        assert_eq!(eeprom.word(eeprom.word(at + 1) as usize), EMPTY);
    }

    #[test]
    fn four_wires_read_the_same_words() {
        let mut eeprom = Eeprom::new(Kind::default(), MAC);
        let mut eec = eeprom.write_eec(0x4700, REQ);
        assert_ne!(eec & GNT, 0);
        for (word, expected) in [(0x0fusize, 0x0100u16), (0x3f, eeprom.word(0x3f)), (0x51, 0x1b02)] {
            eec = eeprom.write_eec(eec, REQ | CS);
            eec = eeprom.write_eec(eec, REQ);
            for bit in (0..24).rev() {
                let di = if (((SPI_READ as u32) << 16) | (2 * word as u32)) >> bit & 1 != 0 { DI } else { 0 };
                eec = eeprom.write_eec(eec, REQ | di);
                eec = eeprom.write_eec(eec, REQ | di | SK);
                eec = eeprom.write_eec(eec, REQ | di);
            }
            let mut value = 0u16;
            for _ in 0..16 {
                eec = eeprom.write_eec(eec, REQ | SK);
                value = value << 1 | (eec & DO != 0) as u16;
                eec = eeprom.write_eec(eec, REQ);
            }
            assert_eq!(value.swap_bytes(), expected, "word {word:#x}");
        }
        eec = eeprom.write_eec(eec, CS);
        assert_eq!(eec & GNT, 0);
    }
}
