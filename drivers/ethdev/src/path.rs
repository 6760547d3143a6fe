//! Which of a driver's loops a queue runs.

use std::fmt;

/// How a queue moves packets, from the slowest to the fastest. Each takes the packets that are not for it one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Path {
    /// Frames are put together of headers and data, or of descriptors that are no neighbours.
    Assembled,
    /// In a loop that has no descriptors to deal with, or looks at each packet for itself.
    Simple,
    /// In runs of packets that are alike.
    Bulk,
    /// In runs, four at a time, by vector instructions (AVX2).
    Vector,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::Assembled => "assembled",
            Path::Simple => "simple",
            Path::Bulk => "bulk",
            Path::Vector => "vector (AVX2)",
        })
    }
}

/// The path that a queue is on, and what keeps it off a faster one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// The path.
    pub active: Path,
    /// Why it is not the next faster. `None` where there is no faster.
    pub refused: Option<&'static str>,
}

impl PathReport {
    /// Of a queue that has one path only.
    pub const SIMPLE: PathReport = PathReport { active: Path::Simple, refused: None };
}

impl fmt::Display for PathReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.active)?;
        self.refused.map_or(Ok(()), |why| write!(f, ", not faster: {why}"))
    }
}

/// Why vector instructions are not used.
pub(crate) mod refused {
    pub(crate) const NOT_WANTED: &str = "vector instructions are switched off";
    pub(crate) const NO_AVX2: &str = "the CPU has no AVX2";
    pub(crate) const DESCRIBING: &str =
        "what the card finds out about packets is asked for (receive offloads)";
    pub(crate) const ASSEMBLING: &str =
        "frames are split into headers and data, or coalesced (receive offloads)";
}
