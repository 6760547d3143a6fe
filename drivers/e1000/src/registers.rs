//! The card's registers: only those the driver uses, one line each, with the section of the 82574 datasheet.

use pagewire_ethdev::registers;

// RW read and write, RO read only, WO write only, RC cleared by reading, W1C cleared by writing ones.
// name    offset   array     mode  section     what it is
registers! {
    CTRL        0x00000           RW  "10.2.2.1"  "Device control";
    STATUS      0x00008           RO  "10.2.2.2"  "Device status";
    CTRL_EXT    0x00018           RW  "10.2.2.5"  "Extended device control";
    EECD        0x00010           RW  "10.2.2.3"  "EEPROM control and data";
    MDIC        0x00020           RW  "10.2.2.7"  "MDI control: the way to the PHY's registers";
    FCAL        0x00028           RW  "10.2.2.8"  "Flow control address, low";
    FCAH        0x0002c           RW  "10.2.2.9"  "Flow control address, high";
    FCT         0x00030           RW  "10.2.2.10" "Flow control type";
    VET         0x00038           RW  "10.2.2.11" "VLAN EtherType";
    FCTTV       0x00170           RW  "10.2.2.12" "Flow control transmit timer value";
    EXTCNF_CTRL 0x00f00           RW  "10.2.2.15" "Extended configuration control";

    ICR         0x000c0           W1C "10.2.4.1"  "Interrupt cause read";
    EITR        0x000e8 [4 x 5]     RW  "10.2.4.3"  "Interval of each MSI-X vector's interrupts";
    EIAC        0x000dc           RW  "10.2.4.7"  "Causes cleared automatically in MSI-X mode";
    IAM         0x000e0           RW  "10.2.4.8"  "Causes masked automatically";
    IMS         0x000d0           RW  "10.2.4.5"  "Interrupt mask, set";
    IMC         0x000d8           WO  "10.2.4.6"  "Interrupt mask, clear";
    IVAR        0x000e4           RW  "10.2.4.9"  "Which cause raises which MSI-X vector";

    RCTL        0x00100           RW  "10.2.5.1"  "Receive control";
    FCRTL       0x02160           RW  "10.2.5.3"  "Flow control threshold, low";
    FCRTH       0x02168           RW  "10.2.5.4"  "Flow control threshold, high";
    RDBAL       0x02800           RW  "10.2.5.5"  "Receive ring base, low";
    RDBAH       0x02804           RW  "10.2.5.6"  "Receive ring base, high";
    RDLEN       0x02808           RW  "10.2.5.7"  "Receive ring length in bytes";
    RDH         0x02810           RW  "10.2.5.8"  "Receive ring head";
    RDT         0x02818           RW  "10.2.5.9"  "Receive ring tail: the doorbell";
    RXDCTL      0x02828           RW  "10.2.5"    "Receive descriptor control";
    RXCSUM      0x05000           RW  "10.2.5"    "Receive checksum control";
    RFCTL       0x05008           RW  "10.2.5"    "Receive filter control";
    MTA         0x05200 [4 x 128]   RW  "10.2.5.21" "Multicast table, a bit for each of 4,096 hashes";
    RAL         0x05400 [8 x 16]    RW  "10.2.5.22" "Receive address, low";
    RAH         0x05404 [8 x 16]    RW  "10.2.5.23" "Receive address, high, with its valid bit";
    VFTA        0x05600 [4 x 128]   RW  "10.2.5.24" "VLAN filter table, a bit for each identifier";

    TCTL        0x00400           RW  "10.2.6.1"  "Transmit control";
    TIPG        0x00410           RW  "10.2.6.2"  "Gaps between frames";
    TDBAL       0x03800           RW  "10.2.6.4"  "Transmit ring base, low";
    TDBAH       0x03804           RW  "10.2.6.5"  "Transmit ring base, high";
    TDLEN       0x03808           RW  "10.2.6.6"  "Transmit ring length in bytes";
    TDH         0x03810           RW  "10.2.6.7"  "Transmit ring head";
    TDT         0x03818           RW  "10.2.6.8"  "Transmit ring tail: the doorbell";
    TXDCTL      0x03828           RW  "10.2.6.10" "Transmit descriptor control";

    GCR         0x05b00           RW  "10.2.3.1"  "PCIe control";
}

/// CTRL: device control.
pub(crate) mod ctrl {
    pub(crate) const FD: u32 = 1 << 0;
    pub(crate) const GIO_MASTER_DISABLE: u32 = 1 << 2;
    pub(crate) const ASDE: u32 = 1 << 5;
    pub(crate) const SLU: u32 = 1 << 6;
    pub(crate) const FRCSPD: u32 = 1 << 11;
    pub(crate) const FRCDPLX: u32 = 1 << 12;
    pub(crate) const RST: u32 = 1 << 26;
    pub(crate) const RFCE: u32 = 1 << 27;
    pub(crate) const TFCE: u32 = 1 << 28;
    pub(crate) const VME: u32 = 1 << 30;
}

/// CTRL_EXT: extended device control.
pub(crate) mod ctrl_ext {
    /// IAM masks a cause when its MSI-X message is sent.
    pub(crate) const EIAME: u32 = 1 << 24;
    /// As MSI-X needs it.
    pub(crate) const PBA_SUPPORT: u32 = 1 << 31;
}

/// STATUS: device status.
pub(crate) mod status {
    pub(crate) const FD: u32 = 1 << 0;
    pub(crate) const LU: u32 = 1 << 1;
    pub(crate) const SPEED_SHIFT: u32 = 6;
    pub(crate) const GIO_MASTER_ENABLE: u32 = 1 << 19;
}

/// EECD: the card has loaded its configuration from the EEPROM.
pub(crate) const EECD_AUTO_RD: u32 = 1 << 9;
/// EXTCNF_CTRL: software owns the PHY's registers; manageability firmware keeps off.
pub(crate) const EXTCNF_CTRL_MDIO_SW_OWNERSHIP: u32 = 1 << 5;

/// MDIC: access to PHY registers.
pub(crate) mod mdic {
    pub(crate) const REGISTER_SHIFT: u32 = 16;
    pub(crate) const PHY_1: u32 = 1 << 21;
    pub(crate) const WRITE: u32 = 1 << 26;
    pub(crate) const READ: u32 = 2 << 26;
    pub(crate) const READY: u32 = 1 << 28;
    pub(crate) const ERROR: u32 = 1 << 30;
}

/// The PHY's control register (IEEE 802.3 clause 22, register 0).
pub(crate) mod bmcr {
    pub(crate) const REGISTER: u32 = 0;
    pub(crate) const RESTART_AUTONEG: u16 = 1 << 9;
    pub(crate) const ISOLATE: u16 = 1 << 10;
    pub(crate) const POWER_DOWN: u16 = 1 << 11;
    pub(crate) const AUTONEG: u16 = 1 << 12;
}

/// ICR, IMS, IMC: interrupt causes.
pub(crate) mod cause {
    pub(crate) const LINK: u32 = 1 << 2;
    pub(crate) const RXQ0: u32 = 1 << 20;
    pub(crate) const OTHER: u32 = 1 << 24;
}

/// IVAR: the receive queue raises vector 0; "other" causes, the link's among them, raise the vector whose number is there.
pub(crate) const IVAR_RXQ0_VECTOR_0: u32 = 0b1000;
pub(crate) const IVAR_OTHER_SHIFT: u32 = 16;
pub(crate) const IVAR_OTHER_VALID: u32 = 0b1000 << IVAR_OTHER_SHIFT;

/// RCTL: receive control.
pub(crate) mod rctl {
    pub(crate) const EN: u32 = 1 << 1;
    pub(crate) const UPE: u32 = 1 << 3;
    pub(crate) const MPE: u32 = 1 << 4;
    pub(crate) const LPE: u32 = 1 << 5;
    pub(crate) const BAM: u32 = 1 << 15;
    pub(crate) const BSIZE_2048: u32 = 0 << 16;
    pub(crate) const BSIZE_1024: u32 = 1 << 16;
    pub(crate) const BSIZE_512: u32 = 2 << 16;
    pub(crate) const BSIZE_256: u32 = 3 << 16;
    pub(crate) const SECRC: u32 = 1 << 26;
    pub(crate) const FLXBUF_SHIFT: u32 = 27;
}

/// RXDCTL: thresholds count descriptors; each is written back as soon as it is done.
pub(crate) mod rxdctl {
    pub(crate) const WTHRESH_1: u32 = 1 << 16;
    pub(crate) const GRAN_DESCRIPTORS: u32 = 1 << 24;
}

/// RFCTL: use extended receive descriptors.
pub(crate) const RFCTL_EXSTEN: u32 = 1 << 15;

/// RXCSUM: receive checksum control.
pub(crate) mod rxcsum {
    pub(crate) const IPOFLD: u32 = 1 << 8;
    pub(crate) const TUOFLD: u32 = 1 << 9;
}

/// TCTL: transmit control.
pub(crate) mod tctl {
    pub(crate) const EN: u32 = 1 << 1;
    pub(crate) const PSP: u32 = 1 << 3;
    /// Collision threshold, the 15 tries of Ethernet.
    pub(crate) const CT: u32 = 15 << 4;
    pub(crate) const CT_MASK: u32 = 0xff << 4;
    /// Collision distance in full duplex.
    pub(crate) const COLD: u32 = 0x3f << 12;
    pub(crate) const COLD_MASK: u32 = 0x3ff << 12;
    /// Several reads of packet data may be under way at a time.
    pub(crate) const MULR: u32 = 1 << 28;
}

/// TIPG as section 4.6.6 has it: IPGT 8, IPGR1 2, IPGR2 10.
pub(crate) const TIPG_802_3: u32 = 8 | 2 << 10 | 10 << 20;

/// TXDCTL: thresholds count descriptors, and the bit that the datasheet wants set.
pub(crate) mod txdctl {
    pub(crate) const GRAN_DESCRIPTORS: u32 = 1 << 24;
    pub(crate) const RESERVED_ONE: u32 = 1 << 22;
    /// Write back at once: batching them would leave finished packets in an idle ring.
    pub(crate) const WTHRESH_1: u32 = 1 << 16;
    pub(crate) const HTHRESH_1: u32 = 1 << 8;
    pub(crate) const PTHRESH_31: u32 = 31;
}

/// GCR: section 4.6.2 has software set this bit; without it PCIe completions can be lost.
pub(crate) const GCR_BIT_22: u32 = 1 << 22;
