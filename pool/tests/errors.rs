//! What a pool refuses, and in which words.

use pagewire_pci::{AddressSpace, AddressSpaceOptions};
use pagewire_pool::{PageSize, Pool, PoolConfig};

fn refused(change: impl FnOnce(&mut PoolConfig)) -> String {
    let mut config = PoolConfig { name: "rx0".into(), backing: PageSize::Size4K, ..PoolConfig::default() };
    change(&mut config);
    let space = AddressSpace::new(AddressSpaceOptions::default()).expect("no device, no trouble");
    Pool::new(&config, &space).map(drop).expect_err("a bad configuration").to_string()
}

#[test]
fn a_bad_configuration_is_refused_by_field() {
    assert_eq!(
        refused(|config| config.page_size = 5000),
        "pool \"rx0\": page_size is 5000, expected a power of two from 4096 to 65536"
    );
    assert_eq!(
        refused(|config| config.fragment_size = 3000),
        "pool \"rx0\": fragment_size is 3000, expected a power of two from 512 to 4096"
    );
    assert_eq!(
        refused(|config| config.headroom = 2048),
        "pool \"rx0\": headroom is 2048, expected less than the fragment's 2048"
    );
    assert_eq!(
        refused(|config| config.fragments = 0),
        "pool \"rx0\": fragments is 0, expected 1 to 67108864"
    );
}

#[test]
fn too_few_huge_pages_name_the_command_that_reserves_them() {
    // More than any machine of these tests has.
    let error = refused(|config| (config.backing, config.fragments) = (PageSize::Size2M, 1 << 26));
    assert!(error.starts_with("pool \"rx0\": "), "{error}");
    assert!(error.contains("pagewire hugepages reserve"), "{error}");
}
