//! The statistics registers (section 10.2.7), cleared by reading.

use pagewire_ethdev::counters;

// name                                register  offset (+ upper half)
counters! {
    "rx_crc_errors"                       CRCERRS  0x4000;
    "rx_alignment_errors"                 ALGNERRC 0x4004;
    "rx_phy_errors"                       RXERRC   0x400c;
    "rx_missed_packets"                   MPC      0x4010;
    "tx_single_collisions"                SCC      0x4014;
    "tx_excessive_collisions"             ECOL     0x4018;
    "tx_multiple_collisions"              MCC      0x401c;
    "tx_late_collisions"                  LATECOL  0x4020;
    "tx_collisions"                       COLC     0x4028;
    "tx_deferred"                         DC       0x4030;
    "tx_no_carrier_sense"                 TNCRS    0x4034;
    "rx_carrier_extension_errors"         CEXTERR  0x403c;
    "rx_length_errors"                    RLEC     0x4040;
    "rx_xon_packets"                      XONRXC   0x4048;
    "tx_xon_packets"                      XONTXC   0x404c;
    "rx_xoff_packets"                     XOFFRXC  0x4050;
    "tx_xoff_packets"                     XOFFTXC  0x4054;
    "rx_flow_control_unsupported_packets" FCRUC    0x4058;
    "rx_size_64_packets"                  PRC64    0x405c;
    "rx_size_65_to_127_packets"           PRC127   0x4060;
    "rx_size_128_to_255_packets"          PRC255   0x4064;
    "rx_size_256_to_511_packets"          PRC511   0x4068;
    "rx_size_512_to_1023_packets"         PRC1023  0x406c;
    "rx_size_1024_to_max_packets"         PRC1522  0x4070;
    "rx_good_packets"                     GPRC     0x4074;
    "rx_broadcast_packets"                BPRC     0x4078;
    "rx_multicast_packets"                MPRC     0x407c;
    "tx_good_packets"                     GPTC     0x4080;
    "rx_good_bytes"                       GORC     0x4088 + 0x408c;
    "tx_good_bytes"                       GOTC     0x4090 + 0x4094;
    "rx_no_buffer_packets"                RNBC     0x40a0;
    "rx_undersize_packets"                RUC      0x40a4;
    "rx_fragments"                        RFC      0x40a8;
    "rx_oversize_packets"                 ROC      0x40ac;
    "rx_jabbers"                          RJC      0x40b0;
    "rx_management_packets"               MGTPRC   0x40b4;
    "rx_management_dropped_packets"       MGTPDC   0x40b8;
    "tx_management_packets"               MGTPTC   0x40bc;
    "rx_total_bytes"                      TOR      0x40c0 + 0x40c4;
    "tx_total_bytes"                      TOT      0x40c8 + 0x40cc;
    "rx_total_packets"                    TPR      0x40d0;
    "tx_total_packets"                    TPT      0x40d4;
    "tx_size_64_packets"                  PTC64    0x40d8;
    "tx_size_65_to_127_packets"           PTC127   0x40dc;
    "tx_size_128_to_255_packets"          PTC255   0x40e0;
    "tx_size_256_to_511_packets"          PTC511   0x40e4;
    "tx_size_512_to_1023_packets"         PTC1023  0x40e8;
    "tx_size_1024_to_max_packets"         PTC1522  0x40ec;
    "tx_multicast_packets"                MPTC     0x40f0;
    "tx_broadcast_packets"                BPTC     0x40f4;
}
