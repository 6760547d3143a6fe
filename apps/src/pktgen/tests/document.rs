//! What docs/pktgen.md shows can be used as it is.

use std::time::Duration;

use pagewire_captures::CaptureFile;
use pagewire_ethdev::{AnyPort, PortConfig};
use pagewire_pci::{AddressSpace, AddressSpaceOptions};

use super::super::pace::Clock;
use super::super::plan::Plan;
use super::super::scenario::Scenario;
use super::super::signature::Run;
use super::frames::pool;
use crate::ports::{self, PortSpec};

#[test]
fn the_scenarios_of_the_documentation_can_be_sent() {
    let document = include_str!("../../../../docs/pktgen.md");
    let blocks = document.split("```toml\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shown.toml");
    let mut capture = CaptureFile::create(&folder.path().join("in.pcap"), Default::default()).unwrap();
    capture.write(&[0; 60]);
    // Its gap, which a link can keep.
    std::thread::sleep(Duration::from_millis(1));
    capture.write(&[0; 60]);
    drop(capture);
    let (mut streams, mut trials) = (0, 0);
    for block in blocks {
        std::fs::write(&file, block).unwrap();
        let mut scenario = Scenario::read(&file).unwrap();
        if let Some(rfc2544) = scenario.rfc2544.take() {
            scenario = rfc2544.widest(&scenario);
            trials += 1;
        }
        let space = AddressSpace::new(AddressSpaceOptions::default()).unwrap();
        let ring = PortSpec::Ring("document".into());
        let mut ports = ports::open(&[ring.clone(), ring], &space).unwrap();
        let start = |port: &mut AnyPort| port.start(PortConfig::single_queue(pool(64))).unwrap();
        let _queues: Vec<_> = ports.iter_mut().map(start).collect();
        let clock = Clock { hz: 2e9 };
        if let Err(error) = Plan::new(&scenario, &mut ports, 1, &clock, Run::new(1)) {
            panic!("{error:#}, in\n{block}");
        }
        streams += scenario.streams.len();
    }
    // Three of the first, one of all defaults for the trials.
    assert_eq!((streams, trials), (4, 1));
}
