//! The card's registers: only those the driver uses, one line each, with the section of the 82599 datasheet.
//!
//! Statistics registers are in `statistics.rs`.

use pagewire_ethdev::registers;

// RW read and write, RO read only, WO write only, W1C cleared by writing ones.
// name      offset   array          mode  section         what it is
registers! {
    CTRL       0x00000                RW  "8.2.3.1.1"   "Device control";
    STATUS     0x00008                RO  "8.2.3.1.2"   "Device status";
    CTRL_EXT   0x00018                RW  "8.2.3.1.3"   "Extended device control";
    ESDP       0x00020                RW  "8.2.3.1.4"   "Software-definable pins, which go to the module's cage";
    I2CCTL     0x00028                RW  "8.2.3.1.5"   "The two wires to the module, bit by bit";

    EEC        0x10010                RW  "8.2.3.2.1"   "EEPROM control";
    EERD       0x10014                RW  "8.2.3.2.2"   "EEPROM read";

    FCTTV      0x03200 [4 x 4]        RW  "8.2.3.3.2"   "Flow control transmit timer values";
    FCRTL      0x03220 [4 x 8]        RW  "8.2.3.3.3"   "Flow control thresholds, low";
    FCRTH      0x03260 [4 x 8]        RW  "8.2.3.3.4"   "Flow control thresholds, high";
    FCRTV      0x032a0                RW  "8.2.3.3.5"   "Flow control refresh threshold";
    FCCFG      0x03d00                RW  "8.2.3.3.7"   "Flow control configuration";

    IOSF_CTRL  0x11144                RW  "8.2.3.4"     "X552: the sideband to its PHY: which register, and what became of it";
    IOSF_DATA  0x11148                RW  "8.2.3.4"     "X552: that register's contents";

    SWSM       0x10140                RW  "8.2.3.4.9"   "Semaphore over SW_FW_SYNC: bit 0 is taken by reading it as 0";
    SW_FW_SYNC 0x10160                RW  "8.2.3.4.11"  "Who owns what: drivers' bits, firmware's five above";
    GCR_EXT    0x11050                RW  "8.2.3.4.12"  "Extended PCIe control";

    EICR       0x00800                W1C "8.2.3.5.1"   "Interrupt causes";
    EICS       0x00808                RW  "8.2.3.5.2"   "Interrupt causes: sets them, and reading it clears none";
    EIMS       0x00880                RW  "8.2.3.5.3"   "Interrupt mask, set";
    EIMC       0x00888                WO  "8.2.3.5.4"   "Interrupt mask, clear";
    EIAC       0x00810                RW  "8.2.3.5.5"   "Causes cleared automatically in MSI-X mode";
    EIAM       0x00890                RW  "8.2.3.5.6"   "Causes masked automatically";
    EIMC_EX    0x00ab0 [4 x 2]        WO  "8.2.3.5.9"   "Interrupt mask of vectors, clear";
    EITR       0x00820 [4 x 24]       RW  "8.2.3.5.12"  "Interval of each vector's interrupts";
    IVAR       0x00900 [4 x 64]       RW  "8.2.3.5.16"  "Which vector each queue raises, two pairs a word";
    IVAR_MISC  0x00a00                RW  "8.2.3.5.17"  "Which vector the causes that are no queue's raise";
    GPIE       0x00898                RW  "8.2.3.5.18"  "General purpose interrupt enable";

    FCTRL      0x05080                RW  "8.2.3.7.1"   "Receive filter control";
    VLNCTRL    0x05088                RW  "8.2.3.7.2"   "VLAN control";
    MCSTCTRL   0x05090                RW  "8.2.3.7.3"   "Multicast control";
    RXCSUM     0x05000                RW  "8.2.3.7.5"   "Receive checksum control";
    RFCTL      0x05008                RW  "8.2.3.7.6"   "Receive filter control: coalescing, NFS";
    MTA        0x05200 [4 x 128]      RW  "8.2.3.7.7"   "Multicast table, a bit for each of 4,096 hashes";
    RAL        0x0a200 [8 x 128]      RW  "8.2.3.7.8"   "Receive address, low";
    RAH        0x0a204 [8 x 128]      RW  "8.2.3.7.9"   "Receive address, high, with its valid bit";
    MPSAR      0x0a600 [4 x 256]      RW  "8.2.3.7.10"  "Pools of each receive address, 64 bits";
    VFTA       0x0a000 [4 x 128]      RW  "8.2.3.7.11"  "VLAN filter table, a bit for each identifier";
    MRQC       0x0ec80                RW  "8.2.3.7.12"  "How frames are spread over receive queues";
    RETA       0x0eb00 [4 x 32]       RW  "8.2.3.7"     "RSS redirection table, four queues a word";
    ERETA      0x0ee80 [4 x 96]       RW  "8.2.3.7"     "The X550's next 384 entries of that table";
    RSSRK      0x0eb80 [4 x 10]       RW  "8.2.3.7"     "RSS hash key";
    PSRTYPE    0x0ea00 [4 x 64]       RW  "8.2.3.7.4"   "Which headers are split off, by pool";
    SAQF       0x0e000 [4 x 128]      RW  "8.2.3.7.16"  "Five-tuple filters: source address";
    DAQF       0x0e200 [4 x 128]      RW  "8.2.3.7.17"  "Five-tuple filters: destination address";
    SDPQF      0x0e400 [4 x 128]      RW  "8.2.3.7.18"  "Five-tuple filters: source and destination port";
    FTQF       0x0e600 [4 x 128]      RW  "8.2.3.7.19"  "Five-tuple filters: what is looked at";
    L34TIMIR   0x0e800 [4 x 128]      RW  "8.2.3.5.19"  "Five-tuple filters: queue and low latency interrupt";
    RQSMR      0x02300 [4 x 32]       RW  "8.2.3.23"    "Statistics set of each receive queue, four queues a word";

    RDBAL      0x01000 [0x40 x 64]    RW  "8.2.3.8.1"   "Receive ring base, low";
    RDBAH      0x01004 [0x40 x 64]    RW  "8.2.3.8.2"   "Receive ring base, high";
    RDLEN      0x01008 [0x40 x 64]    RW  "8.2.3.8.3"   "Receive ring length in bytes";
    RDH        0x01010 [0x40 x 64]    RW  "8.2.3.8.4"   "Receive ring head";
    RDT        0x01018 [0x40 x 64]    RW  "8.2.3.8.5"   "Receive ring tail: the doorbell";
    RXDCTL     0x01028 [0x40 x 64]    RW  "8.2.3.8.6"   "Receive descriptor control";
    RSCCTL     0x0102c [0x40 x 64]    RW  "8.2.3.8.13"  "Receive coalescing";
    SRRCTL     0x01014 [0x40 x 64]    RW  "8.2.3.8.7"   "Receive buffer sizes and descriptor type";
    // The same of queues 64 to 127.
    RDBAL_64   0x0d000 [0x40 x 64]    RW  "8.2.3.8.1"   "Receive ring base, low";
    RDBAH_64   0x0d004 [0x40 x 64]    RW  "8.2.3.8.2"   "Receive ring base, high";
    RDLEN_64   0x0d008 [0x40 x 64]    RW  "8.2.3.8.3"   "Receive ring length in bytes";
    RDH_64     0x0d010 [0x40 x 64]    RW  "8.2.3.8.4"   "Receive ring head";
    RDT_64     0x0d018 [0x40 x 64]    RW  "8.2.3.8.5"   "Receive ring tail: the doorbell";
    RXDCTL_64  0x0d028 [0x40 x 64]    RW  "8.2.3.8.6"   "Receive descriptor control";
    RSCCTL_64  0x0d02c [0x40 x 64]    RW  "8.2.3.8.13"  "Receive coalescing";
    SRRCTL_64  0x0d014 [0x40 x 64]    RW  "8.2.3.8.7"   "Receive buffer sizes and descriptor type";
    RDRXCTL    0x02f00                RW  "8.2.3.8.8"   "Receive DMA control";
    RXPBSIZE   0x03c00 [4 x 8]        RW  "8.2.3.8.9"   "Receive packet buffer sizes";
    RXCTRL     0x03000                RW  "8.2.3.8.10"  "Receive control";
    RSCDBU     0x03028                RW  "8.2.3.8.12"  "Receive coalescing data buffer control";

    DTXMXSZRQ  0x08100                RW  "8.2.3.9.1"   "Bytes of transmit requests that may be pending";
    DMATXCTL   0x04a80                RW  "8.2.3.9.2"   "Transmit DMA control";
    TDBAL      0x06000 [0x40 x 128]   RW  "8.2.3.9.5"   "Transmit ring base, low";
    TDBAH      0x06004 [0x40 x 128]   RW  "8.2.3.9.6"   "Transmit ring base, high";
    TDLEN      0x06008 [0x40 x 128]   RW  "8.2.3.9.7"   "Transmit ring length in bytes";
    TDH        0x06010 [0x40 x 128]   RW  "8.2.3.9.8"   "Transmit ring head";
    TDT        0x06018 [0x40 x 128]   RW  "8.2.3.9.9"   "Transmit ring tail: the doorbell";
    TXDCTL     0x06028 [0x40 x 128]   RW  "8.2.3.9.10"  "Transmit descriptor control";
    TXPBSIZE   0x0cc00 [4 x 8]        RW  "8.2.3.9.13"  "Transmit packet buffer sizes";
    MTQC       0x08120                RW  "8.2.3.9.15"  "Transmit queue arrangement";
    TXPBTHRESH 0x04950 [4 x 8]        RW  "8.2.3.9.16"  "Transmit packet buffer thresholds";

    RTTDCS     0x04900                RW  "8.2.3.10.2"  "Transmit descriptor arbiter";
    RTTDQSEL   0x04904                RW  "8.2.3.10.13" "Queue that RTTBCNRC is of";
    RTTBCNRC   0x04984                RW  "8.2.3.10.16" "Transmit rate limit";
    DCA_RXCTRL 0x0100c [0x40 x 64]    RW  "8.2.3.11.1"  "Receive PCIe attributes";
    DCA_RXCTRL_64 0x0d00c [0x40 x 64] RW  "8.2.3.11.1"  "The same of queues 64 to 127";
    DCA_TXCTRL 0x0600c [0x40 x 128]   RW  "8.2.3.11.2"  "Transmit PCIe attributes";
    SECRXCTRL  0x08d00                RW  "8.2.3.12.5"  "Security block, receive";
    SECRXSTAT  0x08d04                RO  "8.2.3.12.6"  "Security block, receive: status";

    HLREG0     0x04240                RW  "8.2.3.22.8"  "MAC core control";
    MSCA       0x0425c                RW  "8.2.3.22.11" "Commands to the PHY";
    MSRWD      0x04260                RW  "8.2.3.22.12" "What is written to the PHY, and above it what was read";
    MAXFRS     0x04268                RW  "8.2.3.22.13" "Longest frame";
    AUTOC      0x042a0                RW  "8.2.3.22.19" "Link mode";
    LINKS      0x042a4                RO  "8.2.3.22.20" "Link status";
    AUTOC2     0x042a8                RW  "8.2.3.22.22" "Link mode, second part";
    ANLP1      0x042b0                RO  "8.2.3.22.23" "State of the link's state machine";
    MMNGC      0x042d0                RO  "8.2.3.22"    "Management firmware's veto over the link";
    CORECTL    0x14f00                RW  "8.2.3.22.32" "Analog core configuration";
    MFLCN      0x04294                RW  "8.2.3.22.34" "Pause frames received";

    FLEX_MNG   0x15800 [4 x 448]      RW  "8.2.3.25"    "The block of words that a command to the firmware is in, and its answer";
    HICR       0x15f00                RW  "8.2.3.25"    "Commands to the firmware";
    FWSTS      0x15f0c                RW  "8.2.3.25"    "What the firmware tells of itself";

    PFMBICR    0x00710 [4 x 4]        W1C "8.2.3.27"    "Virtual functions' messages and acknowledgements, 16 each";
    PFMBIMR    0x00720 [4 x 2]        RW  "8.2.3.27"    "Whose messages interrupt";
    PFVFLRE    0x00600 [4 x 2]        RO  "8.2.3.27"    "Which functions were reset";
    PFVFLREC   0x00700 [4 x 2]        W1C "8.2.3.27"    "The same, to be cleared";
    PFMAILBOX  0x04b00 [4 x 64]       RW  "8.2.3.27"    "Whose turn each mailbox is";
    PFMBMEM    0x13000 [4 x 1024]     RW  "8.2.3.27"    "The mailboxes' words, 16 each";
    PFVTCTL    0x051b0                RW  "8.2.3.27"    "Pools: switched on, and the default one";
    PFVFRE     0x051e0 [4 x 2]        RW  "8.2.3.27"    "Pools that may receive";
    PFVFTE     0x08110 [4 x 2]        RW  "8.2.3.27"    "Pools that may send";
    PFQDE      0x02f04                RW  "8.2.3.27"    "Queues that drop what they have no descriptor for";
    PFDTXGSWC  0x08220                RW  "8.2.3.27"    "What is sent comes in for other pools";
    PFVMVIR    0x08000 [4 x 64]       RW  "8.2.3.27"    "Tags inserted into what pools send";
    PFVML2FLT  0x0f000 [4 x 64]       RW  "8.2.3.27.14" "What pools get besides what is for their addresses";
    PFVFSPOOF  0x08200 [4 x 8]        RW  "8.2.3.27"    "What pools send is checked for being in their name";
    PFVLVF     0x0f100 [4 x 64]       RW  "8.2.3.27.15" "VLANs of pools";
    PFVLVFB    0x0f200 [4 x 128]      RW  "8.2.3.27.16" "Pools of those VLANs";
    PFUTA      0x0f400 [4 x 128]      RW  "8.2.3.27.17" "Unicast table, a bit for each of 4,096 hashes";
}

/// CTRL: device control.
pub(crate) mod ctrl {
    pub(crate) const GIO_MASTER_DISABLE: u32 = 1 << 2;
    pub(crate) const LINK_RESET: u32 = 1 << 3;
    pub(crate) const RST: u32 = 1 << 26;
}

/// STATUS: device status.
pub(crate) mod status {
    pub(crate) const LAN_ID_SHIFT: u32 = 2;
    pub(crate) const GIO_MASTER_ENABLE: u32 = 1 << 19;
}

/// CTRL_EXT: extended device control.
pub(crate) mod ctrl_ext {
    /// The physical function's reset is done: clears itself.
    pub(crate) const PFRSTD: u32 = 1 << 14;
    pub(crate) const NS_DIS: u32 = 1 << 16;
    /// Tells the firmware that a driver looks after the link.
    pub(crate) const DRV_LOAD: u32 = 1 << 28;
}

/// ESDP: the pins as the SFP+ reference design has them.
pub(crate) mod esdp {
    /// Pin 2: a module is in the cage.
    pub(crate) const MODULE: u32 = 1 << 2;
    /// Pin 3: the module's transmitter is off.
    pub(crate) const TX_DISABLE: u32 = 1 << 3;
    /// Pin 5: rate select, set for 10 Gb/s; and that it is an output.
    pub(crate) const RATE_SELECT: u32 = 1 << 5;
    pub(crate) const RATE_SELECT_OUT: u32 = 1 << 13;
}

/// I2CCTL: levels read and driven.
pub(crate) mod i2cctl {
    pub(crate) const CLK_IN: u32 = 1 << 0;
    pub(crate) const CLK_OUT: u32 = 1 << 1;
    pub(crate) const DATA_IN: u32 = 1 << 2;
    pub(crate) const DATA_OUT: u32 = 1 << 3;
}

/// EEC: EEPROM control.
pub(crate) mod eec {
    pub(crate) const PRES: u32 = 1 << 8;
    pub(crate) const AUTO_RD: u32 = 1 << 9;
    /// Four bits, of 64 words and twice as many with each.
    pub(crate) const SIZE_SHIFT: u32 = 11;
}

/// EERD: EEPROM read. The word's address above these bits, its data in the upper half.
pub(crate) mod eerd {
    pub(crate) const START: u32 = 1 << 0;
    pub(crate) const DONE: u32 = 1 << 1;
    pub(crate) const ADDRESS_SHIFT: u32 = 2;
    pub(crate) const DATA_SHIFT: u32 = 16;
}

/// SWSM: semaphore over SW_FW_SYNC.
pub(crate) mod swsm {
    pub(crate) const SMBI: u32 = 1 << 0;
    pub(crate) const SWESMBI: u32 = 1 << 1;
}

/// SW_FW_SYNC: what may be owned; firmware's bit is so many above.
pub(crate) mod sync {
    pub(crate) const FLASH: u32 = 1 << 0;
    pub(crate) const PHY_0: u32 = 1 << 1;
    pub(crate) const PHY_1: u32 = 1 << 2;
    pub(crate) const MAC: u32 = 1 << 3;
    /// What the firmware may own as well.
    pub(crate) const SHARED: u32 = FLASH | PHY_0 | PHY_1 | MAC;
    pub(crate) const FIRMWARE_SHIFT: u32 = 5;
    /// X540 and later: the card itself is at its flash.
    pub(crate) const HARDWARE_FLASH: u32 = 1 << 4;
    /// X550: the firmware's block of words, which is among drivers only.
    pub(crate) const BLOCK: u32 = 1 << 10;
    /// X540 and later: taken by reading it as 0.
    pub(crate) const REGSMP: u32 = 1 << 31;
}

/// HICR: commands are taken; one is there; the answer is one.
pub(crate) mod hicr {
    pub(crate) const ENABLED: u32 = 1 << 0;
    pub(crate) const COMMAND: u32 = 1 << 1;
    pub(crate) const VALID: u32 = 1 << 2;
}
/// FWSTS: the firmware was reset; writing the bit clears it.
pub(crate) const FWSTS_RESET: u32 = 1 << 9;

/// IOSF_CTRL: a register's address; what went wrong; not done yet.
pub(crate) mod iosf {
    pub(crate) const FAILED: u32 = 3 << 18;
    pub(crate) const BUSY: u32 = 1 << 31;
}

/// MSCA: a register of a unit of a PHY; what is done; that it is done.
pub(crate) mod msca {
    pub(crate) const UNIT_SHIFT: u32 = 16;
    pub(crate) const PHY_SHIFT: u32 = 21;
    pub(crate) const ADDRESS: u32 = 0;
    pub(crate) const WRITE: u32 = 1 << 26;
    pub(crate) const READ: u32 = 3 << 26;
    pub(crate) const COMMAND: u32 = 1 << 30;
}
/// MSRWD: what was read.
pub(crate) const MSRWD_READ_SHIFT: u32 = 16;

/// GCR_EXT: flush what is buffered for PCIe.
pub(crate) const GCR_EXT_BUFFERS_CLEAR: u32 = 1 << 30;

/// EICR, EIMS, EIMC: interrupt causes.
pub(crate) mod cause {
    /// A request for memory failed.
    pub(crate) const PCI_EXCEPTION: u32 = 1 << 18;
    /// A virtual function has asked for something, or was reset.
    pub(crate) const MAILBOX: u32 = 1 << 19;
    pub(crate) const LINK: u32 = 1 << 20;
    /// Pin 2 has moved.
    pub(crate) const MODULE: u32 = 1 << 26;
    /// An error in the card's memory that it could not correct.
    pub(crate) const ECC: u32 = 1 << 28;
}
/// EICR, EIMS, EIAC, EIAM: the lowest bits are the queues'.
pub(crate) const QUEUE_CAUSES: usize = 16;

/// GPIE: how causes are told.
pub(crate) mod gpie {
    /// Pin 2 may interrupt.
    pub(crate) const PIN_2: u32 = 1 << 2;
    /// Causes raise the vectors that IVAR and IVAR_MISC say, not all of them vector 0.
    pub(crate) const MULTIPLE_MSIX: u32 = 1 << 4;
    /// To read EICR clears no queue's cause.
    pub(crate) const OTHERS_STAY: u32 = 1 << 5;
    /// EIAM masks a cause when its vector is sent, not when EICR is read.
    pub(crate) const AUTO_MASK: u32 = 1 << 30;
    /// As MSI-X needs it.
    pub(crate) const PBA_SUPPORT: u32 = 1 << 31;
}
/// IVAR_MISC: where the entry is of causes that are no queue's, TCP timer's excepted.
pub(crate) const IVAR_MISC_OTHER_SHIFT: u32 = 8;

/// FCTRL: receive filter control.
pub(crate) mod fctrl {
    pub(crate) const MPE: u32 = 1 << 8;
    pub(crate) const UPE: u32 = 1 << 9;
    pub(crate) const BAM: u32 = 1 << 10;
}

/// VLNCTRL: the tag's EtherType; frames with one come in by the VLAN table.
pub(crate) const VLNCTRL_8021Q: u32 = 0x8100;
pub(crate) const VLNCTRL_VFE: u32 = 1 << 30;

/// PSRTYPE: headers that are split off: up to and with TCP's, UDP's, IPv4's, IPv6's.
pub(crate) const PSRTYPE_IP: u32 = 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9;

/// PSRTYPE: bits of RSS that choose among a pool's queues.
pub(crate) const PSRTYPE_RQPL_SHIFT: u32 = 29;

/// MTQC: transmit queues' arrangement.
pub(crate) mod mtqc {
    pub(crate) const VT_ENA: u32 = 1 << 1;
    pub(crate) const POOLS_64: u32 = 1 << 2;
    pub(crate) const POOLS_32: u32 = 2 << 2;
}

/// GCR_EXT's lowest bits, and GPIE's: how many pools there are.
pub(crate) const VT_MODE: u32 = 0b11;
pub(crate) const VT_MODE_32: u32 = 0b10;
pub(crate) const VT_MODE_64: u32 = 0b11;
pub(crate) const GPIE_VT_MODE_SHIFT: u32 = 14;

/// PFVTCTL: pools.
pub(crate) mod pfvtctl {
    pub(crate) const VT_ENA: u32 = 1 << 0;
    pub(crate) const DEF_PL_SHIFT: u32 = 7;
    /// Frames for several pools go to each.
    pub(crate) const RPL_EN: u32 = 1 << 30;
}

/// PFMAILBOX: a message is there, one has been read; whose the mailbox is, and that it be taken from the function.
pub(crate) mod pfmailbox {
    pub(crate) const STS: u32 = 1 << 0;
    pub(crate) const ACK: u32 = 1 << 1;
    pub(crate) const PFU: u32 = 1 << 3;
    pub(crate) const RVFU: u32 = 1 << 4;
}

/// PFVML2FLT: frames without tag; groups and addresses by hash; broadcasts; all groups.
pub(crate) mod pfvml2flt {
    pub(crate) const AUPE: u32 = 1 << 24;
    pub(crate) const ROMPE: u32 = 1 << 25;
    pub(crate) const BAM: u32 = 1 << 27;
    pub(crate) const MPE: u32 = 1 << 28;
}

/// PFQDE: drop; which queue; write it.
pub(crate) mod pfqde {
    pub(crate) const QDE: u32 = 1 << 0;
    pub(crate) const QUEUE_SHIFT: u32 = 8;
    pub(crate) const WE: u32 = 1 << 16;
}

/// PFDTXGSWC: local loopback.
pub(crate) const PFDTXGSWC_LBE: u32 = 1 << 0;
/// PFVLVF: the entry is valid.
pub(crate) const PFVLVF_VI_EN: u32 = 1 << 31;

/// FTQF: five-tuple filter.
pub(crate) mod ftqf {
    pub(crate) const TCP: u32 = 0;
    pub(crate) const UDP: u32 = 1;
    pub(crate) const SCTP: u32 = 2;
    pub(crate) const PRIORITY_SHIFT: u32 = 2;
    pub(crate) const PRIORITY: u32 = 7;
    pub(crate) const ANY_SOURCE: u32 = 1 << 25;
    pub(crate) const ANY_DESTINATION: u32 = 1 << 26;
    pub(crate) const ANY_SOURCE_PORT: u32 = 1 << 27;
    pub(crate) const ANY_DESTINATION_PORT: u32 = 1 << 28;
    pub(crate) const ANY_PROTOCOL: u32 = 1 << 29;
    pub(crate) const ANY_POOL: u32 = 1 << 30;
    pub(crate) const ENABLE: u32 = 1 << 31;
}
/// L34TIMIR: a reserved bit that is to be set; the queue.
pub(crate) const L34TIMIR_RESERVED: u32 = 1 << 19;
pub(crate) const L34TIMIR_QUEUE_SHIFT: u32 = 21;
/// The statistics set that counts what flow rules drop.
pub(crate) const DROP_SET: u32 = 15;
/// That of virtual functions' queues.
pub(crate) const FUNCTIONS_SET: u32 = 14;
/// MCSTCTRL: use the multicast table, with hashes of bits 47:36.
pub(crate) const MCSTCTRL_MFE: u32 = 1 << 2;
/// RXCSUM: descriptors hold the RSS hash where they could hold a fragment's checksum.
pub(crate) const RXCSUM_PCSD: u32 = 1 << 13;
/// RFCTL: no receive coalescing; no NFS, neither way.
pub(crate) const RFCTL_RSC_DIS: u32 = 1 << 5;
pub(crate) const RFCTL_NFS_DIS: u32 = 0b11 << 6;
/// RSCCTL: coalesce, packets of 1, 4, 8 or 16 descriptors.
pub(crate) const RSCCTL_RSCEN: u32 = 1 << 0;
pub(crate) const RSCCTL_MAXDESC: [(u16, u32); 4] = [(16, 3 << 2), (8, 2 << 2), (4, 1 << 2), (1, 0)];
/// EITR: where the interval is; the counter stays as it is.
pub(crate) const EITR_INTERVAL_SHIFT: u32 = 3;
pub(crate) const EITR_CNT_WDIS: u32 = 1 << 31;
/// IVAR, IVAR_MISC: the entry's vector is to be raised.
pub(crate) const IVAR_VALID: u32 = 0x80;
/// IVAR: the vector.
pub(crate) const IVAR_VECTOR: u32 = 0x3f;

/// MRQC: RSS, and over what.
pub(crate) mod mrqc {
    use pagewire_ethdev::RssTypes;

    pub(crate) const RSS: u32 = 1;
    /// RSS over the queues of each of 32 pools, or 64.
    pub(crate) const POOLS_32: u32 = 0b1010;
    pub(crate) const POOLS_64: u32 = 0b1011;
    pub(crate) const BY_TYPE: [(RssTypes, u32); 6] = [
        (RssTypes::TCP_IPV4, 1 << 16),
        (RssTypes::IPV4, 1 << 17),
        (RssTypes::IPV6, 1 << 20),
        (RssTypes::TCP_IPV6, 1 << 21),
        (RssTypes::UDP_IPV4, 1 << 22),
        (RssTypes::UDP_IPV6, 1 << 23),
    ];
}

/// RXDCTL: receive descriptor control.
pub(crate) mod rxdctl {
    pub(crate) const ENABLE: u32 = 1 << 25;
    /// Take VLAN tags out.
    pub(crate) const VME: u32 = 1 << 30;
}

/// SRRCTL: receive buffers, their size in KiB in the lowest bits.
pub(crate) mod srrctl {
    /// The header buffer's size must not be 0 though there is none: 256 bytes.
    pub(crate) const BSIZEHEADER_256: u32 = 4 << 8;
    /// The header buffer's size, in units of 64 bytes.
    pub(crate) const BSIZEHEADER_SHIFT: u32 = 8;
    /// Advanced descriptors with one buffer each, or with another for headers.
    pub(crate) const ADVANCED: u32 = 1 << 25;
    pub(crate) const HEADER_SPLIT: u32 = 2 << 25;
    /// Frames for which there is no descriptor are dropped, rather than keep all queues waiting.
    pub(crate) const DROP_EN: u32 = 1 << 28;
}

/// RDRXCTL: receive DMA control.
pub(crate) mod rdrxctl {
    pub(crate) const CRC_STRIP: u32 = 1 << 1;
    pub(crate) const DMAIDONE: u32 = 1 << 3;
    pub(crate) const RSCFRSTSIZE: u32 = 0x1f << 17;
    pub(crate) const RSCACKC: u32 = 1 << 25;
    pub(crate) const FCOE_WRFIX: u32 = 1 << 26;
}

/// RXCTRL: receive.
pub(crate) const RXCTRL_RXEN: u32 = 1 << 0;
/// RSCDBU: no coalescing of acknowledgements.
pub(crate) const RSCDBU_RSCACKDIS: u32 = 1 << 7;
/// RXPBSIZE: in KiB.
pub(crate) const RXPBSIZE_SHIFT: u32 = 10;
/// FCRTH: below the packet buffer's size by this even with flow control off (section 4.6.3.2).
pub(crate) const FCRTH_OFF: u32 = 0x6000;
/// TXPBSIZE: all 160 KiB.
pub(crate) const TXPBSIZE_ALL: u32 = 160 << 10;
/// TXPBTHRESH: the buffer in KiB less the 10 that the longest frame may need.
pub(crate) const TXPBTHRESH_ALL: u32 = 160 - 10;
/// DTXMXSZRQ without DCB: the most there is.
pub(crate) const DTXMXSZRQ_MAX: u32 = 0xfff;
/// DMATXCTL: transmit.
pub(crate) const DMATXCTL_TE: u32 = 1 << 0;
/// RTTDCS: the arbiter stands still.
pub(crate) const RTTDCS_ARBDIS: u32 = 1 << 6;

/// TXDCTL: transmit descriptor control.
pub(crate) mod txdctl {
    pub(crate) const PTHRESH_32: u32 = 32;
    pub(crate) const HTHRESH_1: u32 = 1 << 8;
    pub(crate) const ENABLE: u32 = 1 << 25;
}

/// DCA_RXCTRL: bit 12 has to be cleared (section 4.6.7), and relaxed ordering of writes is not for every root complex.
pub(crate) const DCA_RXCTRL_CLEAR: u32 = 1 << 12 | 1 << 13 | 1 << 15;
/// DCA_TXCTRL: relaxed ordering of write-backs.
pub(crate) const DCA_TXCTRL_CLEAR: u32 = 1 << 11;
/// SECRXCTRL: nothing passes.
pub(crate) const SECRXCTRL_RX_DIS: u32 = 1 << 1;
/// SECRXSTAT: and nothing is under way.
pub(crate) const SECRXSTAT_RDY: u32 = 1 << 0;

/// HLREG0: MAC core control.
pub(crate) mod hlreg0 {
    pub(crate) const TXCRCEN: u32 = 1 << 0;
    pub(crate) const RXCRCSTRP: u32 = 1 << 1;
    pub(crate) const JUMBOEN: u32 = 1 << 2;
    pub(crate) const TXPADEN: u32 = 1 << 10;
    pub(crate) const LPBK: u32 = 1 << 15;
}

/// MAXFRS: bytes in the upper half.
pub(crate) const MAXFRS_MFS_SHIFT: u32 = 16;

/// AUTOC: link mode.
pub(crate) mod autoc {
    pub(crate) const PMA_1G: u32 = 1 << 9;
    pub(crate) const RESTART: u32 = 1 << 12;
    pub(crate) const LMS: u32 = 7 << 13;
    pub(crate) const LMS_1G_AN: u32 = 2 << 13;
    pub(crate) const LMS_10G_SERIAL: u32 = 3 << 13;
    /// Link mode's highest bit: toggling it restarts the analog pipeline.
    pub(crate) const LMS_2: u32 = 4 << 13;
}

/// AUTOC2: serial interface, and switches that keep the link down.
pub(crate) mod autoc2 {
    pub(crate) const PMA_10G_SERIAL: u32 = 3 << 16;
    pub(crate) const PMA_10G_SFI: u32 = 2 << 16;
    pub(crate) const LINK_DISABLE: u32 = 7 << 28;
}

/// ANLP1: the state machine's state, 0 before it starts.
pub(crate) const ANLP1_STATE: u32 = 0xf << 16;
/// MMNGC: the link is not to be touched.
pub(crate) const MMNGC_VETO: u32 = 1 << 0;

/// LINKS: link status.
pub(crate) mod links {
    /// X550 and X552: not the speed that the two bits say, but another. The 82599 has something else there.
    pub(crate) const OTHER_SPEED: u32 = 1 << 27;
    pub(crate) const SPEED_SHIFT: u32 = 28;
    pub(crate) const UP: u32 = 1 << 30;
}

/// MFLCN: pause frames are not handed to software.
pub(crate) const MFLCN_DPF: u32 = 1 << 1;
