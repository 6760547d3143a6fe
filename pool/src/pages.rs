//! The page store: which fragments of which pages are free, which pages are whole again, and which segments.

use std::iter::repeat_n;

use crate::config::Geometry;

/// Which fragments of a page are meant: a bit each.
type Mask = u128;

const _: () = assert!(Geometry::MOST_IN_A_PAGE <= Mask::BITS as usize);

/// What is known of one logical page.
#[derive(Clone, Copy)]
struct Page {
    /// A bit for each fragment that is here.
    free: Mask,
    prev: u32,
    next: u32,
    /// The place of its segment.
    place: u32,
    /// Not to be given out again.
    quarantined: bool,
}

/// What is known of the place of one segment.
#[derive(Clone, Copy, Default)]
struct Place {
    /// There is a segment.
    present: bool,
    /// It is on another NUMA node than the pool wants its memory on.
    foreign: bool,
    /// Fragments that are here, in quarantine or not.
    home: usize,
}

const NONE: u32 = u32::MAX;

/// A doubly linked list of pages, by index: putting a page together again takes it out of the middle of a list.
#[derive(Clone, Copy)]
struct List {
    head: u32,
    len: usize,
}

/// Free fragments, kept by page so that whole pages can be told from parts.
pub(crate) struct PageStore {
    pages: Box<[Page]>,
    places: Box<[Place]>,
    /// Fragments in a page, as a power of two.
    shift: u32,
    pages_per_segment: u32,
    /// Broken pages, whole pages, and both of segments on foreign nodes: the order in which they are used.
    lists: [List; 4],
    free: usize,
    home: usize,
    /// Pages in quarantine.
    quarantined: usize,
    /// Segments on foreign nodes.
    foreign: usize,
}

impl PageStore {
    /// How many broken pages are searched for several fragments in a row.
    const SEARCHED: usize = 64;

    /// Places for all segments that there may be, and no segment.
    pub(crate) fn new(geometry: &Geometry) -> PageStore {
        let page = |place| Page { free: 0, prev: NONE, next: NONE, place, quarantined: false };
        let places = 0..geometry.segments as u32;
        PageStore {
            pages: places.flat_map(|place| repeat_n(page(place), geometry.pages_per_segment)).collect(),
            places: vec![Place::default(); geometry.segments].into_boxed_slice(),
            shift: geometry.per_page().ilog2(),
            pages_per_segment: geometry.pages_per_segment as u32,
            lists: [List { head: NONE, len: 0 }; 4],
            free: 0,
            home: 0,
            quarantined: 0,
            foreign: 0,
        }
    }

    fn per_page(&self) -> u32 {
        1 << self.shift
    }

    fn page_of(&self, fragment: usize) -> u32 {
        (fragment >> self.shift) as u32
    }

    fn place(&mut self, page: u32) -> &mut Place {
        &mut self.places[self.pages[page as usize].place as usize]
    }

    fn full(&self) -> Mask {
        Mask::MAX >> (Mask::BITS - self.per_page())
    }

    fn per_segment(&self) -> usize {
        (self.pages_per_segment as usize) << self.shift
    }

    fn pages_of(&self, place: usize) -> std::ops::Range<u32> {
        let first = place as u32 * self.pages_per_segment;
        first..first + self.pages_per_segment
    }

    /// Fragments that can be taken.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Fragments that are here, in quarantine or not.
    pub(crate) fn home(&self) -> usize {
        self.home
    }

    /// Fragments of all segments that there are.
    pub(crate) fn fragments(&self) -> usize {
        self.places.iter().filter(|place| place.present).count() * self.per_segment()
    }

    /// Pages all of whose fragments can be taken.
    pub(crate) fn whole_pages(&self) -> usize {
        self.lists[1].len + self.lists[3].len
    }

    /// A place without a segment.
    pub(crate) fn vacant(&self) -> Option<usize> {
        self.places.iter().position(|place| !place.present)
    }

    /// The last of the places whose segment has all its fragments here.
    pub(crate) fn idle(&self) -> Option<usize> {
        self.places.iter().rposition(|place| place.present && place.home == self.per_segment())
    }

    /// There is a segment at this place now, all of it free.
    pub(crate) fn add(&mut self, place: usize, foreign: bool) {
        self.places[place] = Place { present: true, foreign, home: self.per_segment() };
        self.foreign += usize::from(foreign);
        self.free += self.per_segment();
        self.home += self.per_segment();
        // The last page first, so that pages are given out in ascending order.
        for page in self.pages_of(place).rev() {
            self.change(page, |page, full| *page = Page { free: full, quarantined: false, ..*page });
        }
    }

    /// The segment at this place, which is [idle](PageStore::idle), goes.
    pub(crate) fn remove(&mut self, place: usize) {
        assert_eq!(
            self.places[place].home,
            self.per_segment(),
            "a segment goes while fragments of it are out"
        );
        for page in self.pages_of(place) {
            let Page { free, quarantined, .. } = self.pages[page as usize];
            self.free -= if quarantined { 0 } else { free.count_ones() as usize };
            self.quarantined -= usize::from(quarantined);
            self.change(page, |page, _| (page.free, page.quarantined) = (0, false));
        }
        self.home -= self.per_segment();
        self.foreign -= usize::from(self.places[place].foreign);
        self.places[place] = Place::default();
    }

    /// Whether the segment at this place is on a foreign node. Its pages are taken last then.
    pub(crate) fn set_foreign(&mut self, place: usize, foreign: bool) {
        if self.places[place].foreign == foreign || !self.places[place].present {
            return;
        }
        self.foreign = if foreign { self.foreign + 1 } else { self.foreign - 1 };
        for page in self.pages_of(place) {
            let list = self.list(page);
            self.unlink(list, page);
        }
        self.places[place].foreign = foreign;
        for page in self.pages_of(place) {
            let list = self.list(page);
            self.push(list, page);
        }
    }

    /// Whether every fragment that comes back may be used again without a look at its page.
    pub(crate) fn takes_all(&self) -> bool {
        self.quarantined == 0 && self.foreign == 0
    }

    /// Whether the segment of a fragment is on a foreign node.
    pub(crate) fn is_foreign(&self, fragment: usize) -> bool {
        self.places[self.pages[fragment >> self.shift].place as usize].foreign
    }

    /// Take one fragment, from a page already broken if there is one.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let page = self.lists.iter().find(|list| list.head != NONE)?.head;
        let slot = self.pages[page as usize].free.trailing_zeros();
        self.change(page, |page, _| page.free &= page.free - 1);
        (self.free, self.home) = (self.free - 1, self.home - 1);
        self.place(page).home -= 1;
        Some(((page as usize) << self.shift) + slot as usize)
    }

    /// Take `count` fragments in a row, a power of two and no more than a page has, that start at a multiple of `count`:
    /// of a page already broken if there is one among the first few.
    pub(crate) fn take_run(&mut self, count: usize) -> Option<usize> {
        let (page, slot) = self.find_run(count as u32)?;
        self.change(page, |page, full| page.free &= !(full >> (full.count_ones() - count as u32) << slot));
        (self.free, self.home) = (self.free - count, self.home - count);
        self.place(page).home -= count;
        Some(((page as usize) << self.shift) + slot as usize)
    }

    fn find_run(&self, count: u32) -> Option<(u32, u32)> {
        for list in &self.lists {
            let mut page = list.head;
            for _ in 0..PageStore::SEARCHED {
                let Some(&Page { free, next, .. }) = self.pages.get(page as usize) else { break };
                let start = (0..self.per_page()).step_by(count as usize);
                let run = Mask::MAX >> (Mask::BITS - count);
                if let Some(slot) = start.into_iter().find(|slot| free >> slot & run == run) {
                    return Some((page, slot));
                }
                page = next;
            }
        }
        None
    }

    /// Put a fragment back. Freeing one that is already here is a bug of the pool: it stops the process.
    pub(crate) fn put(&mut self, fragment: usize) {
        let page = self.page_of(fragment);
        let bit = 1 << (fragment as u32 % self.per_page());
        let Page { free, quarantined, .. } = self.pages[page as usize];
        assert!(free & bit == 0, "fragment {fragment} returned to its page twice");
        self.change(page, |page, _| page.free |= bit);
        self.free += usize::from(!quarantined);
        self.home += 1;
        self.place(page).home += 1;
    }

    /// The page of a fragment is not to be given out again, by and by as its fragments come here.
    pub(crate) fn quarantine(&mut self, fragment: usize) {
        let page = self.page_of(fragment);
        let Page { free, quarantined, .. } = self.pages[page as usize];
        if !quarantined {
            self.free -= free.count_ones() as usize;
            self.quarantined += 1;
            self.change(page, |page, _| page.quarantined = true);
        }
    }

    /// Whether the page of a fragment is in quarantine.
    pub(crate) fn is_quarantined(&self, fragment: usize) -> bool {
        self.pages[fragment >> self.shift].quarantined
    }

    /// Whether the page of a fragment is in quarantine, with all its fragments.
    pub(crate) fn is_sealed_off(&self, fragment: usize) -> bool {
        let page = &self.pages[fragment >> self.shift];
        page.quarantined && page.free == self.full()
    }

    /// The list that a page belongs in: none if nothing of it is to be had.
    fn list(&self, page: u32) -> Option<usize> {
        let Page { free, quarantined, place, .. } = self.pages[page as usize];
        let foreign = self.places[place as usize].foreign;
        (free != 0 && !quarantined).then(|| usize::from(free == self.full()) + 2 * usize::from(foreign))
    }

    /// Change a page, and put it where it belongs then. The change is told which bits a whole page has.
    fn change(&mut self, page: u32, change: impl FnOnce(&mut Page, Mask)) {
        let (before, full) = (self.list(page), self.full());
        change(&mut self.pages[page as usize], full);
        let after = self.list(page);
        if before != after {
            self.unlink(before, page);
            self.push(after, page);
        }
    }

    fn push(&mut self, list: Option<usize>, page: u32) {
        let Some(list) = list.map(|at| &mut self.lists[at]) else { return };
        self.pages[page as usize].prev = NONE;
        self.pages[page as usize].next = list.head;
        if list.head != NONE {
            self.pages[list.head as usize].prev = page;
        }
        list.head = page;
        list.len += 1;
    }

    fn unlink(&mut self, list: Option<usize>, page: u32) {
        let Some(list) = list.map(|at| &mut self.lists[at]) else { return };
        let Page { prev, next, .. } = self.pages[page as usize];
        match prev {
            NONE => list.head = next,
            prev => self.pages[prev as usize].next = next,
        }
        if next != NONE {
            self.pages[next as usize].prev = prev;
        }
        list.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of segments of `pages` pages of `per_page` fragments, the first of which is there.
    fn store(segments: usize, pages: usize, per_page: usize) -> PageStore {
        let mut store = PageStore::new(&Geometry {
            fragment_size: 512,
            page_size: 512 * per_page,
            pages_per_segment: pages,
            first_segments: 1,
            segments,
        });
        store.add(0, false);
        store
    }

    #[test]
    fn broken_pages_are_used_up_before_whole_ones() {
        let mut store = store(1, 10, 4);
        let taken: Vec<_> = (0..6).map(|_| store.take().unwrap()).collect();
        assert_eq!(store.whole_pages(), 8);
        store.put(taken[1]);
        store.put(taken[5]);
        assert_eq!(store.whole_pages(), 8);
        let again: Vec<_> = (0..4).map(|_| store.take().unwrap()).collect();
        assert_eq!(store.whole_pages(), 8, "the holes were filled first: {again:?}");
        assert_eq!(store.free(), 32);
    }

    #[test]
    #[should_panic(expected = "fragment 3 returned to its page twice")]
    fn a_double_free_stops_the_process() {
        let mut store = store(1, 2, 2);
        while store.take().is_some() {}
        store.put(3);
        store.put(3);
    }

    #[test]
    fn runs_are_aligned_and_come_of_broken_pages_first() {
        let mut store = store(1, 4, 8);
        assert_eq!(store.take(), Some(0));
        assert_eq!(store.take_run(2), Some(2), "the second pair of the page that is broken");
        assert_eq!(store.take_run(4), Some(4));
        assert_eq!(store.take_run(8), Some(8), "a page");
        assert_eq!(store.take(), Some(1));
        assert_eq!(store.take_run(4), Some(16));
        assert_eq!(store.take_run(4), Some(20), "the second half goes to the next request");
        assert_eq!(store.take_run(4), Some(24));
        assert_eq!((store.take_run(8), store.free()), (None, 4));
        (0..28).for_each(|fragment| store.put(fragment));
        assert_eq!((store.whole_pages(), store.home()), (4, 32));
    }

    #[test]
    fn a_page_of_128_fragments_is_one_page() {
        let mut store = store(1, 2, 128);
        let mut taken: Vec<_> = std::iter::from_fn(|| store.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..256).collect::<Vec<_>>());
        taken.iter().rev().for_each(|&fragment| store.put(fragment));
        assert_eq!((store.whole_pages(), store.take_run(128)), (2, Some(0)));
    }

    #[test]
    fn a_segment_goes_when_all_of_it_is_home_and_comes_again() {
        let mut store = store(3, 4, 2);
        assert_eq!((store.vacant(), store.idle()), (Some(1), Some(0)));
        store.add(1, false);
        store.add(2, false);
        assert_eq!((store.vacant(), store.fragments(), store.free()), (None, 24, 24));
        let taken: Vec<_> = (0..24).map(|_| store.take().unwrap()).collect();
        assert_eq!(store.idle(), None);
        taken.iter().filter(|&&fragment| fragment != 9).for_each(|&fragment| store.put(fragment));
        assert_eq!(store.idle(), Some(2));
        store.remove(2);
        assert_eq!((store.idle(), store.vacant(), store.free()), (Some(0), Some(2), 15));
        store.remove(0);
        assert_eq!((store.idle(), store.free()), (None, 7));
        store.put(9);
        assert_eq!((store.idle(), store.fragments()), (Some(1), 8));
        store.add(0, false);
        assert_eq!(std::iter::from_fn(|| store.take()).count(), 16);
    }

    #[test]
    fn foreign_pages_are_taken_last() {
        let mut store = store(2, 2, 2);
        store.add(1, true);
        let first: Vec<_> = (0..5).map(|_| store.take().unwrap()).collect();
        assert!(first[..4].iter().all(|&fragment| fragment < 4) && first[4] >= 4, "{first:?}");
        store.set_foreign(0, true);
        store.set_foreign(1, false);
        store.put(0);
        assert!(store.is_foreign(0) && store.take().unwrap() >= 4, "the other way round now");
    }

    #[test]
    fn a_page_in_quarantine_stays_until_its_segment_goes() {
        let mut store = store(1, 2, 2);
        let (one, _) = (store.take().unwrap(), store.take_run(2).unwrap());
        store.quarantine(one);
        store.quarantine(one);
        assert_eq!((store.take(), store.free(), store.home()), (None, 0, 1));
        assert!(!store.is_sealed_off(one));
        store.put(one);
        assert!(store.is_sealed_off(one));
        assert_eq!((store.take(), store.free(), store.home(), store.idle()), (None, 0, 2, None));
        store.put(2);
        store.put(3);
        assert_eq!((store.free(), store.whole_pages(), store.idle()), (2, 1, Some(0)));
        store.remove(0);
        assert_eq!((store.free(), store.home()), (0, 0));
        store.add(0, false);
        assert_eq!(store.free(), 4, "another segment, another page");
    }
}
