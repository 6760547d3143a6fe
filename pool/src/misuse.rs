//! What the compiler refuses. Each example is followed by its twin that compiles, so that it fails for no other reason.
//!
//! **A pool on two cores at a time.** What allocates needs `&mut`, and so does whatever recycles straight into the cache:
//!
//! ```compile_fail,E0499
//! # use pagewire_pool::Pool;
//! fn on_two_cores(pool: &mut Pool) {
//!     std::thread::scope(|scope| {
//!         scope.spawn(|| pool.alloc());
//!         scope.spawn(|| pool.alloc());
//!     });
//! }
//! ```
//! ```
//! # use pagewire_pool::Pool;
//! fn on_one_core_after_the_other(pool: &mut Pool) {
//!     std::thread::scope(|scope| drop(scope.spawn(|| drop(pool.alloc()))));
//!     std::thread::scope(|scope| drop(scope.spawn(|| drop(pool.alloc()))));
//! }
//! ```
//!
//! **A pool shared by reference:**
//!
//! ```compile_fail,E0277
//! fn shared<T: Sync>() {}
//! shared::<pagewire_pool::Pool>();
//! ```
//! ```
//! fn shared<T: Sync>() {}
//! fn sent<T: Send>() {}
//! shared::<pagewire_pool::PoolMonitor>();
//! sent::<pagewire_pool::Pool>();
//! ```
//!
//! **Records, magazines and the ring**: they are this crate's own.
//!
//! ```compile_fail,E0603
//! use pagewire_pool::record::Record;
//! ```
//! ```compile_fail,E0603
//! use pagewire_pool::magazine::release;
//! ```
//! ```compile_fail,E0603
//! use pagewire_pool::return_ring::ReturnRing;
//! ```
//! ```compile_fail,E0624
//! fn of_thin_air(record: std::ptr::NonNull<u8>) -> pagewire_pool::Posted {
//!     pagewire_pool::Posted::from_record(record.cast())
//! }
//! ```
//! ```
//! use pagewire_pool::{flush_thread, release_bulk};
//! ```
//!
//! **A second reference to a packet**, and one that is used after it was dropped:
//!
//! ```compile_fail,E0599
//! # use pagewire_pool::Packet;
//! fn twice(packet: Packet) -> (Packet, Packet) {
//!     (packet.clone(), packet)
//! }
//! ```
//! ```compile_fail,E0382
//! # use pagewire_pool::Packet;
//! fn afterwards(packet: Packet) -> usize {
//!     drop(packet);
//!     packet.len()
//! }
//! ```
//! ```
//! # use pagewire_pool::Packet;
//! # use std::sync::Arc;
//! fn shared(packet: Packet) -> (Arc<Packet>, usize) {
//!     let packet = Arc::new(packet);
//!     (packet.clone(), packet.len())
//! }
//! ```
//!
//! **The bytes of a fragment that a device may write:**
//!
//! ```compile_fail,E0599
//! # use pagewire_pool::Posted;
//! fn too_early(posted: &Posted) -> Option<&[u8]> {
//!     posted.as_slice()
//! }
//! ```
//! ```
//! # use pagewire_pool::{Packet, PacketFlags, Posted};
//! fn when_it_is_done(posted: Posted) -> Result<Packet, Posted> {
//!     posted.complete(0, 60, PacketFlags::empty())
//! }
//! ```
