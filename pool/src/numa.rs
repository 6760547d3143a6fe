//! Which NUMA node the owner is on, and which a segment.

use pagewire_hugepages::{Segment, Sysfs, current_node};

/// What a pool asks about nodes. The machine answers, or a test.
pub(crate) trait Topology: Send {
    /// Whether there is one node or none: then nothing needs to be asked.
    fn is_uniform(&self) -> bool;
    /// The node of the thread that asks.
    fn here(&self) -> Option<u32>;
    /// The node of a segment.
    fn node_of(&self, segment: &Segment) -> Option<u32>;
}

pub(crate) struct Machine {
    nodes: usize,
}

impl Machine {
    pub(crate) fn new() -> Machine {
        // A machine that does not tell is treated as one that has no nodes.
        Machine { nodes: Sysfs::default().nodes().map_or(0, |nodes| nodes.len()) }
    }
}

impl Topology for Machine {
    fn is_uniform(&self) -> bool {
        self.nodes < 2
    }

    fn here(&self) -> Option<u32> {
        current_node()
    }

    fn node_of(&self, segment: &Segment) -> Option<u32> {
        segment.home_node()
    }
}

/// The nodes of a pool's segments, and the one that the pool wants its memory on.
pub(crate) struct Nodes {
    pub(crate) topology: Box<dyn Topology>,
    /// As configured. `None`: where the owner is.
    pub(crate) wanted: Option<u32>,
    /// By place.
    pub(crate) segments: Box<[Option<u32>]>,
    /// Where the owner was last seen.
    here: Option<u32>,
    /// Refills until it is looked for again: that is a system call.
    until_asked: u32,
}

impl Nodes {
    const REFILLS: u32 = 1024;

    pub(crate) fn new(topology: Box<dyn Topology>, wanted: Option<u32>, places: usize) -> Nodes {
        Nodes { topology, wanted, segments: vec![None; places].into(), here: None, until_asked: 0 }
    }

    /// Whether the node of the segment at a place is known and not the one that the pool wants.
    pub(crate) fn is_foreign(&self, place: usize) -> bool {
        let wanted = self.wanted.or(self.here);
        matches!((wanted, self.segments[place]), (Some(wanted), Some(node)) if wanted != node)
    }

    /// A refill begins. Whether the owner was found on another node than before.
    pub(crate) fn has_moved(&mut self) -> bool {
        if self.wanted.is_some() || self.topology.is_uniform() {
            return false;
        }
        if self.until_asked > 0 {
            self.until_asked -= 1;
            return false;
        }
        self.until_asked = Nodes::REFILLS;
        let before = std::mem::replace(&mut self.here, self.topology.here());
        before != self.here
    }
}
