//! The MSI-X table and its pending bits: storage, whose masks are the server's.

/// The BAR's bytes.
pub(super) const SIZE: u32 = 16 << 10;
/// Where the pending bits are in it.
pub(super) const PENDING: u32 = 0x2000;

/// The contents of the BAR.
#[derive(Debug)]
pub(super) struct Msix {
    bytes: Box<[u8]>,
    vectors: u16,
}

impl Msix {
    /// A table of so many vectors, all masked.
    pub(super) fn new(vectors: u16) -> Self {
        let mut table = Self { bytes: vec![0; SIZE as usize].into(), vectors };
        table.reset();
        table
    }

    /// All masked, as after a reset.
    pub(super) fn reset(&mut self) {
        self.bytes.fill(0);
        for entry in self.bytes[..16 * self.vectors as usize].chunks_exact_mut(16) {
            entry[12] = 1;
        }
    }

    /// Read; all ones past the end.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.bytes.get(at..at.saturating_add(data.len())) {
            Some(bytes) => data.copy_from_slice(bytes),
            None => data.fill(0xff),
        }
    }

    /// Write.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        if let Some(bytes) = self.bytes.get_mut(at..at.saturating_add(data.len())) {
            bytes.copy_from_slice(data);
        }
    }
}
