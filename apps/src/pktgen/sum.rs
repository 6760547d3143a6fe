//! The checksum of IP, TCP and UDP (RFC 1071): a sum modulo 65,535, which is why a change of one field changes it by so much.

/// The sum of bytes that begin at an even place, not folded.
pub(super) fn of(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks_exact(2);
    let odd = pairs.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    odd + pairs.map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u64>()
}

/// What a sum comes to in 16 bits. Only 0 comes to 0.
#[inline(always)]
pub(super) fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// The checksum field for a sum.
#[inline(always)]
pub(super) fn checksum(sum: u64) -> u16 {
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(of(&bytes)), 0xddf2);
        assert_eq!(of(&[1, 2, 3]), 0x0102 + 0x0300);
        assert_eq!((fold(0), fold(0xffff), fold(u64::MAX)), (0, 0xffff, 0xffff));
    }
}
