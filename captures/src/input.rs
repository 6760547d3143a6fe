//! The frames of a capture file.

use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, PcapError as Parse, TsResolution};

use super::{MAX_FRAME, PcapError};

/// Destination, source, type: no frame is shorter.
const HEADER: usize = 14;

/// Frames one after the other.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    stamps: Vec<Option<Duration>>,
}

impl Frames {
    /// All frames of a file.
    ///
    /// # Errors
    ///
    /// [`PcapError`], which says where in the file something is wrong.
    pub fn read(path: &Path) -> Result<Self, PcapError> {
        let bytes = std::fs::read(path).map_err(|cause| PcapError::Io { path: path.into(), cause })?;
        Self::parse(&bytes).map_err(|(frames, Wrong { left, found, expected })| PcapError::Content {
            path: path.into(),
            at: (bytes.len() - left) as u64,
            place: if left == bytes.len() { "the start".into() } else { format!("frame {}", frames + 1) },
            found,
            expected,
        })
    }

    /// All frames, or how many there are before something that cannot be understood.
    pub fn parse(bytes: &[u8]) -> Result<Self, (usize, Wrong)> {
        let mut frames = Self::default();
        let parsed = match bytes.first_chunk() {
            Some([0x0a, 0x0d, 0x0d, 0x0a]) => frames.parse_ng(bytes),
            _ => frames.parse_classic(bytes),
        };
        match parsed {
            Ok(()) => Ok(frames),
            Err(wrong) => Err((frames.len(), wrong)),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One of them, by its number.
    pub fn get(&self, frame: usize) -> &[u8] {
        let start = frame.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[frame]]
    }

    /// When one of them was captured, since 1970. None if its record does not say.
    pub fn stamp(&self, frame: usize) -> Option<Duration> {
        self.stamps[frame]
    }

    fn push(
        &mut self,
        data: &[u8],
        original: u32,
        stamp: Option<Duration>,
        left: usize,
    ) -> Result<(), Wrong> {
        let found = match data.len() {
            captured if captured < original as usize => {
                return Err(Wrong {
                    left,
                    found: format!("{captured} of the frame's {original} bytes"),
                    expected: "whole frames, as `tcpdump -s 0` captures them",
                });
            }
            HEADER..=MAX_FRAME => {
                self.bytes.extend_from_slice(data);
                self.ends.push(self.bytes.len());
                self.stamps.push(stamp);
                return Ok(());
            }
            captured => format!("a frame of {captured} bytes"),
        };
        Err(Wrong { left, found, expected: "14 to 16384" })
    }

    fn parse_classic(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        const FILE: &str = "a file header of pcap or pcapng";
        let (mut rest, parser) = PcapParser::new(bytes).map_err(|error| match error {
            Parse::InvalidField(_) => Wrong { left: bytes.len(), found: magic(bytes), expected: FILE },
            error => wrong(bytes, &error, FILE),
        })?;
        let header = parser.header();
        ethernet(header.datalink, bytes.len())?;
        let unit = if header.ts_resolution == TsResolution::NanoSecond { 1 } else { 1000 };
        while !rest.is_empty() {
            // Raw: what only the capture's maker could put right is of no interest.
            let (behind, packet) =
                parser.next_raw_packet(rest).map_err(|error| wrong(rest, &error, "a record, whole"))?;
            let fraction = Duration::from_nanos(u64::from(packet.ts_frac) * unit);
            let stamp = Duration::from_secs(packet.ts_sec.into()) + fraction;
            self.push(&packet.data, packet.orig_len, Some(stamp), rest.len())?;
            rest = behind;
        }
        Ok(())
    }

    fn parse_ng(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        const BLOCK: &str = "a block of pcapng, whole";
        let (mut rest, mut parser) = PcapNgParser::new(bytes).map_err(|error| wrong(bytes, &error, BLOCK))?;
        while !rest.is_empty() {
            let (behind, block) = parser.next_block(rest).map_err(|error| wrong(rest, &error, BLOCK))?;
            let (interface, data, original, units) = match block {
                Block::EnhancedPacket(packet) => {
                    // The parser takes all units for nanoseconds.
                    let units = u64::try_from(packet.timestamp.as_nanos()).ok();
                    (packet.interface_id, packet.data, packet.original_len, units)
                }
                Block::Packet(packet) => {
                    (packet.interface_id.into(), packet.data, packet.original_len, Some(packet.timestamp))
                }
                // Padded, of the first interface, and without a time.
                Block::SimplePacket(packet) => (0, packet.data, packet.original_len, None),
                _ => {
                    rest = behind;
                    continue;
                }
            };
            let Some(interface) = parser.interfaces().get(interface as usize) else {
                let found = format!("a frame of interface {interface}");
                return Err(Wrong {
                    left: rest.len(),
                    found,
                    expected: "an interface that the file describes",
                });
            };
            ethernet(interface.linktype, rest.len())?;
            let resolution = interface.options.iter().find_map(|option| match option {
                InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
                _ => None,
            });
            let stamp = units.map(|units| time(units, resolution.unwrap_or(6)));
            let whole = data.len().min(original as usize);
            self.push(&data[..whole], original, stamp, rest.len())?;
            rest = behind;
        }
        Ok(())
    }
}

/// The time that so many units of an interface are: 10 or, with the highest bit, 2 to the power of minus `resolution` seconds (pcapng,
/// `if_tsresol`).
fn time(units: u64, resolution: u8) -> Duration {
    let power = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    // Beyond what 64 bits of units can tell apart all are 0.
    let per_second = base.checked_pow(power).unwrap_or(u128::MAX);
    let units = u128::from(units);
    let nanos = units % per_second * 1_000_000_000 / per_second;
    Duration::from_secs((units / per_second) as u64) + Duration::from_nanos(nanos as u64)
}

/// What cannot be understood, with so many bytes left.
#[derive(Debug)]
pub struct Wrong {
    left: usize,
    found: String,
    expected: &'static str,
}

fn wrong(rest: &[u8], error: &Parse, expected: &'static str) -> Wrong {
    let found = match error {
        Parse::IncompleteBuffer => format!("the file ends after {} bytes of it", rest.len()),
        error => error.to_string(),
    };
    Wrong { left: rest.len(), found, expected }
}

fn magic(bytes: &[u8]) -> String {
    bytes.iter().take(4).fold("a file that starts with".into(), |text, byte| format!("{text} {byte:02x}"))
}

fn ethernet(link: DataLink, left: usize) -> Result<(), Wrong> {
    if link == DataLink::ETHERNET {
        return Ok(());
    }
    let found = format!("link type {} ({link:?})", u32::from(link));
    Err(Wrong { left, found, expected: "1, Ethernet" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_their_interfaces_units() {
        for (units, resolution, nanos) in [
            (1_500_000, 6, 1_500_000_000),
            (7, 9, 7),
            (3, 0, 3_000_000_000),
            (3, 0x80 | 1, 1_500_000_000),
            (5_000, 12, 5),
            (u64::MAX, 0x7f, 0),
            (u64::MAX, 0xff, 0),
        ] {
            assert_eq!(time(units, resolution), Duration::from_nanos(nanos), "{units} {resolution:#x}");
        }
        // The longest that there is.
        assert_eq!(time(u64::MAX, 0).as_secs(), u64::MAX);
    }
}
