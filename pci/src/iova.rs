//! Which addresses a device may use, and where the window goes among them.

use std::ops::RangeInclusive;

/// Addresses an IOMMU translates for a set of devices, both ends included.
pub(crate) type Usable = Vec<RangeInclusive<u64>>;

/// Where the window goes if it can: above every hole that a PC has (the interrupt window at 0xfee00000, reserved
/// memory of graphics and USB below 4 GiB), low enough for IOMMUs of 39 bits, and unlike any real address in a log.
pub(crate) const PREFERRED: u64 = 64 << 30;

/// The base is a multiple of the largest page, so that a huge page of memory is a huge page of the IOMMU.
const ALIGN: u64 = 1 << 30;

/// Chooses the address of the window's first byte: the preferred one, else the lowest where the whole window fits, else
/// the one with the most room above it, since few programs use the whole window. `None` if there is not even one
/// aligned address.
pub(crate) fn choose_base(usable: &[RangeInclusive<u64>], window: u64) -> Option<u64> {
    let last = |base: u64| base.checked_add(window.max(1) - 1);
    if last(PREFERRED).is_some_and(|last| contains(usable, PREFERRED, last)) {
        return Some(PREFERRED);
    }
    // Address 0 is left out: too many cards take it for "no buffer".
    let starts = usable.iter().filter_map(|range| {
        let base = (*range.start()).max(1).checked_next_multiple_of(ALIGN)?;
        (base <= *range.end()).then(|| (base, range.end() - base))
    });
    let fitting = starts.clone().filter(|&(_, room)| room >= window.max(1) - 1).map(|(base, _)| base).min();
    fitting.or_else(|| starts.max_by_key(|&(_, room)| room).map(|(base, _)| base))
}

/// Whether all of `first..=last` is in one of the ranges.
pub(crate) fn contains(usable: &[RangeInclusive<u64>], first: u64, last: u64) -> bool {
    usable.iter().any(|range| range.contains(&first) && range.contains(&last))
}

/// The ranges as a person reads them.
pub(crate) fn display(usable: &[RangeInclusive<u64>]) -> String {
    let list: Vec<String> =
        usable.iter().map(|range| format!("{:#x}–{:#x}", range.start(), range.end())).collect();
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: u64 = 1 << 30;
    const WINDOW: u64 = 256 * G;

    #[test]
    fn prefers_64_gib_under_qemus_vtd() {
        assert_eq!(choose_base(&[0..=0xfedf_ffff, 0xfef0_0000..=(1 << 48) - 1], WINDOW), Some(PREFERRED));
    }

    #[test]
    fn a_39_bit_host_has_room_for_the_window() {
        let usable = [0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1];
        assert_eq!(choose_base(&usable, WINDOW), Some(PREFERRED));
        // The last byte is the last address: still fits.
        assert_eq!(choose_base(&usable, (1 << 39) - PREFERRED), Some(PREFERRED));
        // One byte more, and the lowest aligned address above the hole is taken.
        assert_eq!(choose_base(&usable, (1 << 39) - PREFERRED + 1), Some(4 * G));
    }

    #[test]
    fn goes_below_or_above_a_hole_at_the_preferred_place() {
        let usable = [0..=80 * G - 1, 100 * G + 1..=u64::MAX >> 1];
        assert_eq!(choose_base(&usable, 8 * G), Some(PREFERRED));
        assert_eq!(choose_base(&usable, 32 * G), Some(G), "lowest range that fits, but never address 0");
        assert_eq!(choose_base(&usable, WINDOW), Some(101 * G), "rounded up to a whole page");
    }

    #[test]
    fn takes_the_roomiest_where_nothing_fits() {
        let usable = [0..=3 * G, 4 * G..=10 * G - 1, 12 * G..=16 * G];
        assert_eq!(choose_base(&usable, WINDOW), Some(4 * G));
        assert_eq!(choose_base(&[], WINDOW), None);
        assert_eq!(choose_base(&[G + 1..=2 * G - 1], WINDOW), None, "no aligned address in it");
    }

    #[test]
    fn survives_the_ends_of_the_number_line() {
        assert_eq!(choose_base(&[u64::MAX - 5..=u64::MAX], 1), None);
        assert_eq!(choose_base(&[0..=u64::MAX], u64::MAX), Some(G), "nothing fits: the most room");
        assert_eq!(choose_base(&[0..=u64::MAX], 0), Some(PREFERRED));
    }

    #[test]
    fn a_range_across_a_hole_is_not_contained() {
        let usable = [0..=0xfedf_ffff, 0xfef0_0000..=u64::MAX];
        assert!(contains(&usable, 0, 0xfedf_ffff));
        assert!(!contains(&usable, 0xfedf_f000, 0xfef0_0fff));
        assert!(!contains(&usable, 0xfee0_0000, 0xfee0_0fff));
    }
}
