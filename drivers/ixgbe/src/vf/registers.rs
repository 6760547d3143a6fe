//! A virtual function's registers: only those the driver uses, one line each, with the section of the 82599 datasheet.

use pagewire_ethdev::registers;

// name           offset  array          mode  section     what it is
registers! {
    VFCTRL        0x0000                 WO  "8.3.5" "Device control";
    VFSTATUS      0x0008                 RO  "8.3.5" "Device status";
    VFLINKS       0x0010                 RO  "8.3.5" "Link status";
    VFMAILBOX     0x02fc                 RW  "8.3.5" "Whose turn the mailbox is";
    VFMBMEM       0x0200 [4 x 16]        RW  "8.3.5" "The mailbox's words";

    VTEICR        0x0100                 W1C "8.3.5" "Interrupt causes";
    VTEIMS        0x0108                 RW  "8.3.5" "Interrupt mask, set";
    VTEIMC        0x010c                 WO  "8.3.5" "Interrupt mask, clear";
    VTEIAC        0x0110                 RW  "8.3.5" "Causes cleared automatically";
    VTEIAM        0x0114                 RW  "8.3.5" "Causes masked automatically";
    VTIVAR_MISC   0x0140                 RW  "8.3.5" "Which vector the mailbox raises";

    VFPSRTYPE     0x0300                 RW  "8.3.5" "How many bits of RSS choose a queue";
    VFRDBAL       0x1000 [0x40 x 8]      RW  "8.3.5" "Receive ring base, low";
    VFRDBAH       0x1004 [0x40 x 8]      RW  "8.3.5" "Receive ring base, high";
    VFRDLEN       0x1008 [0x40 x 8]      RW  "8.3.5" "Receive ring length in bytes";
    VFRDH         0x1010 [0x40 x 8]      RW  "8.3.5" "Receive ring head";
    VFRDT         0x1018 [0x40 x 8]      RW  "8.3.5" "Receive ring tail: the doorbell";
    VFRXDCTL      0x1028 [0x40 x 8]      RW  "8.3.5" "Receive descriptor control";
    VFSRRCTL      0x1014 [0x40 x 8]      RW  "8.3.5" "Receive buffer sizes and descriptor type";
    VFDCA_RXCTRL  0x100c [0x40 x 8]      RW  "8.3.5" "Receive PCIe attributes";

    VFTDBAL       0x2000 [0x40 x 8]      RW  "8.3.5" "Transmit ring base, low";
    VFTDBAH       0x2004 [0x40 x 8]      RW  "8.3.5" "Transmit ring base, high";
    VFTDLEN       0x2008 [0x40 x 8]      RW  "8.3.5" "Transmit ring length in bytes";
    VFTDH         0x2010 [0x40 x 8]      RW  "8.3.5" "Transmit ring head";
    VFTDT         0x2018 [0x40 x 8]      RW  "8.3.5" "Transmit ring tail: the doorbell";
    VFTXDCTL      0x2028 [0x40 x 8]      RW  "8.3.5" "Transmit descriptor control";
    VFTDWBAL      0x2038 [0x40 x 8]      RW  "8.3.5" "Where the head is written, low";
    VFTDWBAH      0x203c [0x40 x 8]      RW  "8.3.5" "Where the head is written, high";
    VFDCA_TXCTRL  0x200c [0x40 x 8]      RW  "8.3.5" "Transmit PCIe attributes";
}

/// VFCTRL: reset the function.
pub(super) const VFCTRL_RST: u32 = 1 << 26;

/// VFMAILBOX. The last four but one are cleared by reading.
pub(super) mod vfmailbox {
    /// A message is there.
    pub(crate) const REQ: u32 = 1 << 0;
    /// One has been read.
    pub(crate) const ACK: u32 = 1 << 1;
    /// It is ours to write.
    pub(crate) const VFU: u32 = 1 << 2;
    /// The physical function has written a message, or read ours.
    pub(crate) const PFSTS: u32 = 1 << 4;
    pub(crate) const PFACK: u32 = 1 << 5;
    /// It is being reset, or has no driver; its reset is over.
    pub(crate) const RSTI: u32 = 1 << 6;
    pub(crate) const RSTD: u32 = 1 << 7;
    pub(crate) const CLEARED: u32 = PFSTS | PFACK | RSTD;
}

/// All of the function's vectors.
pub(super) const VECTORS: u32 = 0b111;
/// VTIVAR_MISC: a valid entry, for vector 0.
pub(super) const VTIVAR_MISC_VECTOR_0: u32 = 0x80;
/// VFPSRTYPE: bits of RSS.
pub(super) const VFPSRTYPE_RQPL_SHIFT: u32 = 29;
