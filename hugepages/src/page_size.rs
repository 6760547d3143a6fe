//! The sizes of page that a segment can be made of.

use std::{fmt, str::FromStr};

/// Size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// An ordinary page. For tests and for machines without huge pages: each one costs a TLB entry and an IOMMU entry.
    Size4K,
    /// A 2 MiB huge page.
    Size2M,
    /// A 1 GiB huge page. Best reserved at boot, before memory is in pieces.
    Size1G,
}

impl PageSize {
    /// Every size, smallest first.
    pub const ALL: [PageSize; 3] = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G];

    /// Number of bytes in a page.
    pub const fn bytes(self) -> usize {
        match self {
            PageSize::Size4K => 4 << 10,
            PageSize::Size2M => 2 << 20,
            PageSize::Size1G => 1 << 30,
        }
    }

    /// Whether pages of this size come from the kernel's reserved huge pages.
    pub const fn is_huge(self) -> bool {
        !matches!(self, PageSize::Size4K)
    }

    /// The short form that [`PageSize::from_str`] reads and a command line takes: `4K`, `2M`, `1G`.
    pub const fn short(self) -> &'static str {
        match self {
            PageSize::Size4K => "4K",
            PageSize::Size2M => "2M",
            PageSize::Size1G => "1G",
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PageSize::Size4K => "4 KiB",
            PageSize::Size2M => "2 MiB",
            PageSize::Size1G => "1 GiB",
        })
    }
}

/// A text that names no page size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a page size: give 4K, 2M or 1G")]
pub struct ParsePageSizeError(String);

impl FromStr for PageSize {
    type Err = ParsePageSizeError;

    /// Reads `2M`, `2MB`, `2MiB` and `2 MiB`, in either case, and so on for the other sizes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let short = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
        let (number, unit) = short.split_at_checked(1).ok_or_else(|| ParsePageSizeError(text.into()))?;
        match (number, unit.trim_start()) {
            ("4", "k") => Ok(PageSize::Size4K),
            ("2", "m") => Ok(PageSize::Size2M),
            ("1", "g") => Ok(PageSize::Size1G),
            _ => Err(ParsePageSizeError(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        for (size, texts) in [
            (PageSize::Size4K, ["4K", "4k", "4KB", "4KiB", "4 KiB"]),
            (PageSize::Size2M, ["2M", "2m", "2MB", "2MiB", "2 MiB"]),
            (PageSize::Size1G, ["1G", "1g", "1GB", "1GiB", "1 GiB"]),
        ] {
            for text in texts {
                assert_eq!(text.parse(), Ok(size), "{text}");
            }
            assert_eq!(size.to_string().parse(), Ok(size));
            assert_eq!(size.short().parse(), Ok(size));
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in ["", "2", "M", "2T", "4M", "2048K", "2Mi", "-2M", "2M2M", "é2M"] {
            let error = text.parse::<PageSize>().unwrap_err().to_string();
            assert_eq!(error, format!("'{text}' is not a page size: give 4K, 2M or 1G"));
        }
    }

    #[test]
    fn display_can_be_aligned() {
        assert_eq!(format!("[{:>6}]", PageSize::Size2M), "[ 2 MiB]");
        assert_eq!(PageSize::Size1G.bytes(), 1 << 30);
    }
}
