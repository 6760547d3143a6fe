//! Which NUMA node a page, and which the calling thread is on.

// move_pages and getcpu have no safe wrapper in the standard library.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

/// The node of the processor that the calling thread is on now. `None` if the kernel does not tell.
pub fn current_node() -> Option<u32> {
    let mut node: libc::c_uint = 0;
    // SAFETY: the kernel writes one number, which outlives the call; the others are not asked for.
    let asked = unsafe {
        libc::syscall(libc::SYS_getcpu, ptr::null_mut::<libc::c_uint>(), &mut node, ptr::null_mut::<u8>())
    };
    (asked == 0).then_some(node)
}

/// The node of the page at `address`, which is mapped and present.
pub(crate) fn node_of(address: NonNull<u8>) -> Option<u32> {
    let pages = [address.as_ptr()];
    let mut status: libc::c_int = -1;
    // SAFETY: one address and one status, which outlive the call; without target nodes no page is moved.
    let asked = unsafe {
        libc::syscall(libc::SYS_move_pages, 0, 1, pages.as_ptr(), ptr::null::<libc::c_int>(), &mut status, 0)
    };
    // A negative status is an error number: the page is absent, or the device's.
    (asked == 0).then_some(status).and_then(|node| u32::try_from(node).ok())
}

#[cfg(test)]
mod tests {
    use crate::{PageSize, Segment, SegmentOptions, Sysfs, current_node};

    #[test]
    fn threads_and_segments_are_on_nodes_of_the_machine() {
        let nodes = Sysfs::default().nodes().unwrap();
        assert!(nodes.contains(&current_node().expect("getcpu tells")), "{nodes:?}");
        let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "somewhere".into() };
        let segment = Segment::allocate(1, &options).unwrap();
        assert_eq!(segment.node(), None);
        assert!(nodes.contains(&segment.home_node().expect("move_pages tells")), "{nodes:?}");
    }
}
