//! Registers as a table.

use pagewire_pci::{Bar, Doorbell, Error};

/// A register, or an array of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Its name in the datasheet.
    pub name: &'static str,
    /// Bytes from the start of the BAR.
    pub offset: usize,
    /// Bytes from one of the array to the next.
    pub stride: usize,
    /// How many there are.
    pub count: usize,
}

impl Register {
    /// Offset of one of the array. An index beyond the array is a bug of the driver; it reaches the last one.
    #[inline]
    pub fn at(&self, index: usize) -> usize {
        debug_assert!(index < self.count, "{}[{index}] of {}", self.name, self.count);
        self.offset + self.stride * index.min(self.count - 1)
    }
}

/// Makes a constant of type [`Register`](crate::nic::Register) of each line: name, offset, stride and count of an array, access
/// mode (RW read and write, RO read only, WO write only, RC cleared by reading, W1C cleared by writing ones), section of the
/// datasheet, what it is.
///
/// ```
/// pagewire_ethdev::registers! {
///     CTRL 0x00000           RW "10.2.2.1"  "Device control";
///     MTA  0x05200 [4 x 128] RW "10.2.5.21" "Multicast table";
/// }
/// assert_eq!((CTRL.offset, MTA.at(2), MTA.name), (0, 0x5208, "MTA"));
/// ```
#[macro_export]
macro_rules! registers {
    ($($name:ident $offset:literal $([$stride:literal x $count:literal])? $access:ident $section:literal $what:literal;)*) => {
        $(
            #[doc = concat!($what, " (", stringify!($access), ", section ", $section, ")." $(, " Array: stride ", $stride, ", count ", $count, ".")?)]
            pub(crate) const $name: $crate::nic::Register = $crate::nic::Register {
                name: stringify!($name),
                offset: $offset,
                stride: 0 $(+ $stride)?,
                count: 1 $(* $count)?,
            };
        )*
    };
}

/// A BAR, by register. Accesses are those of [`Bar`]: what does not exist or does not answer reads as all ones.
#[derive(Clone)]
pub struct Registers(Bar);

impl Registers {
    pub(super) fn new(bar: Bar) -> Registers {
        Registers(bar)
    }

    /// Read a register.
    pub fn read(&self, register: Register) -> u32 {
        self.0.read32(register.offset)
    }

    /// Write a register.
    pub fn write(&self, register: Register, value: u32) {
        self.0.write32(register.offset, value);
    }

    /// Change some bits of a register.
    pub fn modify(&self, register: Register, clear: u32, set: u32) {
        self.modify_at(register, 0, clear, set);
    }

    /// Read one of an array.
    pub fn read_at(&self, register: Register, index: usize) -> u32 {
        self.0.read32(register.at(index))
    }

    /// Read one of an array that reading clears.
    pub fn take_at(&self, register: Register, index: usize) -> u32 {
        self.0.read32_with_effect(register.at(index))
    }

    /// Write one of an array.
    pub fn write_at(&self, register: Register, index: usize, value: u32) {
        self.0.write32(register.at(index), value);
    }

    /// Change some bits of one of an array.
    pub fn modify_at(&self, register: Register, index: usize, clear: u32, set: u32) {
        self.write_at(register, index, self.read_at(register, index) & !clear | set);
    }

    /// Tell the card where a ring is and how long, and that it is empty: base low and high, length, head and tail, in this order.
    pub fn hand_ring(&self, ring: [Register; 5], index: usize, iova: u64, bytes: u32) {
        for (register, value) in ring.into_iter().zip([iova as u32, (iova >> 32) as u32, bytes, 0, 0]) {
            self.write_at(register, index, value);
        }
    }

    /// One of an array, to be written often.
    ///
    /// # Errors
    ///
    /// [`Error::NoDoorbell`] if it lies outside the BAR.
    pub fn doorbell(&self, register: Register, index: usize) -> Result<Doorbell, Error> {
        self.0.doorbell(register.at(index))
    }
}
