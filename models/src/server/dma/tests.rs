use std::collections::BTreeMap;

use super::*;

fn map(table: &mut Table, address: u64, size: u64, flags: u32) -> Result<(), i32> {
    table.map(&DmaMap { argsz: 32, flags, offset: 0, address, size }, None)
}

#[test]
fn an_access_may_cross_ranges_that_touch() {
    let mut table = Table::default();
    let both = DMA_READABLE | DMA_WRITABLE;
    map(&mut table, 0x1000, 0x1000, both).unwrap();
    map(&mut table, 0x2000, 0x1000, DMA_READABLE).unwrap();
    map(&mut table, 0x4000, 0x1000, both).unwrap();
    map(&mut table, !0xfff, 0x1000, both).unwrap();
    for (iova, len, reads, writes) in [
        (0x1000, 0x1000, true, true),
        (0x1ff8, 16, true, false),
        (0x1000, 0x2000, true, false),
        (0x1000, 0x2001, false, false),
        (0xfff, 1, false, false),
        (0xfff, 2, false, false),
        (0x2ff8, 9, false, false),
        (0x2fff, 0x1002, false, false),
        (0x4fff, 1, true, true),
        (0x4fff, 2, false, false),
        (0x4000, 0, true, true),
        (0x3000, 0, false, false),
        (u64::MAX, 1, true, true),
        (u64::MAX, 2, false, false),
        (!0xfff, 0x1000, true, true),
        (0x1000, usize::MAX, false, false),
    ] {
        assert_eq!(table.covers(iova, len, false), reads, "read {len} bytes at {iova:#x}");
        assert_eq!(table.covers(iova, len, true), writes, "write {len} bytes at {iova:#x}");
    }
    let piece = table.piece(0x1ff8, 16).unwrap();
    assert_eq!((piece.offset, piece.len), (0xff8, 8));
    assert!(table.piece(0x3000, 1).is_none());
}

#[test]
fn a_range_without_a_file_has_places_in_none_all_the_same() {
    let mut table = Table::default();
    let map = |offset, size| DmaMap { argsz: 32, flags: DMA_READABLE, offset, address: 0x1000, size };
    assert_eq!(table.map(&map(!0xfff, 0x2000), None), Err(libc::EINVAL));
    table.map(&map(!0xfff - 0x1000, 0x1fff), None).unwrap();
    assert_eq!(table.piece(0x2ffe, 1).unwrap().offset, u64::MAX - 1);
}

#[test]
fn there_are_only_so_many_ranges() {
    let mut table = Table::default();
    for page in 0..MOST as u64 {
        map(&mut table, page << 13, 0x1000, DMA_READABLE).unwrap();
    }
    assert_eq!(map(&mut table, (MOST as u64) << 13, 0x1000, DMA_READABLE), Err(libc::ENOSPC));
    table.unmap(0, 0x1000).unwrap();
    map(&mut table, (MOST as u64) << 13, 0x1000, DMA_READABLE).unwrap();
}

/// A page at a time, and nothing clever.
#[derive(Default)]
struct Pages(BTreeMap<u64, u64>);

impl Pages {
    fn map(&mut self, first: u64, count: u64) -> Result<(), i32> {
        if count == 0 {
            return Err(libc::EINVAL);
        }
        if (first..first + count).any(|page| self.0.contains_key(&page)) {
            return Err(libc::EEXIST);
        }
        self.0.extend((first..first + count).map(|page| (page, first)));
        Ok(())
    }

    fn unmap(&mut self, first: u64, count: u64) -> Result<(), i32> {
        let inside = |page: &u64| (first..first + count).contains(page);
        let cut = self.0.iter().any(|(page, start)| {
            inside(page) && self.0.iter().any(|(other, whose)| whose == start && !inside(other))
        });
        if cut || count == 0 {
            return Err(libc::EINVAL);
        }
        self.0.retain(|page, _| !inside(page));
        Ok(())
    }
}

#[test]
fn ranges_come_and_go_as_pages_do() {
    // A fixed xorshift: the same sequence each run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (mut table, mut pages) = (Table::default(), Pages::default());
    let mut results = [0; 3];
    for round in 0..30_000 {
        let (first, count) = (next(40), next(6));
        let (address, size) = (first << 12, count << 12);
        let (got, expected) = match next(3) {
            0 => (map(&mut table, address, size, DMA_READABLE), pages.map(first, count)),
            _ => (table.unmap(address, size), pages.unmap(first, count)),
        };
        assert_eq!(got, expected, "round {round}: {address:#x} {size:#x}");
        results[match got {
            Ok(()) => 0,
            Err(libc::EEXIST) => 1,
            Err(_) => 2,
        }] += 1;
        let (at, len) = (next(46 << 12), 1 + next(3 << 12));
        let covered = (at >> 12..=(at + len - 1) >> 12).all(|page| pages.0.contains_key(&page));
        assert_eq!(table.covers(at, len as usize, false), covered, "round {round}: {len} bytes at {at:#x}");
    }
    assert!(results.iter().all(|&count| count > 500), "{results:?}");
}
