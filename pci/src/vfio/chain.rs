//! The capabilities that VFIO, or a vfio-user server, appends to what it says of a region or of an IOMMU.

use vfio_bindings::bindings::vfio as abi;

/// The 32-bit number at an offset; 0 beyond the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// `count` pairs of 64-bit numbers from an offset on, as far as there are bytes.
pub(crate) fn pairs(bytes: &[u8], at: usize, count: u32) -> impl Iterator<Item = (u64, u64)> {
    let number = |half: &[u8]| half.try_into().map_or(0, u64::from_ne_bytes);
    bytes
        .get(at..)
        .unwrap_or_default()
        .chunks_exact(16)
        .take(count as usize)
        .map(move |pair| (number(&pair[..8]), number(&pair[8..])))
}

/// The capabilities of a reply: each has an id, a version, the offset of the next (0 at the end) and a body.
pub(crate) struct Chain<'a> {
    reply: &'a [u8],
    next: usize,
}

impl<'a> Chain<'a> {
    /// `first` is where the fixed part of the reply says that the list starts, 0 if there is none.
    pub(crate) fn new(reply: &'a [u8], first: u32) -> Chain<'a> {
        Chain { reply, next: first as usize }
    }
}

impl<'a> Iterator for Chain<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.next;
        let body = self.reply.get(at..)?.get(size_of::<abi::vfio_info_cap_header>()..).filter(|_| at != 0)?;
        let next = word(self.reply, at + 4) as usize;
        // The kernel appends, so offsets grow; anything else ends the walk.
        self.next = if next > at { next } else { 0 };
        Some((word(self.reply, at) & 0xffff, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply: a fixed part of `fixed` bytes, then capabilities of an id and 64-bit words, as the kernel lays them out.
    fn reply(fixed: usize, capabilities: &[(u16, &[u64])]) -> Vec<u8> {
        let mut bytes = vec![0; fixed];
        for (number, (id, body)) in capabilities.iter().enumerate() {
            let last = number + 1 == capabilities.len();
            let next = if last { 0 } else { (bytes.len() + 8 + 8 * body.len()) as u32 };
            bytes.extend(id.to_ne_bytes());
            bytes.extend(1u16.to_ne_bytes());
            bytes.extend(next.to_ne_bytes());
            bytes.extend(body.iter().flat_map(|word| word.to_ne_bytes()));
        }
        bytes
    }

    fn ids(reply: &[u8], first: u32) -> Vec<u32> {
        Chain::new(reply, first).map(|(id, _)| id).collect()
    }

    #[test]
    fn walks_a_chain_and_reads_the_pairs_in_it() {
        let ranges = [2, 0, 0xfedf_ffff, 0xfef0_0000, u64::MAX];
        let reply = reply(24, &[(2, &[7]), (1, &ranges), (3, &[])]);
        assert_eq!(ids(&reply, 24), [2, 1, 3]);
        let (_, body) = Chain::new(&reply, 24).find(|(id, _)| *id == 1).unwrap();
        let read: Vec<_> = pairs(body, 8, word(body, 0)).collect();
        assert_eq!(read, [(0, 0xfedf_ffff), (0xfef0_0000, u64::MAX)]);
        assert_eq!(pairs(body, 8, 1).count(), 1, "no more than the count says");
        assert_eq!(pairs(&body[..30], 8, 2).count(), 1, "and no more than there are");
    }

    #[test]
    fn a_chain_that_leads_nowhere_ends() {
        let mut reply = reply(24, &[(2, &[7]), (1, &[])]);
        assert_eq!(ids(&reply, 0), [0u32; 0]);
        assert_eq!(ids(&reply, reply.len() as u32 - 4), [0u32; 0]);
        assert_eq!(ids(&reply, u32::MAX), [0u32; 0]);
        // The second points back to the first.
        let second = 24 + 16;
        reply[second + 4..second + 8].copy_from_slice(&24u32.to_ne_bytes());
        assert_eq!(ids(&reply, 24), [2, 1]);
    }
}
