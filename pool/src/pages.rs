//! The page store: which fragments of which pages are free, and which pages are whole again.

/// What is known of one logical page.
#[derive(Clone, Copy)]
struct Page {
    /// A bit for each fragment that is here.
    free: u32,
    prev: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// A doubly linked list of pages, by index: putting a page together again takes it out of the middle of a list.
struct List {
    head: u32,
    len: usize,
}

/// Free fragments, kept by page so that whole pages can be told from parts.
pub(crate) struct PageStore {
    pages: Box<[Page]>,
    fragments_per_page: u32,
    partial: List,
    whole: List,
    free: usize,
}

impl PageStore {
    /// All fragments of `pages` pages, free. `fragments_per_page` is a power of two up to 32.
    pub(crate) fn new(pages: usize, fragments_per_page: usize) -> PageStore {
        let page = Page { free: 0, prev: NONE, next: NONE };
        let mut store = PageStore {
            pages: vec![page; pages].into_boxed_slice(),
            fragments_per_page: fragments_per_page as u32,
            partial: List { head: NONE, len: 0 },
            whole: List { head: NONE, len: 0 },
            free: pages * fragments_per_page,
        };
        // The last page first, so that pages are given out in ascending order.
        for page in (0..pages as u32).rev() {
            store.pages[page as usize].free = store.full();
            push(&mut store.pages, &mut store.whole, page);
        }
        store
    }

    fn full(&self) -> u32 {
        u32::MAX >> (32 - self.fragments_per_page)
    }

    /// Free fragments.
    pub(crate) fn free(&self) -> usize {
        self.free
    }

    /// Pages all of whose fragments are here.
    pub(crate) fn whole_pages(&self) -> usize {
        self.whole.len
    }

    /// Take one fragment, from a page already broken if there is one.
    pub(crate) fn take(&mut self) -> Option<usize> {
        let page = match (self.partial.head, self.whole.head) {
            (NONE, NONE) => return None,
            (NONE, page) => {
                unlink(&mut self.pages, &mut self.whole, page);
                push(&mut self.pages, &mut self.partial, page);
                page
            }
            (page, _) => page,
        };
        let bits = &mut self.pages[page as usize].free;
        let slot = bits.trailing_zeros();
        *bits &= *bits - 1;
        if *bits == 0 {
            unlink(&mut self.pages, &mut self.partial, page);
        }
        self.free -= 1;
        Some((page * self.fragments_per_page + slot) as usize)
    }

    /// Put a fragment back. Freeing one that is already here is a bug of the pool: it stops the process.
    pub(crate) fn put(&mut self, fragment: usize) {
        let page = fragment as u32 / self.fragments_per_page;
        let bit = 1 << (fragment as u32 % self.fragments_per_page);
        let full = self.full();
        let before = self.pages[page as usize].free;
        assert!(before & bit == 0, "fragment {fragment} returned to its page twice");
        let after = before | bit;
        self.pages[page as usize].free = after;
        self.free += 1;
        if before != 0 {
            if after == full {
                unlink(&mut self.pages, &mut self.partial, page);
                push(&mut self.pages, &mut self.whole, page);
            }
        } else if after == full {
            push(&mut self.pages, &mut self.whole, page);
        } else {
            push(&mut self.pages, &mut self.partial, page);
        }
    }
}

fn push(pages: &mut [Page], list: &mut List, page: u32) {
    pages[page as usize].prev = NONE;
    pages[page as usize].next = list.head;
    if list.head != NONE {
        pages[list.head as usize].prev = page;
    }
    list.head = page;
    list.len += 1;
}

fn unlink(pages: &mut [Page], list: &mut List, page: u32) {
    let Page { prev, next, .. } = pages[page as usize];
    match prev {
        NONE => list.head = next,
        prev => pages[prev as usize].next = next,
    }
    if next != NONE {
        pages[next as usize].prev = prev;
    }
    list.len -= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_pages_are_used_up_before_whole_ones() {
        let mut store = PageStore::new(10, 4);
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
        let mut store = PageStore::new(2, 2);
        while store.take().is_some() {}
        store.put(3);
        store.put(3);
    }
}
