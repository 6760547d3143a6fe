//! Names for the numbers: `pci.ids` where the machine has it, and the cards we drive in any case.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::FunctionInfo;

/// Where distributions put the list (pciutils and hwdata).
const PLACES: [&str; 2] = ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"];

const VENDOR: (u16, &str) = (0x8086, "Intel Corporation");

/// The cards we drive, so that a minimal machine shows them by name too.
const OURS: [(u16, &str); 8] = [
    (0x100e, "82540EM Gigabit Ethernet Controller"),
    (0x100f, "82545EM Gigabit Ethernet Controller (Copper)"),
    (0x10d3, "82574L Gigabit Network Connection"),
    (0x10c9, "82576 Gigabit Network Connection"),
    (0x10ca, "82576 Virtual Function"),
    (0x1533, "I210 Gigabit Network Connection"),
    (0x10fb, "82599ES 10-Gigabit SFI/SFP+ Network Connection"),
    (0x10ed, "82599 Ethernet Controller Virtual Function"),
];

/// Names every function that has none yet, in one pass over the list.
pub(crate) fn fill(root: &Path, functions: &mut [FunctionInfo]) {
    if let Some(file) = PLACES.iter().find_map(|place| File::open(root.join(place)).ok()) {
        from_list(BufReader::new(file), functions);
    }
    for function in functions.iter_mut().filter(|function| function.vendor_id == VENDOR.0) {
        function.vendor_name.get_or_insert_with(|| VENDOR.1.to_owned());
        if let Some((_, name)) = OURS.iter().find(|(id, _)| *id == function.device_id) {
            function.device_name.get_or_insert_with(|| (*name).to_owned());
        }
    }
}

/// A vendor's line starts with its number, its devices follow behind one tab each, subsystems behind two. Device
/// classes come last, behind a `C`.
fn from_list(list: impl BufRead, functions: &mut [FunctionInfo]) {
    let mut vendor = None;
    // Bytes, not lines of text: one bad byte in a hand-edited list is no reason to lose the rest.
    for line in list.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if line.starts_with('#') || line.starts_with("\t\t") {
            continue;
        }
        if let Some((device, name)) = line.strip_prefix('\t').and_then(entry) {
            for function in
                functions.iter_mut().filter(|f| Some(f.vendor_id) == vendor && f.device_id == device)
            {
                function.device_name = Some(name.to_owned());
            }
        } else if !line.starts_with('\t') {
            vendor = entry(&line).map(|(vendor, _)| vendor);
            for function in functions.iter_mut().filter(|f| Some(f.vendor_id) == vendor) {
                function.vendor_name = entry(&line).map(|(_, name)| name.to_owned());
            }
        }
    }
}

/// `10d3  82574L Gigabit Network Connection`
fn entry(line: &str) -> Option<(u16, &str)> {
    let (id, name) = line.split_once("  ")?;
    (id.len() == 4).then(|| Some((u16::from_str_radix(id, 16).ok()?, name.trim())))?
}
