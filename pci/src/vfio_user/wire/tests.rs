use super::*;

#[test]
fn a_message_is_laid_out_as_the_specification_says() {
    let header = Header { id: 0x0102, command: Command::DmaMap as u16, size: 48, flags: NO_REPLY, error: 5 };
    assert_eq!(header.encode(), [2, 1, 2, 0, 48, 0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0]);
    let map = DmaMap { argsz: 32, flags: 3, offset: 0x1000, address: 0x10_0000_0000, size: 0x20_0000 };
    let mut expected = [0; 32];
    (expected[0], expected[4], expected[9], expected[20], expected[26]) = (32, 3, 0x10, 0x10, 0x20);
    assert_eq!(map.encode(), expected);
    assert_eq!(DmaMap::decode(&expected), Ok((map, [].as_slice())));
    assert_eq!(DmaMap::decode(&expected[1..]), Err(Malformed::Short { needed: 32, found: 31 }));
    let lengths = [
        Version::LEN,
        DmaUnmap::LEN,
        DeviceInfo::LEN,
        RegionInfo::LEN,
        SparseHeader::LEN,
        Area::LEN,
        IrqInfo::LEN,
        SetIrqs::LEN,
        RegionAccess::LEN,
        DmaAccess::LEN,
    ];
    assert_eq!(lengths, [4, 24, 16, 32, 16, 16, 16, 20, 16, 16]);
}

#[test]
fn a_header_is_bounded() {
    let header = |size, flags| Header { size, flags, ..Header::default() }.check();
    for (size, flags) in [(16, 0), (16, REPLY), (MAX_MESSAGE as u32, REPLY | ERROR), (20, NO_REPLY)] {
        assert!(header(size, flags).is_ok(), "{size} {flags:#x}");
    }
    for (size, flags) in [(0, 0), (15, 0), (MAX_MESSAGE as u32 + 1, 0), (u32::MAX, 0), (16, 2), (16, 0xf)] {
        assert!(header(size, flags).is_err(), "{size} {flags:#x}");
    }
}

#[test]
fn commands_have_their_numbers() {
    for number in 0..=u16::MAX {
        let known = matches!(number, 1..=5 | 7..=13);
        assert_eq!(Command::from_number(number).map(|command| command as u16), known.then_some(number));
    }
}

#[test]
fn limits_survive_the_journey_and_have_defaults() {
    assert_eq!(Limits::decode(&OWN_LIMITS.encode()), Ok(OWN_LIMITS));
    let limits = |max_msg_fds, max_data_xfer_size| Ok(Limits { max_msg_fds, max_data_xfer_size });
    for (text, expected) in [
        ("", limits(1, 1 << 20)),
        ("\0", limits(1, 1 << 20)),
        ("{}\0", limits(1, 1 << 20)),
        (r#"{"capabilities":{"max_msg_fds":4,"max_data_xfer_size":4096}}"#, limits(4, 4096)),
        (r#"{"capabilities":{"max_msg_fds":0,"migration":{"pgsize":4096}}, "more":[1]}"#, limits(0, 1 << 20)),
        (
            r#"{"capabilities":{"max_msg_fds":1000000,"max_data_xfer_size":18446744073709551615}}"#,
            limits(8, 1 << 20),
        ),
    ] {
        assert_eq!(Limits::decode(text.as_bytes()), expected, "{text}");
    }
    for text in [
        "{",
        "[]",
        "7",
        "{}{}",
        "\u{0}{}",
        r#"{"capabilities":{"max_data_xfer_size":0}}"#,
        r#"{"capabilities":{"max_data_xfer_size":-1}}"#,
        r#"{"capabilities":{"max_msg_fds":"8"}}"#,
        r#"{"capabilities":{"max_msg_fds":18446744073709551616}}"#,
    ] {
        assert!(Limits::decode(text.as_bytes()).is_err(), "{text}");
    }
    assert!(Limits::decode(&[b'['; 100_000]).is_err(), "nested too deeply");
    assert!(Limits::decode(&[0xff, 0xfe]).is_err());
}
