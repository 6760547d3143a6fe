//! Where a frame's payload begins.

/// The first byte behind the headers that there are, of Ethernet, 802.1Q, IP, UDP and TCP. None if they are cut off.
pub(super) fn payload_at(frame: &[u8]) -> Option<usize> {
    let word = |at: usize| frame.get(at..at + 2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    let mut at = 14;
    // Two tags at most: more are payload.
    while matches!(word(at - 2)?, 0x8100 | 0x88a8 | 0x9100) && at < 22 {
        at += 4;
    }
    let (l4, protocol) = match word(at - 2)? {
        0x0800 => (at + usize::from(frame.get(at)? & 0xf) * 4, *frame.get(at + 9)?),
        0x86dd => (at + 40, *frame.get(at + 6)?),
        _ => return Some(at),
    };
    match protocol {
        17 => Some(l4 + 8),
        6 => Some(l4 + usize::from(frame.get(l4 + 12)? >> 4) * 4),
        _ => Some(l4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_is_no_trouble() {
        assert_eq!(payload_at(&[0; 60]), Some(14));
        for length in 0..64 {
            for fill in 0..=255 {
                let mut frame = vec![fill; length];
                for (at, kind) in [(12, 0x0800u16), (12, 0x86dd), (12, 0x8100), (16, 0x0800)] {
                    if let Some(place) = frame.get_mut(at..at + 2) {
                        place.copy_from_slice(&kind.to_be_bytes());
                    }
                    payload_at(&frame);
                }
            }
        }
    }
}
