//! The statistics registers (section 10.2.7): cleared by reading, made into 64-bit counts here.

use pagewire_ethdev::XStat;

use crate::registers::{Register, Registers};

/// A counter: its name in xstats, its register, and the register with its upper half, read after it, if it has 64 bits.
struct Counter {
    name: &'static str,
    low: Register,
    high: &'static [Register],
}

macro_rules! counters {
    ($($register:ident $low:literal $(+ $high:literal)? $name:literal;)*) => {
        const COUNTERS: &[Counter] = &[$(Counter {
            name: $name,
            low: Register { name: stringify!($register), offset: $low },
            high: &[$(Register { name: stringify!($register), offset: $high })?],
        }),*];
    };
}

// register  offset (high half)  name
counters! {
    CRCERRS  0x4000         "rx_crc_errors";
    ALGNERRC 0x4004         "rx_alignment_errors";
    RXERRC   0x400c         "rx_phy_errors";
    MPC      0x4010         "rx_missed_packets";
    SCC      0x4014         "tx_single_collisions";
    ECOL     0x4018         "tx_excessive_collisions";
    MCC      0x401c         "tx_multiple_collisions";
    LATECOL  0x4020         "tx_late_collisions";
    COLC     0x4028         "tx_collisions";
    DC       0x4030         "tx_deferred";
    TNCRS    0x4034         "tx_no_carrier_sense";
    CEXTERR  0x403c         "rx_carrier_extension_errors";
    RLEC     0x4040         "rx_length_errors";
    XONRXC   0x4048         "rx_xon_packets";
    XONTXC   0x404c         "tx_xon_packets";
    XOFFRXC  0x4050         "rx_xoff_packets";
    XOFFTXC  0x4054         "tx_xoff_packets";
    FCRUC    0x4058         "rx_flow_control_unsupported_packets";
    PRC64    0x405c         "rx_size_64_packets";
    PRC127   0x4060         "rx_size_65_to_127_packets";
    PRC255   0x4064         "rx_size_128_to_255_packets";
    PRC511   0x4068         "rx_size_256_to_511_packets";
    PRC1023  0x406c         "rx_size_512_to_1023_packets";
    PRC1522  0x4070         "rx_size_1024_to_max_packets";
    GPRC     0x4074         "rx_good_packets";
    BPRC     0x4078         "rx_broadcast_packets";
    MPRC     0x407c         "rx_multicast_packets";
    GPTC     0x4080         "tx_good_packets";
    GORC     0x4088 + 0x408c  "rx_good_bytes";
    GOTC     0x4090 + 0x4094  "tx_good_bytes";
    RNBC     0x40a0         "rx_no_buffer_packets";
    RUC      0x40a4         "rx_undersize_packets";
    RFC      0x40a8         "rx_fragments";
    ROC      0x40ac         "rx_oversize_packets";
    RJC      0x40b0         "rx_jabbers";
    MGTPRC   0x40b4         "rx_management_packets";
    MGTPDC   0x40b8         "rx_management_dropped_packets";
    MGTPTC   0x40bc         "tx_management_packets";
    TOR      0x40c0 + 0x40c4  "rx_total_bytes";
    TOT      0x40c8 + 0x40cc  "tx_total_bytes";
    TPR      0x40d0         "rx_total_packets";
    TPT      0x40d4         "tx_total_packets";
    PTC64    0x40d8         "tx_size_64_packets";
    PTC127   0x40dc         "tx_size_65_to_127_packets";
    PTC255   0x40e0         "tx_size_128_to_255_packets";
    PTC511   0x40e4         "tx_size_256_to_511_packets";
    PTC1023  0x40e8         "tx_size_512_to_1023_packets";
    PTC1522  0x40ec         "tx_size_1024_to_max_packets";
    MPTC     0x40f0         "tx_multicast_packets";
    BPTC     0x40f4         "tx_broadcast_packets";
}

/// Counts since the port was opened.
pub(crate) struct Statistics {
    totals: [u64; COUNTERS.len()],
}

impl Statistics {
    /// Start from zero: what the registers hold from before is read away (section 4.6.4).
    pub(crate) fn new() -> Statistics {
        Statistics { totals: [0; COUNTERS.len()] }
    }

    /// Read, and thereby clear, every register.
    pub(crate) fn clear(registers: &Registers) {
        for counter in COUNTERS {
            counter.read(registers);
        }
    }

    /// Add what the registers have counted since they were last read.
    pub(crate) fn update(&mut self, registers: &Registers) {
        for (total, counter) in self.totals.iter_mut().zip(COUNTERS) {
            *total = total.wrapping_add(counter.read(registers));
        }
    }

    /// The sum of the counters with these names.
    pub(crate) fn sum(&self, names: &[&str]) -> u64 {
        COUNTERS
            .iter()
            .zip(self.totals)
            .filter(|(counter, _)| names.contains(&counter.name))
            .map(|(_, total)| total)
            .sum()
    }

    pub(crate) fn xstats(&self) -> impl Iterator<Item = XStat> {
        COUNTERS.iter().zip(self.totals).map(|(counter, value)| XStat { name: counter.name.into(), value })
    }
}

impl Counter {
    fn read(&self, registers: &Registers) -> u64 {
        let read = |register| match registers.read(register) {
            // A card that was pulled out reads as all ones, which no counter reaches in the time between two reads.
            u32::MAX => 0,
            value => u64::from(value),
        };
        self.high.iter().fold(read(self.low), |low, high| low | read(*high) << 32)
    }
}
