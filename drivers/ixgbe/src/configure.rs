//! What a start sets up besides queues, in the order of section 4.6.3: general, link, receive, transmit.

use pagewire_ethdev::nic::{Device, Filters};
use pagewire_ethdev::{PortConfig, RssLimits, RssTypes, RxOffloads};

use crate::family::{Family, LARGEST_REDIRECTION};
use crate::filters;
use crate::flows;
use crate::functions::Functions;
use crate::registers::*;

/// Ethernet header, VLAN tag and frame check sequence. MAXFRS counts a tag only where there is none: a frame with one may be longer
/// by that (section 8.2.3.22.13), and what is beyond the MTU's limit then is the ring's to refuse.
const FRAME_OVERHEAD: u16 = 14 + 4 + 4;
/// Longest frame, with tag and frame check sequence, that needs no jumbo enable.
const LONGEST_STANDARD: u16 = 1522;
/// Entries of the redirection table in a register.
const RETA_PER_WORD: usize = 4;
/// What RSS can be told (7.1.2.8).
pub(crate) const RSS: RssLimits =
    RssLimits { key: RSSRK.stride * RSSRK.count, table: LARGEST_REDIRECTION.entries, types: RssTypes::all() };
/// The hash key's repeating part: it makes both directions of a flow hash alike, so that they meet at one queue.
const RSS_KEY: [u8; 4] = [0x6d, 0x5a, 0x6d, 0x5a];

/// What comes before the link.
pub(crate) fn general(device: &Device) {
    let registers = &device.registers;
    registers.modify(CTRL, ctrl::GIO_MASTER_DISABLE, 0);
    registers.modify(CTRL_EXT, 0, ctrl_ext::NS_DIS | ctrl_ext::DRV_LOAD);
    flow_control_off(device);
}

/// What comes after it, but for queues.
pub(crate) fn both_ways(device: &Device, filters: &Filters, config: &PortConfig, functions: &Functions) {
    receive(device, filters, config, functions);
    transmit(device, functions);
    functions.set_up(device, config.rx.len());
}

/// 4.6.3.2: no pause frames: a port that is too slow drops and counts. The upper thresholds are needed all the same.
fn flow_control_off(device: &Device) {
    let registers = &device.registers;
    for register in [FCTTV, FCRTL, FCRTH, FCRTV, FCCFG] {
        fill(device, register, 0);
    }
    let buffer = Family::of(device).packet_buffer << RXPBSIZE_SHIFT;
    registers.write_at(FCRTH, 0, buffer - FCRTH_OFF);
    registers.write(MFLCN, MFLCN_DPF);
}

/// 4.6.7: filters and offloads of all queues.
fn receive(device: &Device, filters: &Filters, config: &PortConfig, functions: &Functions) {
    let registers = &device.registers;
    filters::write(device, filters, functions);
    flows::count_drops(device);
    // 7.1.10: without virtualisation all queues are pool 0's.
    registers.write_at(PSRTYPE, 0, PSRTYPE_IP);
    registers.write(RXCSUM, RXCSUM_PCSD);
    if config.rx_offloads.contains(RxOffloads::HEADER_SPLIT) {
        log::warn!(
            "{}: header split is on, against which the 82599's datasheet advises in section 7.1.10: its results may be unpredictable",
            device.name
        );
    }
    let coalesce = config.rx_offloads.contains(RxOffloads::LRO);
    registers.write(RFCTL, RFCTL_NFS_DIS | if coalesce { 0 } else { RFCTL_RSC_DIS });
    registers.modify(
        RDRXCTL,
        rdrxctl::RSCFRSTSIZE,
        rdrxctl::CRC_STRIP | rdrxctl::RSCACKC | rdrxctl::FCOE_WRFIX,
    );
    registers.modify(RSCDBU, 0, RSCDBU_RSCACKDIS);
    // 4.6.11.3.4: no DCB, no virtualisation: one packet buffer.
    fill(device, RXPBSIZE, 0);
    registers.write_at(RXPBSIZE, 0, Family::of(device).packet_buffer << RXPBSIZE_SHIFT);
    spread(device, config, functions);
    let longest = config.mtu.saturating_add(FRAME_OVERHEAD);
    let jumbo = if longest > LONGEST_STANDARD { hlreg0::JUMBOEN } else { 0 };
    registers.write(MAXFRS, u32::from(longest) << MAXFRS_MFS_SHIFT);
    registers.modify(
        HLREG0,
        hlreg0::JUMBOEN | hlreg0::LPBK,
        hlreg0::TXCRCEN | hlreg0::RXCRCSTRP | hlreg0::TXPADEN | jumbo,
    );
}

/// What RSS hashes: nothing unless there are flows to spread, be it by virtual functions, or somebody wants to know.
pub(crate) fn rss_types(config: &PortConfig) -> RssTypes {
    let spread = config.rx.len() > 1 || !config.functions.is_empty();
    match spread || config.rx_offloads.contains(RxOffloads::RSS_HASH) {
        true => config.rss.types.unwrap_or(RSS.types),
        false => RssTypes::empty(),
    }
}

/// 7.1.2.8: the key and what is hashed; [`write_redirection`] has the queues.
fn spread(device: &Device, config: &PortConfig, functions: &Functions) {
    let registers = &device.registers;
    let types = rss_types(config);
    if types.is_empty() {
        registers.write(MRQC, if functions.is_empty() { 0 } else { functions.mrqc() });
        return;
    }
    let key = config.rss.key.as_deref().unwrap_or(&[]);
    let key = key.iter().copied().chain(RSS_KEY.into_iter().cycle().skip(key.len()));
    let key: Vec<u8> = key.take(RSS.key).collect();
    for (word, bytes) in key.chunks_exact(RSSRK.stride).enumerate() {
        registers.write_at(RSSRK, word, u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    }
    let bits = mrqc::BY_TYPE.into_iter().filter(|(kind, _)| types.contains(*kind)).map(|(_, bit)| bit);
    registers.write(MRQC, bits.fold(functions.mrqc(), |all, bit| all | bit));
}

/// 7.1.2.8.3: the redirection table.
pub(crate) fn write_redirection(device: &Device, queues: &[u16]) {
    let places = [RETA, ERETA].into_iter().flat_map(|table| (0..table.count).map(move |word| (table, word)));
    for ((table, word), entries) in places.zip(queues.chunks_exact(RETA_PER_WORD)) {
        let entries: [u8; RETA_PER_WORD] = std::array::from_fn(|entry| entries[entry] as u8);
        device.registers.write_at(table, word, u32::from_le_bytes(entries));
    }
}

/// 4.6.8 and 4.6.11.3.4: one packet buffer, no DCB, no virtualisation, while the arbiter stands still.
fn transmit(device: &Device, functions: &Functions) {
    let registers = &device.registers;
    registers.modify(RTTDCS, 0, RTTDCS_ARBDIS);
    registers.write(DTXMXSZRQ, DTXMXSZRQ_MAX);
    fill(device, TXPBSIZE, 0);
    fill(device, TXPBTHRESH, 0);
    registers.write_at(TXPBSIZE, 0, TXPBSIZE_ALL);
    registers.write_at(TXPBTHRESH, 0, TXPBTHRESH_ALL);
    registers.write(MTQC, functions.mtqc());
    registers.modify(RTTDCS, RTTDCS_ARBDIS, 0);
}

/// Write the same to all of an array.
pub(crate) fn fill(device: &Device, register: pagewire_ethdev::nic::Register, value: u32) {
    (0..register.count).for_each(|index| device.registers.write_at(register, index, value));
}
