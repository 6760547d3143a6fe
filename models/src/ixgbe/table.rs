//! The 82599's registers, one line each: name, offset, access, reset value, section of the datasheet; then, where it is
//! so, the array's stride and count and the unit it belongs to.
//!
//! Words that a driver has no business with are left out on purpose: reaching for one is logged and counted.

use super::registers::Access::{Rc, Ro, Rw, W1c, Wo};
use super::registers::{Register, Unit};

macro_rules! registers {
    ($( $name:ident $offset:literal $([$stride:literal x $count:literal])? $access:ident $reset:literal $section:literal
        $(=> $unit:expr)? $(, $flag:ident)? ; )*) => {
        $(
            #[doc = concat!("Offset of ", stringify!($name), ", section ", $section, ".")]
            #[allow(dead_code)]
            pub(super) const $name: u32 = $offset;
        )*
        /// Every register of the card.
        pub static TABLE: &[Register] = &[
            $( Register::new(stringify!($name), $offset, $access, $reset, $section)
                $( .array($stride, $count) )? $( .of($unit) )? $( .$flag() )? ),*
        ];
    };
}

use Unit::{
    Address, Alias, Control, Eeprom, Firmware, FiveTuple, Function, Hash, Interrupt, Link, Receive, Sfp,
    Transmit,
};

registers! {
    // General control
    CTRL          0x00000 Rw 0          "8.2.3.1"  => Control;
    CTRL_ALIAS    0x00004 Rw 0          "8.2.3.1"  => Alias(0, 4);
    STATUS        0x00008 Ro 0x80000    "8.2.3.1"  => Link;
    CTRL_EXT      0x00018 Rw 0          "8.2.3.1";
    ESDP          0x00020 Rw 0          "8.2.3.1"  => Link;
    I2CCTL        0x00028 Rw 0xa        "8.2.3.1"  => Sfp;
    LEDCTL        0x00200 Rw 0          "8.2.3.1";
    EXVET         0x05078 Rw 0x81000000 "8.2.3.1";
    // EEPROM and flash
    EEC           0x10010 Rw 0x4700     "8.2.3.2"  => Eeprom, sticky;
    EERD          0x10014 Rw 0x2        "8.2.3.2"  => Eeprom;
    FLA           0x1001c Rw 0          "8.2.3.2";
    EEMNGCTL      0x10110 Rw 0xc0000    "8.2.3.2";
    FLOP          0x1013c Rw 0          "8.2.3.2";
    GRC           0x10200 Rw 0          "8.2.3.2";
    SRAMREL       0x10210 Rw 0          "8.2.3.2";
    // Flow control
    FCTTV         0x03200 [4 x 4] Rw 0  "8.2.3.3";
    FCRTL         0x03220 [4 x 8] Rw 0  "8.2.3.3";
    PXON2OFFCNT   0x03240 [4 x 8] Rc 0  "8.2.3.23";
    FCRTH         0x03260 [4 x 8] Rw 0  "8.2.3.3";
    FCRTV         0x032a0 Rw 0          "8.2.3.3";
    TFCS          0x0ce00 Ro 0xff       "8.2.3.3";
    FCCFG         0x03d00 Rw 0          "8.2.3.3";
    // PCIe
    GCR           0x11000 Rw 0          "8.2.3.4", sticky;
    GSCL          0x11010 [4 x 4] Rw 0  "8.2.3.4", sticky;
    GSCL_5_8      0x11030 [4 x 4] Rw 0  "8.2.3.4", sticky;
    GSCN          0x11020 [4 x 4] Rc 0  "8.2.3.4";
    FACTPS        0x10150 Ro 0          "8.2.3.4", sticky;
    GCR_EXT       0x11050 Rw 0          "8.2.3.4", sticky;
    DCA_ID        0x11070 Ro 0          "8.2.3.11";
    DCA_CTRL      0x11074 Rw 0          "8.2.3.11";
    IOSF_CTRL     0x11144 Rw 0          "8.2.3.4"  => Link, x552;
    IOSF_DATA     0x11148 Rw 0          "8.2.3.4"  => Link, x552;
    CIAA          0x11088 Rw 0          "8.2.3.4";
    CIAD          0x1108c Rw 0          "8.2.3.4";
    PICAUSE       0x110b0 W1c 0         "8.2.3.4";
    PIENA         0x110b8 Rw 0          "8.2.3.4";
    SWSM          0x10140 Rw 0          "8.2.3.4"  => Control, sticky;
    FWSM          0x10148 Ro 0x8000     "8.2.3.4", sticky;
    SW_FW_SYNC    0x10160 Rw 0          "8.2.3.4"  => Control, sticky;
    // Interrupts
    EICR          0x00800 Rw 0          "8.2.3.5"  => Interrupt;
    EICS          0x00808 Rw 0          "8.2.3.5"  => Interrupt;
    EIMS          0x00880 Rw 0          "8.2.3.5"  => Interrupt;
    EIMC          0x00888 Wo 0          "8.2.3.5"  => Interrupt;
    EIAC          0x00810 Rw 0          "8.2.3.5"  => Interrupt;
    EIAM          0x00890 Rw 0          "8.2.3.5"  => Interrupt;
    EICS_EX       0x00a90 [4 x 2] Rw 0  "8.2.3.5"  => Interrupt;
    EIMS_EX       0x00aa0 [4 x 2] Rw 0  "8.2.3.5"  => Interrupt;
    EIMC_EX       0x00ab0 [4 x 2] Wo 0  "8.2.3.5"  => Interrupt;
    EIAM_EX       0x00ad0 [4 x 2] Rw 0  "8.2.3.5" => Interrupt;
    EITRSEL       0x00894 Rw 0          "8.2.3.5";
    EITR          0x00820 [4 x 24] Rw 0 "8.2.3.5" => Interrupt;
    EITR_24       0x12300 [4 x 104] Rw 0 "8.2.3.5" => Interrupt;
    L34TIMIR      0x0e800 [4 x 128] Rw 0 "8.2.3.5";
    IMIRVP        0x0ec60 Rw 0          "8.2.3.5";
    IVAR          0x00900 [4 x 64] Rw 0 "8.2.3.5";
    IVAR_MISC     0x00a00 Rw 0          "8.2.3.5";
    GPIE          0x00898 Rw 0          "8.2.3.5" => Interrupt;
    RSCINT        0x12000 [4 x 128] Rw 0 "8.2.3.5";
    PBACL         0x110c0 [4 x 8] Rw 0  "8.2.3.6";
    // Receive
    FCTRL         0x05080 Rw 0          "8.2.3.7";
    PSRTYPE_LOW   0x05480 [4 x 16] Rw 0 "8.2.3.7" => Alias(0xea00, 4);
    VLNCTRL       0x05088 Rw 0x8100     "8.2.3.7";
    MCSTCTRL      0x05090 Rw 0          "8.2.3.7";
    PSRTYPE       0x0ea00 [4 x 64] Rw 0 "8.2.3.7";
    RXCSUM        0x05000 Rw 0          "8.2.3.7";
    RFCTL         0x05008 Rw 0          "8.2.3.7";
    MTA           0x05200 [4 x 128] Rw 0 "8.2.3.7";
    RAL_LOW       0x05400 [8 x 16] Rw 0 "8.2.3.7" => Alias(0xa200, 8);
    RAH_LOW       0x05404 [8 x 16] Rw 0 "8.2.3.7" => Alias(0xa204, 8);
    RAL           0x0a200 [8 x 128] Rw 0 "8.2.3.7" => Address;
    RAH           0x0a204 [8 x 128] Rw 0 "8.2.3.7" => Address;
    MPSAR         0x0a600 [4 x 256] Rw 0 "8.2.3.7";
    VFTA          0x0a000 [4 x 128] Rw 0 "8.2.3.7";
    MRQC          0x0ec80 Rw 0          "8.2.3.7";
    MRQC_LOW      0x05818 Rw 0          "8.2.3.7" => Alias(0xec80, 4);
    RQTC          0x0ec70 Rw 0          "8.2.3.7";
    RSSRK         0x0eb80 [4 x 10] Rw 0 "8.2.3.7" => Hash;
    RSSRK_LOW     0x05c80 [4 x 10] Rw 0 "8.2.3.7" => Alias(0xeb80, 4);
    RETA          0x0eb00 [4 x 32] Rw 0 "8.2.3.7";
    ERETA         0x0ee80 [4 x 96] Rw 0 "8.2.3.7", x550;
    RETA_LOW      0x05c00 [4 x 32] Rw 0 "8.2.3.7" => Alias(0xeb00, 4);
    SAQF          0x0e000 [4 x 128] Rw 0 "8.2.3.7";
    DAQF          0x0e200 [4 x 128] Rw 0 "8.2.3.7";
    SDPQF         0x0e400 [4 x 128] Rw 0 "8.2.3.7";
    FTQF          0x0e600 [4 x 128] Rw 0 "8.2.3.7" => FiveTuple;
    SYNQF         0x0ec30 Rw 0          "8.2.3.7";
    ETQF          0x05128 [4 x 8] Rw 0  "8.2.3.7";
    ETQS          0x0ec00 [4 x 8] Rw 0  "8.2.3.7";
    // Receive DMA: one block a queue
    QPRC          0x01030 [0x40 x 16] Rc 0 "8.2.3.23";
    QPRDC         0x01430 [0x40 x 16] Rc 0 "8.2.3.23";
    QBRC_L        0x01034 [0x40 x 16] Rc 0 "8.2.3.23";
    QBRC_H        0x01038 [0x40 x 16] Rc 0 "8.2.3.23";
    RDBAL         0x01000 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    RDBAH         0x01004 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    RDLEN         0x01008 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    DCA_RXCTRL    0x0100c [0x40 x 64] Rw 0xa200 "8.2.3.11";
    RDH           0x01010 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    SRRCTL        0x01014 [0x40 x 64] Rw 0x402 "8.2.3.8" => Receive;
    RDT           0x01018 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    RXDCTL        0x01028 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    RSCCTL        0x0102c [0x40 x 64] Rw 0 "8.2.3.8";
    RDBAL_64      0x0d000 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    RDBAH_64      0x0d004 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    RDLEN_64      0x0d008 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    DCA_RXCTRL_64 0x0d00c [0x40 x 64] Rw 0xa200 "8.2.3.11";
    RDH_64        0x0d010 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    SRRCTL_64     0x0d014 [0x40 x 64] Rw 0x402 "8.2.3.8" => Receive;
    RDT_64        0x0d018 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    RXDCTL_64     0x0d028 [0x40 x 64] Rw 0 "8.2.3.8" => Receive;
    RSCCTL_64     0x0d02c [0x40 x 64] Rw 0 "8.2.3.8";
    SRRCTL_LOW    0x02100 [4 x 16] Rw 0 "8.2.3.8" => Alias(0x1014, 0x40);
    DCA_RXCTRL_LOW 0x02200 [4 x 16] Rw 0 "8.2.3.11" => Alias(0x100c, 0x40);
    RDRXCTL       0x02f00 Rw 0x8        "8.2.3.8"  => Control;
    RXPBSIZE      0x03c00 [4 x 8] Rw 0x80000 "8.2.3.8" => Control;
    RXCTRL        0x03000 Rw 0          "8.2.3.8";
    RXMEMWRAP     0x03190 Ro 0          "8.2.3.8";
    RSCDBU        0x03028 Rw 0x20       "8.2.3.8";
    // Transmit
    DMATXCTL      0x04a80 Rw 0x81000000 "8.2.3.9";
    DTXTCPFLGL    0x04a88 Rw 0x0ff60ff6 "8.2.3.9";
    DTXTCPFLGH    0x04a8c Rw 0xf7f      "8.2.3.9";
    DTXMXSZRQ     0x08100 Rw 0x10       "8.2.3.9";
    MTQC          0x08120 Rw 0          "8.2.3.9";
    TXPBSIZE      0x0cc00 [4 x 8] Rw 0x28000 "8.2.3.9";
    TXPBTHRESH    0x04950 [4 x 8] Rw 0x96 "8.2.3.9";
    QPTC_LOW      0x06030 [0x40 x 16] Rc 0 "8.2.3.23" => Alias(0x8680, 4);
    TDBAL         0x06000 [0x40 x 128] Rw 0 "8.2.3.9" => Transmit;
    TDBAH         0x06004 [0x40 x 128] Rw 0 "8.2.3.9" => Transmit;
    TDLEN         0x06008 [0x40 x 128] Rw 0 "8.2.3.9" => Transmit;
    DCA_TXCTRL    0x0600c [0x40 x 128] Rw 0x2a00 "8.2.3.11";
    TDH           0x06010 [0x40 x 128] Rw 0 "8.2.3.9" => Transmit;
    TDT           0x06018 [0x40 x 128] Rw 0 "8.2.3.9" => Transmit;
    TXDCTL        0x06028 [0x40 x 128] Rw 0 "8.2.3.9" => Transmit;
    TDWBAL        0x06038 [0x40 x 128] Rw 0 "8.2.3.9" => Transmit;
    TDWBAH        0x0603c [0x40 x 128] Rw 0 "8.2.3.9" => Transmit;
    // Data Centre Bridging: storage
    RTRPCS        0x02430 Rw 0          "8.2.3.10";
    RTTDCS        0x04900 Rw 0          "8.2.3.10";
    RTTPCS        0x0cd00 Rw 0          "8.2.3.10";
    RTRUP2TC      0x03020 Rw 0          "8.2.3.10";
    RTTUP2TC      0x0c800 Rw 0          "8.2.3.10";
    RTRPT4C       0x02140 [4 x 8] Rw 0  "8.2.3.10";
    TXLLQ         0x082e0 [4 x 4] Rw 0  "8.2.3.10";
    RTTDT2C       0x04910 [4 x 8] Rw 0  "8.2.3.10";
    RTTPT2C       0x0cd20 [4 x 8] Rw 0  "8.2.3.10";
    RTTDQSEL      0x04904 Rw 0          "8.2.3.10";
    RTTDT1C       0x04908 Rw 0          "8.2.3.10";
    RTTBCNRM      0x04980 Rw 0          "8.2.3.10";
    RTTBCNRC      0x04984 Rw 0          "8.2.3.10";
    // Security
    SECTXCTRL     0x08800 Rw 0x4        "8.2.3.12";
    SECTXSTAT     0x08804 Ro 0x3        "8.2.3.12";
    SECTXBUFFAF   0x08808 Rw 0x250      "8.2.3.12";
    SECTXMINIFG   0x08810 Rw 0x1        "8.2.3.12";
    SECRXCTRL     0x08d00 Rw 0          "8.2.3.12";
    SECRXSTAT     0x08d04 Ro 0x3        "8.2.3.12";
    LSECTXSTATS   0x08a3c [4 x 5] Rc 0  "8.2.3.13";
    LSECRXSTATS   0x08f40 [4 x 17] Rc 0 "8.2.3.13";
    IPSTXIDX      0x08900 Rw 0          "8.2.3.14";
    IPSRXIDX      0x08e00 Rw 0          "8.2.3.14";
    // Timers and FCoE
    TCPTIMER      0x0004c Rw 0          "8.2.3.15";
    FCRXCTRL      0x05100 Rw 0          "8.2.3.20";
    FCCRC         0x05118 Rc 0          "8.2.3.23";
    FCOERPDC      0x0241c Rc 0          "8.2.3.23";
    FCLAST        0x02424 Rc 0          "8.2.3.23";
    FCOEPRC       0x02428 Rc 0          "8.2.3.23";
    FCOEDWRC      0x0242c Rc 0          "8.2.3.23";
    FCOEPTC       0x08784 Rc 0          "8.2.3.23";
    FCOEDWTC      0x08788 Rc 0          "8.2.3.23";
    FCRETASEL     0x0ed00 Rw 0          "8.2.3.20";
    FCRETA        0x0ed10 [4 x 8] Rw 0  "8.2.3.20";
    // Flow Director
    FDIRCTRL      0x0ee00 Rw 0          "8.2.3.21" => Control;
    FDIRHASH      0x0ee28 Rw 0          "8.2.3.21";
    FDIRCMD       0x0ee2c Rw 0          "8.2.3.21" => Control;
    FDIRSIP       0x0ee0c [4 x 3] Rw 0  "8.2.3.21";
    FDIRIP        0x0ee18 [4 x 4] Rw 0  "8.2.3.21";
    FDIRFREE      0x0ee38 Rw 0x8000     "8.2.3.21";
    FDIRIPM       0x0ee3c [4 x 4] Rw 0  "8.2.3.21";
    FDIRLEN       0x0ee4c Rc 0          "8.2.3.21";
    FDIRUSTAT     0x0ee50 Rc 0          "8.2.3.21";
    FDIRFSTAT     0x0ee54 Rc 0          "8.2.3.21";
    FDIRMATCH     0x0ee58 Rc 0          "8.2.3.21";
    FDIRMISS      0x0ee5c Rc 0          "8.2.3.21";
    FDIRHKEY      0x0ee68 [4 x 2] Rw 0  "8.2.3.21";
    FDIRIP6M      0x0ee74 [4 x 1] Rw 0  "8.2.3.21";
    FDIRM         0x0ee70 Rw 0          "8.2.3.21";
    // MAC
    PCS1GCFIG     0x04200 Rw 0x4        "8.2.3.22";
    PCS1GLCTL     0x04208 Rw 0          "8.2.3.22";
    PCS1GLSTA     0x0420c Ro 0          "8.2.3.22";
    PCS1GANA      0x04218 Rw 0          "8.2.3.22";
    PCS1GANLP     0x0421c Ro 0          "8.2.3.22";
    HLREG0        0x04240 Rw 0x00010c2b "8.2.3.22";
    HLREG1        0x04244 Ro 0x1        "8.2.3.22";
    PAP           0x04248 Rw 0xffff     "8.2.3.22";
    MSCA          0x0425c Rw 0          "8.2.3.22" => Link;
    MSRWD         0x04260 Rw 0          "8.2.3.22";
    MAXFRS        0x04268 Rw 0x05ee0000 "8.2.3.22";
    XPCSS         0x04290 Ro 0          "8.2.3.22";
    MFLCN         0x04294 Rw 0          "8.2.3.22";
    AUTOC         0x042a0 Rw 0xc09c6004 "8.2.3.22" => Link;
    LINKS         0x042a4 Ro 0          "8.2.3.22" => Link;
    LINKS2        0x04324 Ro 0          "8.2.3.22";
    AUTOC2        0x042a8 Rw 0x000a0000 "8.2.3.22" => Link;
    ANLP1         0x042b0 Ro 0x00010000 "8.2.3.22";
    ANLP2         0x042b4 Ro 0          "8.2.3.22";
    MMNGC         0x042d0 Ro 0          "8.2.3.22";
    MACC          0x04330 Rw 0          "8.2.3.22";
    CORECTL       0x14f00 Rw 0          "8.2.3.22";
    // Wake-up, management
    WUC           0x05800 Rw 0          "8.2.3.24";
    WUFC          0x05808 Rw 0          "8.2.3.24";
    WUS           0x05810 W1c 0         "8.2.3.24";
    FLEX_MNG      0x15800 [4 x 448] Rw 0 "8.2.3.25";
    HICR          0x15f00 Rw 0          "8.2.3.25" => Firmware;
    FWSTS         0x15f0c Rw 0          "8.2.3.25", sticky;
    // IEEE 1588
    TSYNCRXCTL    0x05188 Rw 0          "8.2.3.26";
    RXSTMPL       0x051e8 Ro 0          "8.2.3.26";
    RXSTMPH       0x051a4 Ro 0          "8.2.3.26";
    RXSATRL       0x051a0 Ro 0          "8.2.3.26";
    RXMTRL        0x05120 Rw 0          "8.2.3.26";
    TSYNCTXCTL    0x08c00 Rw 0          "8.2.3.26";
    TXSTMPL       0x08c04 Ro 0          "8.2.3.26";
    TXSTMPH       0x08c08 Ro 0          "8.2.3.26";
    SYSTIML       0x08c0c Rw 0          "8.2.3.26";
    SYSTIMH       0x08c10 Rw 0          "8.2.3.26";
    TIMINCA       0x08c14 Rw 0          "8.2.3.26";
    TIMADJL       0x08c18 Rw 0          "8.2.3.26";
    TIMADJH       0x08c1c Rw 0          "8.2.3.26";
    TSAUXC        0x08c20 Rw 0          "8.2.3.26";
    SYSTIMR       0x08c58 Rw 0          "8.2.3.26", x550;
    TSIM          0x08c68 Rw 0          "8.2.3.26", x550;
    // Virtualisation
    PFVTCTL       0x051b0 Rw 0          "8.2.3.27";
    PFMAILBOX     0x04b00 [4 x 64] Rw 0 "8.2.3.27" => Function;
    PFMBMEM       0x13000 [4 x 1024] Rw 0 "8.2.3.27" => Function;
    PFMBICR       0x00710 [4 x 4] W1c 0 "8.2.3.27" => Function;
    PFMBIMR       0x00720 [4 x 2] Rw 0  "8.2.3.27" => Function;
    PFVFLRE       0x00600 [4 x 2] Ro 0  "8.2.3.27" => Function;
    PFVFLREC      0x00700 [4 x 2] W1c 0 "8.2.3.27" => Function;
    PFVFRE        0x051e0 [4 x 2] Rw 0  "8.2.3.27" => Function;
    PFVFTE        0x08110 [4 x 2] Rw 0  "8.2.3.27" => Function;
    PFVMECM       0x08790 [4 x 2] Rw 0  "8.2.3.27";
    PFQDE         0x02f04 Rw 0          "8.2.3.27";
    PFDTXGSWC     0x08220 Rw 0          "8.2.3.27";
    PFVMVIR       0x08000 [4 x 64] Rw 0 "8.2.3.27";
    PFVML2FLT     0x0f000 [4 x 64] Rw 0 "8.2.3.27";
    PFVLVF        0x0f100 [4 x 64] Rw 0 "8.2.3.27";
    PFVLVFB       0x0f200 [4 x 128] Rw 0 "8.2.3.27";
    PFUTA         0x0f400 [4 x 128] Rw 0 "8.2.3.27";
    PFMRCTL       0x0f600 [4 x 4] Rw 0  "8.2.3.27";
    PFVFSPOOF     0x08200 [4 x 8] Rw 0  "8.2.3.27";
    // Statistics, clear on read
    CRCERRS       0x04000 Rc 0 "8.2.3.23";
    ILLERRC       0x04004 Rc 0 "8.2.3.23";
    ERRBC         0x04008 Rc 0 "8.2.3.23";
    MSPDC         0x04010 Rc 0 "8.2.3.23";
    RXMPC         0x03fa0 [4 x 8] Rc 0 "8.2.3.23";
    MLFC          0x04034 Rc 0 "8.2.3.23";
    MRFC          0x04038 Rc 0 "8.2.3.23";
    RLEC          0x04040 Rc 0 "8.2.3.23";
    LXONTXC       0x03f60 Rc 0 "8.2.3.23";
    LXONRXCNT     0x041a4 Rc 0 "8.2.3.23";
    LXOFFTXC      0x03f68 Rc 0 "8.2.3.23";
    LXOFFRXCNT    0x041a8 Rc 0 "8.2.3.23";
    PXONTXC       0x03f00 [4 x 8] Rc 0 "8.2.3.23";
    PXONRXCNT     0x04140 [4 x 8] Rc 0 "8.2.3.23";
    PXOFFTXCNT    0x03f20 [4 x 8] Rc 0 "8.2.3.23";
    PXOFFRXCNT    0x04160 [4 x 8] Rc 0 "8.2.3.23";
    PRC64         0x0405c [4 x 6] Rc 0 "8.2.3.23";
    GPRC          0x04074 Rc 0 "8.2.3.23";
    BPRC          0x04078 Rc 0 "8.2.3.23";
    MPRC          0x0407c Rc 0 "8.2.3.23";
    GPTC          0x04080 Rc 0 "8.2.3.23";
    GORCL         0x04088 Rc 0 "8.2.3.23";
    GORCH         0x0408c Rc 0 "8.2.3.23";
    GOTCL         0x04090 Rc 0 "8.2.3.23";
    GOTCH         0x04094 Rc 0 "8.2.3.23";
    RUC           0x040a4 Rc 0 "8.2.3.23";
    RFC           0x040a8 Rc 0 "8.2.3.23";
    ROC           0x040ac Rc 0 "8.2.3.23";
    RJC           0x040b0 Rc 0 "8.2.3.23";
    MNGPRC        0x040b4 Rc 0 "8.2.3.23";
    MNGPDC        0x040b8 Rc 0 "8.2.3.23";
    MNGPTC        0x0cf90 Rc 0 "8.2.3.23";
    TORL          0x040c0 Rc 0 "8.2.3.23";
    TORH          0x040c4 Rc 0 "8.2.3.23";
    TPR           0x040d0 Rc 0 "8.2.3.23";
    TPT           0x040d4 Rc 0 "8.2.3.23";
    PTC64         0x040d8 [4 x 6] Rc 0 "8.2.3.23";
    MPTC          0x040f0 Rc 0 "8.2.3.23";
    BPTC          0x040f4 Rc 0 "8.2.3.23";
    XEC           0x04120 Rc 0 "8.2.3.23";
    // Between the system and a management controller: none here
    B2OSPC        0x041c0 Rc 0 "8.2.3.23", x540;
    O2BGPTC       0x041c4 Rc 0 "8.2.3.23", x540;
    B2OGPRC       0x02f90 Rc 0 "8.2.3.23", x540;
    O2BSPC        0x087b0 Rc 0 "8.2.3.23", x540;
    RQSMR         0x02300 [4 x 32] Rw 0 "8.2.3.23";
    RXDSTATCTRL   0x02f40 Rw 0 "8.2.3.23";
    RXNFGPC       0x041b0 Rc 0 "8.2.3.23";
    RXNFGBCL      0x041b4 Rc 0 "8.2.3.23";
    RXNFGBCH      0x041b8 Rc 0 "8.2.3.23";
    RXDGPC        0x02f50 Rc 0 "8.2.3.23";
    RXDGBCL       0x02f54 Rc 0 "8.2.3.23";
    RXDGBCH       0x02f58 Rc 0 "8.2.3.23";
    TQSM          0x08600 [4 x 32] Rw 0 "8.2.3.23";
    QPTC          0x08680 [4 x 16] Rc 0 "8.2.3.23";
    QBTC_L        0x08700 [8 x 16] Rc 0 "8.2.3.23";
    QBTC_H        0x08704 [8 x 16] Rc 0 "8.2.3.23";
    SSVPC         0x08780 Rc 0 "8.2.3.23";
    TXDGPC        0x087a0 Rc 0 "8.2.3.23";
    TXDGBCL       0x087a4 Rc 0 "8.2.3.23";
    TXDGBCH       0x087a8 Rc 0 "8.2.3.23";
}
