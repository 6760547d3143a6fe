//! Sums over bytes: the Internet checksum (RFC 1071), CRC-32 of Ethernet and CRC-32C of SCTP.

/// Ones' complement sum of 16-bit words, not yet folded, added to `sum`.
#[inline]
pub(super) fn add(sum: u32, data: &[u8]) -> u32 {
    let mut total = sum as u64;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        total += u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as u64;
    }
    match *words.remainder() {
        [] => {}
        [a] => total += (a as u64) << 24,
        [a, b] => total += (a as u64) << 24 | (b as u64) << 16,
        [a, b, c, ..] => total += (a as u64) << 24 | (b as u64) << 16 | (c as u64) << 8,
    }
    total = (total >> 32) + (total & 0xffff_ffff);
    total = (total >> 32) + (total & 0xffff_ffff);
    fold((total >> 16) as u32 + (total & 0xffff) as u32) as u32
}

/// Fold a sum to 16 bits.
#[inline]
pub(super) fn fold(mut sum: u32) -> u16 {
    sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

const fn crc_table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ polynomial } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

static ETHERNET: [u32; 256] = crc_table(0xedb8_8320);
static CASTAGNOLI: [u32; 256] = crc_table(0x82f6_3b78);

fn crc(table: &[u32; 256], data: impl Iterator<Item = u8>) -> u32 {
    !data.fold(u32::MAX, |crc, byte| crc >> 8 ^ table[((crc ^ byte as u32) & 0xff) as usize])
}

/// A frame's check sequence, least significant byte first on the wire.
pub(super) fn fcs(frame: &[u8]) -> u32 {
    crc(&ETHERNET, frame.iter().copied())
}

/// The checksum of an SCTP packet, its checksum field (bytes 8 to 11) taken as 0; least significant byte first.
pub(super) fn sctp(packet: &[u8]) -> u32 {
    let bytes = packet.iter().enumerate().map(|(at, &byte)| if (8..12).contains(&at) { 0 } else { byte });
    crc(&CASTAGNOLI, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        // RFC 1071's own example.
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(fold(add(0, &[0x12])), 0x1200);
        assert_eq!(fold(add(0, &[0xff; 7])), 0xff00);
        assert_eq!(fcs(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc(&CASTAGNOLI, b"123456789".iter().copied()), 0xe306_9283);
    }
}
