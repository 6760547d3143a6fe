//! Packets and posted fragments: who may touch a fragment now, as types.

// Both are owning pointers to a fragment's record and its memory.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use crate::about::{PacketType, RssTypes};
use crate::check;
use crate::error::Error;
use crate::magazine;
use crate::record::{POOL, Record};

bitflags::bitflags! {
    /// What the receiving card found out about a packet, and what the sending card is asked to do with it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PacketFlags: u32 {
        /// Received: the IPv4 header checksum is right.
        const RX_IP_CSUM_GOOD = 1 << 0;
        /// Received: the IPv4 header checksum is wrong.
        const RX_IP_CSUM_BAD = 1 << 1;
        /// Received: the TCP, UDP or SCTP checksum is right.
        const RX_L4_CSUM_GOOD = 1 << 2;
        /// Received: the TCP, UDP or SCTP checksum is wrong.
        const RX_L4_CSUM_BAD = 1 << 3;
        /// Received: a VLAN tag was taken out of the frame; [`Packet::vlan_tci`] has it.
        const RX_VLAN_STRIPPED = 1 << 4;
        /// Received: [`Packet::rss_hash`] and [`Packet::rss_type`] are valid.
        const RX_RSS_HASH = 1 << 5;
        /// Received: [`Packet::packet_type`] is valid.
        const RX_PACKET_TYPE = 1 << 6;
        /// Received: the card put TCP segments together, one or more. The headers are those of the first, as the card changed them; the
        /// checksum of TCP is as it was.
        const RX_LRO = 1 << 7;
        /// Received: the headers are the first segment, what follows them is in the next.
        const RX_HEADER_SPLIT = 1 << 8;

        // What to send asks for lengths of headers: `Packet::set_header_lens`. Who fills in which field before is said at
        // `TxQueue::tx_burst` of the driver interface.
        /// Send: fill in the IPv4 header checksum.
        const TX_IP_CSUM = 1 << 16;
        /// Send: fill in the TCP checksum, over IPv4 or IPv6.
        const TX_TCP_CSUM = 1 << 17;
        /// Send: fill in the UDP checksum, over IPv4 or IPv6.
        const TX_UDP_CSUM = 1 << 18;
        /// Send: insert the VLAN tag of [`Packet::vlan_tci`].
        const TX_VLAN_INSERT = 1 << 19;
        /// Send: fill in the SCTP checksum, over IPv4 or IPv6.
        const TX_SCTP_CSUM = 1 << 20;
        /// Send: cut into TCP segments as [`Packet::set_segmentation`] says, each with every checksum right.
        const TX_TSO = 1 << 21;

        /// The packet has more than one segment. Kept by the pool.
        const CHAINED = 1 << 31;
    }
}

impl PacketFlags {
    /// What keeps a packet off the shortest transmit path: any request to the card, or more than one segment.
    pub const TX_SLOW: PacketFlags = PacketFlags::from_bits_retain(0xffff_0000);
}

/// A fragment that a device may write to. Nobody can read it until the device is done with it.
///
/// Dropping it returns it to its pool, so a driver drops posted fragments only once its device can no longer reach
/// them: after the queue has been stopped and the device reset.
#[repr(transparent)]
pub struct Posted(NonNull<Record>);

// SAFETY: a posted fragment has one owner, and all its state is behind that owner's pointer.
unsafe impl Send for Posted {}

impl Posted {
    /// `record` is a free fragment that now belongs to the caller.
    #[inline(always)]
    pub(crate) fn from_record(record: NonNull<Record>) -> Posted {
        check::taken(record);
        Posted(record)
    }

    #[inline(always)]
    fn record(&self) -> &Record {
        // SAFETY: the fragment is ours alone; its record is written through `&mut self` only.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn kind(&self) -> u32 {
        self.record().kind
    }

    /// Where the device finds the fragment's first byte.
    #[inline(always)]
    pub fn iova(&self) -> u64 {
        self.record().iova
    }

    /// Bytes in the fragment.
    #[inline(always)]
    pub fn size(&self) -> usize {
        self.record().size as usize
    }

    /// The device has written `len` bytes from `offset` on and is done with the fragment. Of the flags, those of what was received count.
    ///
    /// A device may claim more than there is: data that would end beyond the fragment gives it back unread.
    #[inline(always)]
    pub fn complete(self, offset: u16, len: u16, flags: PacketFlags) -> Result<Packet, Posted> {
        if u32::from(offset) + u32::from(len) > self.record().size {
            return Err(self);
        }
        // SAFETY: just compared.
        let mut packet = unsafe { self.complete_unchecked(offset.into(), len.into()) };
        packet.set_rx_flags(flags);
        Ok(packet)
    }

    /// [`complete`](Posted::complete), without flags, for a receive loop that has compared already.
    ///
    /// # Safety
    ///
    /// `offset + len` is no more than [`size`](Posted::size) and than 65,535.
    #[inline(always)]
    pub unsafe fn complete_unchecked(self, offset: u32, len: u32) -> Packet {
        debug_assert!(offset + len <= self.record().size);
        let mut record = ManuallyDrop::new(self).0;
        // SAFETY: the fragment is ours alone.
        let fields = unsafe { record.as_mut() };
        (fields.data, fields.offset, fields.packet_len) = (len, offset, len);
        Packet(record)
    }
}

impl Posted {
    /// [`complete_unchecked`](Posted::complete_unchecked) of four, in place: the lengths stand in the lower halves of four lanes of 64 bits,
    /// in the order first, third, second, fourth.
    ///
    /// # Safety
    ///
    /// As there; each `Posted` is to be taken for a [`Packet`] from here on. The CPU has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub unsafe fn complete_four(four: &[Posted; 4], offset: u32, lens: __m256i) {
        let data = _mm256_or_si256(lens, _mm256_set1_epi64x(i64::from(offset) << 32));
        let (low, high) = (_mm256_castsi256_si128(data), _mm256_extracti128_si256::<1>(data));
        let data = [
            (_mm_cvtsi128_si64(low), _mm_cvtsi128_si32(low)),
            (_mm_cvtsi128_si64(high), _mm_cvtsi128_si32(high)),
            (_mm_extract_epi64::<1>(low), _mm_extract_epi32::<2>(low)),
            (_mm_extract_epi64::<1>(high), _mm_extract_epi32::<2>(high)),
        ];
        for (posted, (data, len)) in four.iter().zip(data) {
            let record = posted.0.as_ptr();
            // SAFETY: the fragment is ours alone. `offset` stands behind `data`, aligned for one store.
            unsafe {
                (&raw mut (*record).data).cast::<i64>().write(data);
                (*record).packet_len = len as u32;
            }
        }
    }
}

impl Drop for Posted {
    #[inline]
    fn drop(&mut self) {
        magazine::release(self.0);
    }
}

impl fmt::Debug for Posted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Posted({:#x}, {} bytes)", self.iova(), self.size())
    }
}

/// A packet: one or more fragments that the CPU owns. One machine word; dropped = returned to its pool.
///
/// Data lies in the fragment's memory from [`headroom`](Packet::headroom) on, everything that is known *about* the packet in
/// a record beside it that no device can write.
#[repr(transparent)]
pub struct Packet(NonNull<Record>);

const _: () = assert!(size_of::<Option<Packet>>() == size_of::<usize>());

// SAFETY: a packet has one owner, and all its state is behind that owner's pointer.
unsafe impl Send for Packet {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for Packet {}

impl Packet {
    #[inline(always)]
    pub(crate) fn record(&self) -> NonNull<Record> {
        self.0
    }

    #[inline(always)]
    pub(crate) fn into_record(self) -> NonNull<Record> {
        ManuallyDrop::new(self).0
    }

    #[inline(always)]
    pub(crate) fn kind(&self) -> u32 {
        self.fields().kind
    }

    #[inline(always)]
    fn fields(&self) -> &Record {
        // SAFETY: the packet owns its record.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn fields_mut(&mut self) -> &mut Record {
        // SAFETY: the packet owns its record.
        unsafe { self.0.as_mut() }
    }

    /// Bytes in the packet, all segments together.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.fields().packet_len as usize
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in the first segment.
    #[inline(always)]
    pub fn data_len(&self) -> u16 {
        self.fields().len()
    }

    /// Where a device finds the first byte of the first segment.
    #[inline(always)]
    pub fn iova(&self) -> u64 {
        let record = self.fields();
        record.iova + u64::from(record.offset)
    }

    /// What is known and asked of the packet.
    #[inline(always)]
    pub fn flags(&self) -> PacketFlags {
        let record = self.fields();
        PacketFlags::from_bits_retain(record.data >> 16 | record.kind & !POOL)
    }

    /// Replace the flags. [`PacketFlags::CHAINED`] stays as it is.
    #[inline]
    pub fn set_flags(&mut self, flags: PacketFlags) {
        let chained = self.flags() & PacketFlags::CHAINED;
        let flags = ((flags - PacketFlags::CHAINED) | chained).bits();
        let record = self.fields_mut();
        record.data = record.data & 0xffff | flags << 16;
        record.kind = record.kind & POOL | flags & !POOL;
    }

    /// Replace the flags of what was received, in a receive path: those of what is to be sent are not set yet.
    #[inline(always)]
    pub fn set_rx_flags(&mut self, flags: PacketFlags) {
        let record = self.fields_mut();
        record.data = record.data & 0xffff | flags.bits() << 16;
    }

    /// Forget what the card was asked to do: it has been told. The packet takes the shortest way home then.
    #[inline]
    pub fn clear_requests(&mut self) {
        self.set_flags(self.flags() - PacketFlags::TX_SLOW);
    }

    /// Length and kind in one word, as [`Plain`] compares it.
    #[inline(always)]
    fn word(&self) -> u64 {
        // SAFETY: the packet owns its record, in which both stand side by side, aligned for one load.
        let word = unsafe { (&raw const (*self.0.as_ptr()).packet_len).cast::<u64>().read() };
        if cfg!(target_endian = "big") { word.rotate_left(32) } else { word }
    }

    /// The VLAN tag control information that was stripped or is to be inserted; see the flags.
    #[inline]
    pub fn vlan_tci(&self) -> u16 {
        self.fields().vlan_tci
    }

    /// Set the VLAN tag control information; [`PacketFlags::TX_VLAN_INSERT`] has it sent.
    #[inline]
    pub fn set_vlan_tci(&mut self, tci: u16) {
        self.fields_mut().vlan_tci = tci;
    }

    /// The RSS hash, if the card computed one.
    #[inline]
    pub fn rss_hash(&self) -> Option<u32> {
        self.flags().contains(PacketFlags::RX_RSS_HASH).then(|| self.fields().hash)
    }

    /// What the RSS hash was made of, if the card computed one.
    #[inline]
    pub fn rss_type(&self) -> Option<RssTypes> {
        self.rss_hash().map(|_| RssTypes::from_bits_retain(self.fields().rss_type))
    }

    /// Set the RSS hash and what it was made of; [`PacketFlags::RX_RSS_HASH`] makes them valid.
    #[inline]
    pub fn set_rss_hash(&mut self, hash: u32, of: RssTypes) {
        let record = self.fields_mut();
        (record.hash, record.rss_type) = (hash, of.bits());
    }

    /// The headers that the card found, if it told.
    #[inline]
    pub fn packet_type(&self) -> Option<PacketType> {
        let told = self.flags().contains(PacketFlags::RX_PACKET_TYPE);
        told.then(|| PacketType::from_bits_retain(self.fields().packet_type))
    }

    /// Set the packet type; [`PacketFlags::RX_PACKET_TYPE`] makes it valid.
    #[inline]
    pub fn set_packet_type(&mut self, kind: PacketType) {
        self.fields_mut().packet_type = kind.bits();
    }

    /// Length of the TCP header and most payload of a segment, both in bytes, which [`PacketFlags::TX_TSO`] needs.
    #[inline]
    pub fn segmentation(&self) -> (u16, u16) {
        (self.fields().l4_len, self.fields().mss)
    }

    /// Set the length of the TCP header and the most payload of a segment, both in bytes.
    #[inline]
    pub fn set_segmentation(&mut self, l4: u16, mss: u16) {
        let record = self.fields_mut();
        (record.l4_len, record.mss) = (l4, mss);
    }

    /// Lengths of the layer-2 and layer-3 headers in bytes, which checksum offload and segmentation need.
    #[inline]
    pub fn header_lens(&self) -> (u16, u16) {
        (self.fields().l2_len, self.fields().l3_len)
    }

    /// Set the lengths of the layer-2 and layer-3 headers in bytes.
    #[inline]
    pub fn set_header_lens(&mut self, l2: u16, l3: u16) {
        let record = self.fields_mut();
        (record.l2_len, record.l3_len) = (l2, l3);
    }

    /// The first segment's bytes. `None` where the CPU cannot read them.
    #[inline(always)]
    pub fn as_slice(&self) -> Option<&[u8]> {
        let record = self.fields();
        let addr = NonNull::new(record.addr)?;
        // SAFETY: offset + len lie within the fragment (checked wherever they are set), the fragment is mapped for as
        // long as it is held, initialised (memory of a segment is zeroed by the kernel), and its device is done with it.
        Some(unsafe {
            std::slice::from_raw_parts(addr.as_ptr().add(record.offset as usize), usize::from(record.len()))
        })
    }

    /// The first segment's bytes, to be changed. `None` where the CPU cannot reach them.
    #[inline(always)]
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        let record = self.fields();
        let addr = NonNull::new(record.addr)?;
        // SAFETY: as for `as_slice`, and `&mut self` makes it the only reference.
        Some(unsafe {
            std::slice::from_raw_parts_mut(
                addr.as_ptr().add(record.offset as usize),
                usize::from(record.len()),
            )
        })
    }

    /// The packet's segments, first to last.
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: Some(self) }
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        match self.flags().contains(PacketFlags::CHAINED) {
            true => usize::from(self.fields().segments),
            false => 1,
        }
    }

    /// Bytes free before the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.fields().offset as usize
    }

    /// Bytes free after the first segment's data, as far as a length of 16 bits goes.
    #[inline]
    pub fn tailroom(&self) -> usize {
        let record = self.fields();
        let room = record.size as usize - record.offset as usize - usize::from(record.len());
        room.min(usize::from(u16::MAX - record.len()))
    }

    /// Whether the CPU can read and write the first segment. That never changes while the packet lives.
    #[inline]
    pub fn is_readable(&self) -> bool {
        !self.fields().addr.is_null()
    }

    /// Grow the packet by `count` bytes at its front. Their content is whatever was there before.
    pub fn prepend(&mut self, count: usize) -> Result<(), Error> {
        let room = self.headroom().min(usize::from(u16::MAX - self.data_len()));
        if count > room {
            return Err(Error::NoRoom { asked: count, room });
        }
        let record = self.fields_mut();
        record.offset -= count as u32;
        record.data += count as u32;
        record.packet_len += count as u32;
        Ok(())
    }

    /// Drop `count` bytes from the front of the first segment.
    pub fn trim_front(&mut self, count: usize) -> Result<(), Error> {
        let room = usize::from(self.data_len());
        if count > room {
            return Err(Error::NoRoom { asked: count, room });
        }
        let record = self.fields_mut();
        record.offset += count as u32;
        record.data -= count as u32;
        record.packet_len -= count as u32;
        Ok(())
    }

    /// Drop `count` bytes from the end of the last segment.
    pub fn trim_back(&mut self, count: usize) -> Result<(), Error> {
        let mut last = self.record();
        // SAFETY: the segments belong to this packet.
        while let Some(next) = unsafe { last.as_ref() }.next {
            last = next;
        }
        // SAFETY: and it is ours, and not lent to anybody.
        let last = unsafe { last.as_mut() };
        let room = usize::from(last.len());
        if count > room {
            return Err(Error::NoRoom { asked: count, room });
        }
        last.data -= count as u32;
        self.fields_mut().packet_len -= count as u32;
        Ok(())
    }

    /// Append `bytes` to a packet of one segment, which the CPU can read.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.is_readable() {
            return Err(Error::Unreadable { segment: 0 });
        }
        let room = if self.fields().next.is_none() { self.tailroom() } else { 0 };
        if bytes.len() > room {
            return Err(Error::NoRoom { asked: bytes.len(), room });
        }
        let record = self.fields_mut();
        let end = usize::from(record.len());
        record.data += bytes.len() as u32;
        record.packet_len += bytes.len() as u32;
        if let Some(data) = self.as_mut_slice() {
            data[end..].copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Copy the whole packet, all segments, into `out`, which is cleared first.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`]; `out` then has the segments before that one.
    pub fn copy_to(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        out.clear();
        for (number, segment) in self.segments().enumerate() {
            out.extend_from_slice(segment.as_slice().ok_or(Error::Unreadable { segment: number })?);
        }
        Ok(())
    }

    fn next(&self) -> Option<&Packet> {
        // SAFETY: `Packet` is a transparent pointer to a record, and the next segment belongs to this packet; the
        // reference lives no longer than the packet's own.
        unsafe { std::mem::transmute(self.fields().next.as_ref()) }
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        magazine::release(self.0);
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packet({} bytes, {} segments, {:?})", self.len(), self.segment_count(), self.flags())
    }
}

/// What packets look like that a transmit path sends just as they are: of one pool and one segment, without requests to the card, not
/// too short and not too long. To be that, and to come home together with others, costs a packet one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The lowest word that is included, and how far it goes from there: both with half the range of a word added, so that the comparison
    /// is one of signed numbers, as vector instructions have it.
    lowest: u64,
    spread: i64,
}

const HALF: u64 = 1 << 63;

impl Plain {
    /// Packets of that packet's pool, of `shortest` to `longest` bytes.
    #[inline]
    pub fn like(packet: &Packet, shortest: u32, longest: u32) -> Plain {
        let pool = u64::from(packet.kind() & POOL);
        Plain {
            lowest: (pool << 32 | u64::from(shortest)) ^ HALF,
            spread: (u64::from(longest.saturating_sub(shortest)) ^ HALF) as i64,
        }
    }

    /// Packets of no pool: none is like that.
    pub const NONE: Plain = Plain { lowest: u64::MAX ^ HALF, spread: HALF as i64 };

    /// The pool's number.
    #[inline(always)]
    pub(crate) fn pool(&self) -> u32 {
        (self.lowest >> 32) as u32 & POOL
    }

    /// Whether the packet is one of them.
    #[inline(always)]
    pub fn includes(&self, packet: &Packet) -> bool {
        packet.word().wrapping_sub(self.lowest) as i64 <= self.spread
    }
}

impl Plain {
    /// The lengths of four packets in bytes, in four lanes of 64 bits, if all are included.
    ///
    /// # Safety
    ///
    /// The CPU has AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn lens_of_four(&self, packets: &[Packet; 4]) -> Option<__m256i> {
        let word = |number: usize| packets[number].word() as i64;
        let words = _mm256_set_epi64x(word(3), word(2), word(1), word(0));
        let lowest = _mm256_set1_epi64x(self.lowest as i64);
        let spread = _mm256_set1_epi64x(self.spread);
        let outside = _mm256_cmpgt_epi64(_mm256_sub_epi64(words, lowest), spread);
        let lens = _mm256_and_si256(words, _mm256_set1_epi64x(u32::MAX.into()));
        (_mm256_testz_si256(outside, outside) == 1).then_some(lens)
    }
}

/// The segments of a packet; each is lent as a [`Packet`] of which only its own data is meaningful.
pub struct Segments<'a> {
    next: Option<&'a Packet>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a Packet;

    #[inline]
    fn next(&mut self) -> Option<&'a Packet> {
        let segment = self.next?;
        self.next = segment.next();
        Some(segment)
    }
}

/// A packet that is being put together from segments, as a card delivers them.
pub struct Chain {
    head: Packet,
    tail: NonNull<Record>,
    segments: u16,
}

// SAFETY: `tail` points into the packet that `head` owns.
unsafe impl Send for Chain {}

impl Chain {
    /// Most segments a packet can have.
    pub const MAX_SEGMENTS: u16 = 256;

    /// Start with the first segment, or go on with a chain that was finished before.
    pub fn new(head: Packet) -> Chain {
        let segments = head.segment_count() as u16;
        let mut tail = head.record();
        // SAFETY: the segments belong to `head`.
        while let Some(next) = unsafe { tail.as_ref() }.next {
            tail = next;
        }
        Chain { tail, head, segments }
    }

    /// Add a segment. Gives it back if the packet has [`Chain::MAX_SEGMENTS`] already or the segment is itself a chain.
    pub fn push(&mut self, segment: Packet) -> Result<(), Packet> {
        if self.segments == Chain::MAX_SEGMENTS || segment.flags().contains(PacketFlags::CHAINED) {
            return Err(segment);
        }
        let len = segment.len() as u32;
        let record = segment.into_record();
        // SAFETY: `tail` is a segment of `head`, which is ours and not lent to anybody.
        let tail = unsafe { self.tail.as_mut() };
        tail.next = Some(record);
        tail.kind |= PacketFlags::CHAINED.bits();
        self.tail = record;
        self.segments += 1;
        let head = self.head.fields_mut();
        head.packet_len += len;
        head.segments = self.segments;
        Ok(())
    }

    /// Segments so far.
    pub fn segments(&self) -> u16 {
        self.segments
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.head.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packet as it is.
    pub fn finish(self) -> Packet {
        self.head
    }
}
