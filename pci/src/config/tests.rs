//! Configuration spaces, sane and not.

use super::*;

/// An image with a list of capabilities, each with its offset and bytes, linked in that order.
fn image(len: usize, list: &[(u8, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; len];
    image[STATUS] = STATUS_HAS_LIST;
    let mut link = LIST_POINTER;
    for (at, bytes) in list {
        let at = usize::from(*at);
        image[link] = at as u8;
        image[at] = bytes[0];
        image[at + 2..at + 1 + bytes.len()].copy_from_slice(&bytes[1..]);
        link = at + 1;
    }
    image
}

/// A configuration space whose one capability is MSI-X.
pub(crate) fn with_msix(vectors: u16, bar: u8, offset: u32) -> Vec<u8> {
    let [control_low, control_high] = (vectors - 1).to_le_bytes();
    let table = (offset | u32::from(bar)).to_le_bytes();
    image(
        256,
        &[(0xa0, &[CAP_MSIX as u8, control_low, control_high, table[0], table[1], table[2], table[3]])],
    )
}

fn ids(capabilities: &Capabilities) -> Vec<(u16, u16, bool)> {
    capabilities.list.iter().map(|c| (c.id, c.offset, c.extended)).collect()
}

#[test]
fn reads_the_lists_of_a_pci_express_card() {
    // What an 82574L has: PM at 0xc8, MSI at 0xd0, PCI Express at 0xe0, MSI-X at 0xa0, AER and a serial number.
    let mut image = image(
        4096,
        &[
            (0xc8, &[CAP_PM as u8, 0x22, 0xc8]),
            (0xd0, &[CAP_MSI as u8, 0x86, 0x00]),
            (0xe0, &[CAP_EXPRESS as u8, 0x01, 0x00, 0xc1, 0x8c, 0x00, 0x10]),
            (0xa0, &[CAP_MSIX as u8, 0x04, 0x80, 0x03, 0x20, 0x00, 0x00]),
        ],
    );
    image[0x100..0x104].copy_from_slice(&0x1401_0001_u32.to_le_bytes());
    image[0x140..0x144].copy_from_slice(&0x0001_0003_u32.to_le_bytes());
    image[0x144..0x14c].copy_from_slice(&0x5254_00ff_ff12_3456_u64.to_le_bytes());

    let found = Capabilities::parse(&image);
    assert_eq!(
        ids(&found),
        [
            (CAP_PM, 0xc8, false),
            (CAP_MSI, 0xd0, false),
            (CAP_EXPRESS, 0xe0, false),
            (CAP_MSIX, 0xa0, false),
            (0x0001, 0x100, true),
            (CAP_SERIAL, 0x140, true)
        ]
    );
    assert_eq!(found.msi_vectors, Some(8));
    assert_eq!(found.msix, Some(Msix { vectors: 5, table_bar: 3, table_offset: 0x2000 }));
    assert_eq!(found.msix.unwrap().table(), 0x2000..0x2050);
    assert!(found.function_level_reset);
    assert_eq!(found.serial_number, Some(0x5254_00ff_ff12_3456));
    assert_eq!(found.find(CAP_SERIAL, true).unwrap().offset, 0x140);
    assert_eq!(found.find(CAP_SERIAL, false), None, "the numbers of the two lists are their own");
}

#[test]
fn a_function_without_a_list_or_gone_has_nothing() {
    let mut unlisted = with_msix(5, 0, 0);
    unlisted[STATUS] = 0;
    for image in [vec![], vec![0; 256], vec![0xff; 4096], vec![0xff; 256], unlisted] {
        let found = Capabilities::parse(&image);
        assert_eq!((found.list.len(), found.msix), (0, None), "{} bytes", image.len());
    }
}

#[test]
fn a_list_that_bites_its_tail_is_read_once() {
    let mut looped = image(4096, &[(0x40, &[CAP_PM as u8]), (0x50, &[CAP_MSI as u8])]);
    looped[0x51] = 0x40;
    looped[0x100..0x104].copy_from_slice(&0x1001_0001_u32.to_le_bytes());
    let found = Capabilities::parse(&looped);
    assert_eq!(ids(&found), [(CAP_PM, 0x40, false), (CAP_MSI, 0x50, false), (1, 0x100, true)]);
}

#[test]
fn a_pointer_into_the_header_ends_the_list() {
    let mut bad = image(256, &[(0x40, &[CAP_PM as u8])]);
    bad[0x41] = 0x10;
    assert_eq!(ids(&Capabilities::parse(&bad)), [(CAP_PM, 0x40, false)]);
    bad[LIST_POINTER] = 0x08;
    assert_eq!(ids(&Capabilities::parse(&bad)), []);
    // The low bits of a pointer are reserved, not part of it.
    bad[LIST_POINTER] = 0x43;
    assert_eq!(ids(&Capabilities::parse(&bad)), [(CAP_PM, 0x40, false)]);
}

#[test]
fn a_capability_cut_off_by_the_end_has_no_details() {
    let found = Capabilities::parse(&image(256, &[(0xfc, &[CAP_MSIX as u8, 4, 0])]));
    assert_eq!(ids(&found), [(CAP_MSIX, 0xfc, false)]);
    assert_eq!(found.msix, None);
}

#[test]
fn garbage_ends() {
    // A fixed xorshift: the same garbage each run.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut longest = 0;
    for round in 0..4000 {
        let len = [0, 3, 63, 64, 255, 256, 1000, 4096][round % 8];
        let mut image: Vec<u8> = (0..len)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as u8
            })
            .collect();
        if let Some(status) = image.get_mut(STATUS) {
            *status |= STATUS_HAS_LIST;
        }
        let found = Capabilities::parse(&image);
        assert!(found.list.len() <= 4096 / 4);
        assert!(found.msix.is_none_or(|msix| (1..=2048).contains(&msix.vectors) && msix.table_bar < 8));
        longest = longest.max(found.list.len());
    }
    assert!(longest > 5, "the garbage never made a list: the test is too easy");
}
