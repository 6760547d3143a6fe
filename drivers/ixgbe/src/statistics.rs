//! The statistics registers (section 8.2.3.23): all cleared by reading.
//!
//! Byte counters have 36 bits and include the frame check sequence. Queues count in set 0, as RQSMR is after a reset, but for what is dropped by
//! flow rules and by virtual functions.

use pagewire_ethdev::counters;
use pagewire_ethdev::nic::Device;

use crate::registers::RQSMR;

// name                            register   offset (high half and its bits, or array)
counters! {
    "rx_crc_errors"                CRCERRS    0x4000;
    "rx_illegal_byte_errors"       ILLERRC    0x4004;
    "rx_error_bytes"               ERRBC      0x4008;
    "rx_mac_short_packet_discards" MSPDC      0x4010;
    "rx_missed_packets"            RXMPC      0x3fa0 [4 x 8];
    "rx_no_descriptor_packets"     QPRDC      0x1430;
    // What virtual functions were too slow for: see `functions/pools.rs`.
    "rx_functions_no_descriptor_packets" QPRDC_14 0x17b0;
    // What flow rules drop: see `flows.rs`.
    "rx_flow_dropped_packets"      QPRDC_15   0x17f0;
    "rx_local_faults"              MLFC       0x4034;
    "rx_remote_faults"             MRFC       0x4038;
    "rx_length_errors"             RLEC       0x4040;
    "rx_xon_packets"               LXONRXCNT  0x41a4;
    "tx_xon_packets"               LXONTXC    0x3f60;
    "rx_xoff_packets"              LXOFFRXCNT 0x41a8;
    "tx_xoff_packets"              LXOFFTXC   0x3f68;
    "rx_size_64_packets"           PRC64      0x405c;
    "rx_size_65_to_127_packets"    PRC127     0x4060;
    "rx_size_128_to_255_packets"   PRC255     0x4064;
    "rx_size_256_to_511_packets"   PRC511     0x4068;
    "rx_size_512_to_1023_packets"  PRC1023    0x406c;
    "rx_size_1024_to_max_packets"  PRC1522    0x4070;
    "rx_good_packets"              GPRC       0x4074;
    "rx_broadcast_packets"         BPRC       0x4078;
    "rx_multicast_packets"         MPRC       0x407c;
    "tx_good_packets"              GPTC       0x4080;
    "rx_good_bytes"                GORC       0x4088 + 0x408c & 0xf;
    "tx_good_bytes"                GOTC       0x4090 + 0x4094 & 0xf;
    "rx_undersize_packets"         RUC        0x40a4;
    "rx_fragments"                 RFC        0x40a8;
    "rx_oversize_packets"          ROC        0x40ac;
    "rx_jabbers"                   RJC        0x40b0;
    "rx_management_packets"        MNGPRC     0x40b4;
    "rx_management_dropped_packets" MNGPDC    0x40b8;
    "tx_management_packets"        MNGPTC     0xcf90;
    "rx_total_bytes"               TOR        0x40c0 + 0x40c4 & 0xf;
    "rx_total_packets"             TPR        0x40d0;
    "tx_total_packets"             TPT        0x40d4;
    "tx_size_64_packets"           PTC64      0x40d8;
    "tx_size_65_to_127_packets"    PTC127     0x40dc;
    "tx_size_128_to_255_packets"   PTC255     0x40e0;
    "tx_size_256_to_511_packets"   PTC511     0x40e4;
    "tx_size_512_to_1023_packets"  PTC1023    0x40e8;
    "tx_size_1024_to_max_packets"  PTC1522    0x40ec;
    "tx_multicast_packets"         MPTC       0x40f0;
    "tx_broadcast_packets"         BPTC       0x40f4;
    "rx_checksum_errors"           XEC        0x4120;
    "rx_dma_packets"               RXDGPC     0x2f50;
    "rx_dma_bytes"                 RXDGBC     0x2f54 + 0x2f58 & 0xf;
    "tx_dma_packets"               TXDGPC     0x87a0;
    "tx_dma_bytes"                 TXDGBC     0x87a4 + 0x87a8 & 0xf;
}

/// Frames that there was no room for: in the packet buffer, or in a queue that drops.
pub(crate) const RX_MISSED: &[&str] = &["rx_missed_packets", "rx_no_descriptor_packets"];
/// Broken frames, each in one of these. Without "rx_jabbers", whose wrong check sequences are counted as such (8.2.3.23.1).
pub(crate) const RX_ERRORS: &[&str] = &[
    "rx_crc_errors",
    // Not "rx_illegal_byte_errors": such a frame fails its check as well.
    "rx_length_errors",
    "rx_undersize_packets",
    "rx_fragments",
    "rx_oversize_packets",
];

/// Have a receive queue count in another set than 0.
pub(crate) fn count_in(device: &Device, queue: usize, set: u32) {
    let shift = queue % 4 * 8;
    device.registers.modify_at(RQSMR, queue / 4, 0xf << shift, set << shift);
}
