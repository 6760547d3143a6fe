//! Magazines: where a thread keeps the fragments it dropped until their pool or the return ring takes them.

// Thread-local state reached from `Drop` impls, holding raw record pointers.
#![allow(unsafe_code)]

#[cfg(not(loom))]
use std::cell::Cell;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use crate::check;
use crate::packet::{Packet, Plain};
use crate::record::{LARGE, POOL, Record, magazine_of};
use crate::shared::{Doomed, Shared};
use crate::sync::thread_local;

/// Fragments a magazine holds at most. With its three counters it makes 1,024 bytes.
pub(crate) const CAPACITY: usize = 126;
/// Fragments a magazine holds on a thread that does not allocate from the pool: the batch of one reservation.
const REMOTE_LIMIT: u32 = 16;
/// Magazines of a thread. Pools whose numbers differ by a multiple of this share one, and flush each other's fragments.
const MAGAZINES: usize = 16;

#[repr(C)]
struct Magazine {
    /// `Record::kind` of the pool it serves.
    kind: u32,
    limit: u16,
    len: u16,
    _pad: u64,
    records: [MaybeUninit<NonNull<Record>>; CAPACITY],
}

const _: () = assert!(size_of::<Magazine>() == 1024);

/// `Record::kind` of no pool at all: pools count from 1.
const NO_POOL: u32 = 0;

struct Magazines(UnsafeCell<[Magazine; MAGAZINES]>);

thread_local! {
    // Const and without a destructor, so that reaching it is one instruction; ThreadExit has the destructor.
    static MAGAZINES_HERE: Magazines = const {
        Magazines(UnsafeCell::new(
            [const { Magazine { kind: NO_POOL, limit: 0, len: 0, _pad: 0, records: [MaybeUninit::uninit(); CAPACITY] } };
                MAGAZINES],
        ))
    };
}

#[cfg(not(loom))]
thread_local! {
    static THREAD_EXIT: ThreadExit = const { ThreadExit };
    static THREAD_HAS_EXITED: Cell<bool> = const { Cell::new(false) };
}

/// Flushes the thread's magazines when it ends. Model-checked threads call [`flush_thread`]: what their thread-locals hold is
/// out of reach by the time they are dropped.
#[cfg(not(loom))]
struct ThreadExit;

#[cfg(not(loom))]
impl Drop for ThreadExit {
    fn drop(&mut self) {
        // What later destructors of this thread drop goes straight to the return ring.
        THREAD_HAS_EXITED.set(true);
        for index in 0..MAGAZINES {
            drop(with_all(|magazines| {
                magazines[index].limit = 0;
                magazines[index].flush()
            }));
        }
    }
}

/// Whether what this thread keeps is flushed when it ends; registers that the first time.
fn flushed_at_exit() -> bool {
    #[cfg(loom)]
    return true;
    #[cfg(not(loom))]
    return !THREAD_HAS_EXITED.get() && THREAD_EXIT.try_with(|_| ()).is_ok();
}

/// Use the thread's magazines. A pool that ends meanwhile is handed out as [`Doomed`] and taken down when they are free
/// again: that runs code of other crates, an application's logger for one, which may drop packets itself.
fn with_all<R>(f: impl FnOnce(&mut [Magazine; MAGAZINES]) -> R) -> R {
    // SAFETY: the reference lives for this call only, on this thread only, and no caller's `f` drops a packet or
    // otherwise comes back here while it has it.
    MAGAZINES_HERE.with(|magazines| f(unsafe { &mut *magazines.0.get() }))
}

impl Magazine {
    /// # Safety
    ///
    /// `len` is below `limit`.
    #[inline(always)]
    unsafe fn push(&mut self, record: NonNull<Record>) {
        debug_assert!(self.len < self.limit);
        // SAFETY: `limit` is CAPACITY at most.
        unsafe { self.records.get_unchecked_mut(usize::from(self.len)).write(record) };
        self.len += 1;
    }

    /// Take fragments of pool `kind`, as many as there is room for. Returns how many.
    ///
    /// # Safety
    ///
    /// `records` points to `count` free-standing fragments of that pool, none of them large, of which the caller forgets those.
    #[inline(always)]
    unsafe fn take_in(&mut self, kind: u32, records: *const NonNull<Record>, count: usize) -> usize {
        if self.kind != kind {
            return 0;
        }
        let start = usize::from(self.len);
        let count = count.min(usize::from(self.limit).saturating_sub(start));
        if check::is_on() {
            // SAFETY: there are `count`.
            (0..count).for_each(|number| check::dropped(unsafe { *records.add(number) }));
        }
        debug_assert!(start + count <= CAPACITY);
        // SAFETY: the fragments are the caller's, who gives them away; `limit`, which is CAPACITY at most, leaves room for that many behind
        // the first `start`.
        unsafe { ptr::copy_nonoverlapping(records, self.records.as_mut_ptr().add(start).cast(), count) };
        self.len += count as u16;
        count
    }

    /// Send everything to the pool's return ring.
    #[must_use]
    fn flush(&mut self) -> Option<Doomed> {
        self.flush_oldest(self.len.into())
    }

    /// Send the `count` that have been here longest, whose lines are coldest, to the pool's return ring.
    #[must_use]
    fn flush_oldest(&mut self, count: usize) -> Option<Doomed> {
        let len = usize::from(self.len);
        let count = count.min(len);
        if count == 0 {
            return None;
        }
        // SAFETY: the first `len` entries have been written by `push`.
        let records = unsafe { &*(ptr::from_ref(&self.records[..count]) as *const [NonNull<Record>]) };
        let doomed = Shared::give_back(self.kind, records);
        self.records.copy_within(count..len, 0);
        self.len = (len - count) as u16;
        doomed
    }

    /// Make room for a fragment of pool `kind`, which the magazine does not serve or has no room for.
    #[must_use]
    fn make_room(&mut self, kind: u32) -> Option<Doomed> {
        let mut doomed = None;
        if self.kind != kind {
            doomed = self.flush();
            self.kind = kind;
            self.limit = REMOTE_LIMIT as u16;
            // Only now does the thread need its exit hook; a thread past it keeps no fragment at all.
            if !flushed_at_exit() {
                self.limit = 0;
            }
        } else if self.len >= self.limit && usize::from(self.limit) == CAPACITY {
            // The pool has taken from here since the last flush, and will again: it needs fewer than there are, not none.
            doomed = self.flush_oldest(CAPACITY / 2);
            self.limit = CAPACITY as u16 - 1;
        } else if self.len >= self.limit {
            doomed = self.flush();
            // A thread that allocated from the pool long ago, or never, is judged anew at each flush: the pool raises
            // the limit when it next takes the magazine.
            self.limit = self.limit.min(REMOTE_LIMIT as u16);
        }
        doomed
    }
}

/// Return one free-standing fragment: its record is unchained and nobody else refers to it.
#[inline]
pub(crate) fn release(record: NonNull<Record>) {
    // SAFETY: the caller owns the fragment, so its record is alive and nobody writes it.
    let kind = unsafe { (*record.as_ptr()).kind };
    let fast = with_all(|magazines| {
        let magazine = &mut magazines[magazine_of(kind)];
        let fast = magazine.kind == kind && magazine.len < magazine.limit;
        if fast {
            check::dropped(record);
            // SAFETY: just compared.
            unsafe { magazine.push(record) };
        }
        fast
    });
    if !fast {
        release_slow(record);
    }
}

#[cold]
#[inline(never)]
fn release_slow(record: NonNull<Record>) {
    let mut next = Some(record);
    while let Some(record) = next {
        check::dropped(record);
        // SAFETY: the caller owns the packet, hence every segment's record; each is read before it is given away.
        let kind = unsafe {
            let record = &mut *record.as_ptr();
            next = record.next.take();
            record.kind &= POOL;
            record.kind
        };
        if kind & LARGE != 0 {
            // A magazine has fragments of one size.
            drop(Shared::give_back(kind, &[record]));
            continue;
        }
        drop(with_all(|magazines| {
            let magazine = &mut magazines[magazine_of(kind)];
            let doomed = magazine.make_room(kind);
            if magazine.len < magazine.limit {
                // SAFETY: just compared.
                unsafe { magazine.push(record) };
                (doomed, None)
            } else {
                (doomed, Shared::give_back(kind, &[record]))
            }
        }));
    }
}

/// Drop the packets of `slots`, leaving `None`: what a transmit ring does with those its card has sent.
///
/// One comparison and one store a packet where all are single fragments of one pool.
#[inline(never)]
pub fn release_bulk(slots: &mut [Option<Packet>]) {
    let mut done = 0;
    while done < slots.len() {
        done += with_all(|magazines| release_run(magazines, &mut slots[done..]));
        // What stopped the run: an empty slot, a packet that needs care, or a magazine without room.
        if let Some(slot) = slots.get_mut(done) {
            if let Some(packet) = slot.take() {
                release_slow(packet.into_record());
            }
            done += 1;
        }
    }
}

/// Drop packets that are all [`Plain`] alike: what a transmit ring does with those it sent in one run.
///
/// The packets' records are not looked at: they went cold while the card was at work.
///
/// # Safety
///
/// `packets` points to `count` packets, every one of them [included](Plain::includes) in `alike`. They are the caller's, who forgets them
/// afterwards.
#[inline]
pub unsafe fn release_alike(alike: Plain, packets: *const Packet, count: usize) {
    // SAFETY: a packet is a transparent pointer to its record, and those included are single fragments of one pool.
    unsafe { release_of(alike.pool(), packets.cast(), count) }
}

/// Return fragments of pool `kind`: they are copied into its magazine as far as there is room, without a look at their records.
///
/// # Safety
///
/// `records` points to `count` free-standing fragments of that pool, none of them large, which are the caller's, who forgets them afterwards.
#[inline(never)]
pub(crate) unsafe fn release_of(kind: u32, records: *const NonNull<Record>, count: usize) {
    // SAFETY: the caller's word.
    let taken = with_all(|magazines| unsafe { magazines[magazine_of(kind)].take_in(kind, records, count) });
    if taken < count {
        // SAFETY: what `taken` covers has been moved.
        unsafe { release_rest(kind, records.add(taken), count - taken) };
    }
}

/// What is left where a magazine had no room for all of [`release_of`], or was another pool's.
///
/// # Safety
///
/// As there.
#[cold]
#[inline(never)]
unsafe fn release_rest(kind: u32, records: *const NonNull<Record>, count: usize) {
    // SAFETY: there is one, which is the caller's; the others are moved by the next call.
    unsafe {
        release_slow(*records);
        release_of(kind, records.add(1), count - 1);
    }
}

/// Release packets from the start of `slots` as long as they are fragments of one pool that its magazine has room for.
#[inline(always)]
fn release_run(magazines: &mut [Magazine; MAGAZINES], slots: &mut [Option<Packet>]) -> usize {
    let Some(first) = slots.first().and_then(Option::as_ref) else { return 0 };
    let kind = first.kind();
    let magazine = &mut magazines[magazine_of(kind)];
    if magazine.kind != kind {
        return 0;
    }
    let room = usize::from(magazine.limit.saturating_sub(magazine.len)).min(slots.len());
    let start = usize::from(magazine.len).min(CAPACITY);
    let mut taken = 0;
    for (home, slot) in magazine.records[start..].iter_mut().zip(&slots[..room]) {
        match slot {
            Some(packet) if packet.kind() == kind => {
                check::dropped(packet.record());
                home.write(packet.record())
            }
            _ => break,
        };
        taken += 1;
    }
    magazine.len += taken as u16;
    // SAFETY: the packets of these slots now belong to the magazine; overwriting them without dropping is the move.
    slots[..taken].iter_mut().for_each(|slot| unsafe { ptr::write(slot, None) });
    taken
}

/// A pool takes what this thread's magazine holds for it, up to `cache`'s room; from now on the thread keeps more of its fragments.
/// Returns how many it got.
#[inline]
pub(crate) fn take(kind: u32, cache: &mut [MaybeUninit<NonNull<Record>>]) -> usize {
    with_all(|magazines| {
        let magazine = &mut magazines[magazine_of(kind)];
        if magazine.kind != kind {
            return 0;
        }
        if magazine.limit > 0 {
            magazine.limit = CAPACITY as u16;
        }
        let count = usize::from(magazine.len).min(cache.len());
        let keep = usize::from(magazine.len) - count;
        // The youngest, whose lines are warmest.
        cache[..count].copy_from_slice(&magazine.records[keep..keep + count]);
        magazine.len = keep as u16;
        count
    })
}

/// Send every fragment this thread still keeps back to its pool.
///
/// A run loop calls this when it is idle, so that no other core waits for fragments that lie here; a thread that ends
/// does it by itself.
pub fn flush_thread() {
    for index in 0..MAGAZINES {
        drop(with_all(|magazines| magazines[index].flush()));
    }
}
