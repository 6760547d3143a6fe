//! Accesses of any length, made of those that a function takes.

use pagewire_pci::vfio_user::wire;

use super::machine::Machine;
use crate::{Function, Region};

/// The region with a number of VFIO's.
pub(crate) fn region(index: u32) -> Option<Region> {
    match index {
        0..=5 => Some(Region::Bar(index as u8)),
        wire::CONFIG_REGION => Some(Region::Config),
        _ => None,
    }
}

/// Reads any number of bytes.
pub(crate) fn read(
    function: &mut dyn Function,
    machine: &mut Machine,
    region: Region,
    offset: u64,
    into: &mut [u8],
) {
    let mut at = 0;
    for width in widths(offset, into.len()) {
        function.read(region, offset + at as u64, &mut into[at..at + width], machine);
        at += width;
    }
}

/// The accesses that a longer one is made of, as a bus would: aligned, of 8 bytes if that is all there is, else of 4 at most.
pub(crate) fn widths(offset: u64, len: usize) -> impl Iterator<Item = usize> {
    let widest = if len == 8 { 8 } else { 4 };
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = len - done;
        let at = offset + done as u64;
        let fits = |width: &usize| *width <= widest && *width <= left && at.is_multiple_of(*width as u64);
        let width = [8, 4, 2, 1].into_iter().find(fits)?;
        done += width;
        Some(width)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_split_as_a_bus_would() {
        let list = |offset, len| widths(offset, len).collect::<Vec<_>>();
        assert_eq!(list(0x10, 0), [0usize; 0]);
        assert_eq!(list(0x10, 4), [4]);
        assert_eq!(list(0x10, 8), [8]);
        assert_eq!(list(0x14, 8), [4, 4]);
        assert_eq!(list(0x11, 8), [1, 2, 4, 1]);
        assert_eq!(list(0x0e, 2), [2]);
        assert_eq!(list(0x10, 16), [4, 4, 4, 4]);
        assert_eq!(list(u64::MAX - 3, 3), [2, 1]);
    }
}
