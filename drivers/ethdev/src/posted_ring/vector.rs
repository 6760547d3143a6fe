//! The receive loop with AVX2: four descriptors at a time.

use std::arch::x86_64::*;
use std::sync::atomic::{Ordering, fence};

use pagewire_pool::{Burst, Packet, Posted};

use super::{PostedRing, Whole};
use crate::vector::{load, store, sum};

impl PostedRing {
    /// [`take_vector`](PostedRing::take_vector).
    #[target_feature(enable = "avx2")]
    pub(super) fn take_fours(&mut self, out: &mut Burst, whole: Whole) -> (usize, u64) {
        let (headroom, left) = (self.headroom, self.left() as usize);
        let mut view = self.ring.view();
        let (descriptors, slots) = (view.words(self.next), view.slot_ptr(self.next));
        let after_headroom = _mm256_set_epi64x(0, headroom.into(), 0, headroom.into());
        // By second words of descriptors: the bits that are looked at, with the length; those that are to be set; and what may be left, by
        // 16 bits.
        let looked_at = _mm256_set1_epi64x((0xffff << 32 | u64::from(whole.mask)) as i64);
        let bits = _mm256_set1_epi64x(whole.bits.into());
        let longest = _mm256_slli_epi64::<32>(_mm256_set1_epi64x(self.longest as i64));
        let mut bytes = _mm256_setzero_si256();
        let take = |fragments: *const Posted, packets: *mut Packet, count: usize| {
            let (mut number, count) = (0, count & !3);
            while number != count {
                // SAFETY: there are `count` fragments, so much room for packets, and so many descriptors and slots to the end of the ring,
                // which are borrowed by the view. What is read of a descriptor is read once.
                let four =
                    unsafe { [load(descriptors.add(number * 2)), load(descriptors.add(number * 2 + 4))] };
                // The second words of the first, third, second and fourth.
                let status = _mm256_unpackhi_epi64(four[0], four[1]);
                let lens = _mm256_xor_si256(_mm256_and_si256(status, looked_at), bits);
                let beyond = _mm256_subs_epu16(lens, longest);
                if _mm256_testz_si256(beyond, beyond) == 0 {
                    break;
                }
                // What the device wrote before is visible from here on.
                fence(Ordering::Acquire);
                let lens = _mm256_srli_epi64::<32>(lens);
                bytes = _mm256_add_epi64(bytes, lens);
                // SAFETY: as above. Every fragment that was in the ring is at least `smallest` bytes long, which is no less than
                // `headroom + longest`. Fragments and packets are pointers to a record, each of which has one owner again at the end: those
                // of the slots move to `packets`, and those of `fragments`, which the pool forgets, to the slots.
                unsafe {
                    let (fragments, slots) = (fragments.add(number), slots.add(number));
                    let fresh = _mm256_loadu_si256(fragments.cast());
                    let done = _mm256_loadu_si256(slots.cast());
                    for pair in [0, 2] {
                        let iova = |i| _mm_cvtsi64_si128((*fragments.add(pair + i)).iova() as i64);
                        let words = _mm256_add_epi64(_mm256_set_m128i(iova(1), iova(0)), after_headroom);
                        store(descriptors.add((number + pair) * 2), words);
                    }
                    Posted::complete_four(&*slots.cast(), headroom, lens);
                    _mm256_storeu_si256(slots.cast(), fresh);
                    _mm256_storeu_si256(packets.add(number).cast(), done);
                }
                number += 4;
            }
            number
        };
        // SAFETY: each round moves four fragments out and writes four packets.
        let packets = unsafe { out.exchange(&mut self.pool, left, take) };
        self.next = self.next.wrapping_add(packets as u32);
        (packets, sum(bytes))
    }
}
