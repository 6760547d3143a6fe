//! The transmit loop with AVX2: four packets at a time.

use std::arch::x86_64::*;

use pagewire_pool::Burst;

use super::TransmitRing;
use crate::vector::sum;

impl TransmitRing {
    /// [`send_vector`](TransmitRing::send_vector).
    #[target_feature(enable = "avx2")]
    pub(super) fn send_fours(&mut self, packets: &mut Burst, word: u64, shift: u32) -> (usize, u64) {
        let (alike, left) = (self.alike, self.left() as usize);
        let mut view = self.ring.view();
        let (words, slots) = (view.words(self.tail), view.slot_ptr(self.tail));
        let (word, shift) = (_mm256_set1_epi64x(word as i64), _mm_cvtsi32_si128(shift as i32));
        let mut bytes = _mm256_setzero_si256();
        // SAFETY: `left` slots from there on are within the ring, and borrowed by the view. So are as many descriptors, which the device may
        // read meanwhile, hence volatile.
        let sent = unsafe {
            packets.hand_over_fours(slots.cast(), left, |number, four| {
                let Some(lens) = alike.lens_of_four(four) else { return false };
                bytes = _mm256_add_epi64(bytes, lens);
                let second = _mm256_or_si256(_mm256_or_si256(_mm256_sll_epi64(lens, shift), lens), word);
                let second = [
                    _mm256_extract_epi64::<0>(second),
                    _mm256_extract_epi64::<1>(second),
                    _mm256_extract_epi64::<2>(second),
                    _mm256_extract_epi64::<3>(second),
                ];
                for (i, packet) in four.iter().enumerate() {
                    let descriptor = words.add((number + i) * 2);
                    descriptor.write_volatile(packet.iova());
                    descriptor.add(1).write_volatile(second[i] as u64);
                }
                true
            })
        };
        self.tail = self.tail.wrapping_add(sent as u32);
        (sent, sum(bytes))
    }
}
