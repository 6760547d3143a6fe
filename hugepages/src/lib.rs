//! Pinned memory that a device may reach: huge pages reserved, mapped, NUMA-bound, shared by descriptor.
//!
//! A process reserves one range of addresses, its [window]. A [`Segment`] is a contiguous run of pages inside it,
//! backed by a memfd of its own: present from the start, never swapped, and gone when its last user is, however that
//! user ends. The offset of a segment in the window is what its device addresses are computed from.
//!
//! ```no_run
//! use pagewire_hugepages::{PageSize, Segment, SegmentOptions};
//!
//! # fn main() -> Result<(), pagewire_hugepages::Error> {
//! let options = SegmentOptions { page_size: PageSize::Size2M, node: Some(0), name: "packets".into() };
//! let segment = Segment::allocate(64 << 20, &options)?;
//! println!("{} bytes at {:p}", segment.len(), segment.as_ptr());
//! # Ok(())
//! # }
//! ```
//!
//! Huge pages have to be reserved before they can be allocated; [`Sysfs`] shows, reserves and releases them. An
//! [`Error`] says what was needed, what was found, and the command that mends it.

mod error;
mod foreign;
mod limits;
mod memfd;
mod numa;
mod page_size;
mod ranges;
mod segment;
mod sysfs;
#[cfg(test)]
mod testing;
mod users;
pub mod window;

pub use error::Error;
pub use limits::check_memlock;
pub use numa::current_node;
pub use page_size::{PageSize, ParsePageSizeError};
pub use segment::{Segment, SegmentOptions};
pub use sysfs::{Counts, Sysfs};
pub use users::User;
pub use window::window_len;
