//! The statistics registers of a virtual function (section 8.3.5): they run on, whoever reads them, and count what passes within the
//! card as well.

use pagewire_ethdev::counters;

// name                 register offset (high half and its bits) width
counters! {
    "rx_good_packets"      VFGPRC 0x101c runs on 32;
    "rx_multicast_packets" VFMPRC 0x1034 runs on 32;
    "rx_good_bytes"        VFGORC 0x1020 + 0x1024 & 0xf runs on 36;
    "tx_good_packets"      VFGPTC 0x201c runs on 32;
    "tx_good_bytes"        VFGOTC 0x2020 + 0x2024 & 0xf runs on 36;
}
