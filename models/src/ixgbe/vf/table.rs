//! A virtual function's registers, one line each: name, offset, array, what it is, section of the 82599 datasheet.
//!
//! Most are the card's own in another place, for one pool (7.10.2): the line then names the card's register that behaves so, and the
//! stride of that one's array.

use super::super::table::*;

/// Bytes of the register BAR.
pub(super) const BAR_SIZE: u32 = 16 << 10;
/// Queues whose registers there are.
pub(super) const QUEUES: u32 = 8;

/// What a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// VFCTRL, which resets.
    Control,
    /// VFSTATUS.
    Status,
    /// VFLINKS: the card's LINKS.
    Links,
    /// VFFRTIMER: microseconds.
    Timer,
    /// VFMAILBOX.
    Mailbox,
    /// VFMBMEM.
    Memory,
    /// It behaves as the card's register at this offset, the next as the one so many bytes after it.
    Same(u32, u32),
    /// As the same, but is not cleared by reading.
    Counter(u32),
}

use Meaning::{Control, Counter, Links, Mailbox, Memory, Same, Status, Timer};

/// One line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) offset: u32,
    pub(super) stride: u32,
    pub(super) count: u32,
    pub(super) meaning: Meaning,
    pub(super) section: &'static str,
}

const fn line(
    name: &'static str,
    offset: u32,
    (stride, count): (u32, u32),
    meaning: Meaning,
    section: &'static str,
) -> Line {
    Line { name, offset, stride, count, meaning, section }
}

const ONE: (u32, u32) = (4, 1);
const EACH: (u32, u32) = (0x40, QUEUES);

/// Every register.
#[rustfmt::skip]
pub(super) const LINES: &[Line] = &[
    line("VFCTRL",       0x0000, ONE,     Control,                  "8.3.5"),
    line("VFSTATUS",     0x0008, ONE,     Status,                   "8.3.5"),
    line("VFLINKS",      0x0010, ONE,     Links,                    "8.3.5"),
    line("VFFRTIMER",    0x0048, ONE,     Timer,                    "8.3.5"),
    line("VFMAILBOX",    0x02fc, ONE,     Mailbox,                  "8.3.5"),
    line("VFMBMEM",      0x0200, (4, 16), Memory,                   "8.3.5"),
    line("VFRXMEMWRAP",  0x3190, ONE,     Same(RXMEMWRAP, 4),       "8.3.5"),
    line("VTEICR",       0x0100, ONE,     Same(EICR, 4),            "8.3.5"),
    line("VTEICS",       0x0104, ONE,     Same(EICS, 4),            "8.3.5"),
    line("VTEIMS",       0x0108, ONE,     Same(EIMS, 4),            "8.3.5"),
    line("VTEIMC",       0x010c, ONE,     Same(EIMC, 4),            "8.3.5"),
    line("VTEIAC",       0x0110, ONE,     Same(EIAC, 4),            "8.3.5"),
    line("VTEIAM",       0x0114, ONE,     Same(EIAM, 4),            "8.3.5"),
    line("VTIVAR",       0x0120, (4, 4),  Same(IVAR, 4),            "8.3.5"),
    line("VTIVAR_MISC",  0x0140, ONE,     Same(IVAR_MISC, 4),       "8.3.5"),
    line("VTRSCINT",     0x0180, (4, 3),  Same(RSCINT, 4),         "8.3.5"),
    line("VTEITR",       0x0820, (4, 3),  Same(EITR, 4),            "8.3.5"),
    line("VFPSRTYPE",    0x0300, ONE,     Same(PSRTYPE, 4),         "8.3.5"),
    line("VFRDBAL",      0x1000, EACH,    Same(RDBAL, 0x40),        "8.3.5"),
    line("VFRDBAH",      0x1004, EACH,    Same(RDBAH, 0x40),        "8.3.5"),
    line("VFRDLEN",      0x1008, EACH,    Same(RDLEN, 0x40),        "8.3.5"),
    line("VFRDH",        0x1010, EACH,    Same(RDH, 0x40),          "8.3.5"),
    line("VFRDT",        0x1018, EACH,    Same(RDT, 0x40),          "8.3.5"),
    line("VFRXDCTL",     0x1028, EACH,    Same(RXDCTL, 0x40),       "8.3.5"),
    line("VFSRRCTL",     0x1014, EACH,    Same(SRRCTL, 0x40),       "8.3.5"),
    line("VFRSCCTL",     0x102c, EACH,    Same(RSCCTL, 0x40),       "8.3.5"),
    line("VFTDBAL",      0x2000, EACH,    Same(TDBAL, 0x40),        "8.3.5"),
    line("VFTDBAH",      0x2004, EACH,    Same(TDBAH, 0x40),        "8.3.5"),
    line("VFTDLEN",      0x2008, EACH,    Same(TDLEN, 0x40),        "8.3.5"),
    line("VFTDH",        0x2010, EACH,    Same(TDH, 0x40),          "8.3.5"),
    line("VFTDT",        0x2018, EACH,    Same(TDT, 0x40),          "8.3.5"),
    line("VFTXDCTL",     0x2028, EACH,    Same(TXDCTL, 0x40),       "8.3.5"),
    line("VFTDWBAL",     0x2038, EACH,    Same(TDWBAL, 0x40),       "8.3.5"),
    line("VFTDWBAH",     0x203c, EACH,    Same(TDWBAH, 0x40),       "8.3.5"),
    line("VFDCA_RXCTRL", 0x100c, EACH,    Same(DCA_RXCTRL, 0x40),   "8.3.5"),
    line("VFDCA_TXCTRL", 0x200c, EACH,    Same(DCA_TXCTRL, 0x40),   "8.3.5"),
    line("VFGPRC",       0x101c, ONE,     Counter(GPRC),            "8.3.5"),
    line("VFGPTC",       0x201c, ONE,     Counter(GPTC),            "8.3.5"),
    line("VFGORC_LSB",   0x1020, ONE,     Counter(GORCL),           "8.3.5"),
    line("VFGORC_MSB",   0x1024, ONE,     Counter(GORCH),           "8.3.5"),
    line("VFGOTC_LSB",   0x2020, ONE,     Counter(GOTCL),           "8.3.5"),
    line("VFGOTC_MSB",   0x2024, ONE,     Counter(GOTCH),           "8.3.5"),
    line("VFMPRC",       0x1034, ONE,     Counter(MPRC),            "8.3.5"),
];

/// The line that has an offset, a multiple of 4, and where in its array it is.
pub(super) fn lookup(offset: u32) -> Option<(&'static Line, u32)> {
    LINES.iter().find_map(|line| {
        let n = offset.checked_sub(line.offset)? / line.stride;
        (n < line.count && offset == line.offset + n * line.stride).then_some((line, n))
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::registers::Registers;
    use super::*;

    #[test]
    fn every_line_is_in_the_bar_alone_at_its_offset_and_means_a_register_that_there_is() {
        let registers = Registers::new();
        for line in LINES {
            assert!(line.section.starts_with("8.3.5"), "{}", line.name);
            for n in 0..line.count {
                let offset = line.offset + n * line.stride;
                assert!(offset % 4 == 0 && offset + 4 <= BAR_SIZE, "{}", line.name);
                let (found, at) = lookup(offset).expect(line.name);
                assert_eq!((found.name, at), (line.name, n));
                let means = match line.meaning {
                    Same(to, stride) => to + n * stride,
                    Counter(to) => to,
                    _ => continue,
                };
                assert!(registers.lookup(means).is_some(), "{}", line.name);
            }
        }
        assert!(lookup(0x0244).is_none() && lookup(0x1200).is_none() && lookup(!3).is_none());
    }
}
