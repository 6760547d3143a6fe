//! Every step of creation and of growth made to fail in turn: nothing leaks.

use super::*;
use crate::shared::MAX_POOLS;
use crate::{Error, Life, fault, pools};

#[test]
fn a_creation_that_fails_half_way_leaves_nothing_behind() {
    let (space, _function, iommu) = space();
    // Often enough that a number that is lost each time would be missed.
    let mut failures = 0;
    while failures < 2 * MAX_POOLS {
        let provider = Arc::new(Counted::default());
        let attempt = || Pool::with_provider(&config(), &space, provider.clone());
        let (pool, steps) = fault::in_steps(attempt, |error| {
            let text = error.to_string();
            assert!(text.starts_with("pool \"test\": "), "{text}");
            assert_eq!((provider.alive(), provider.released()), (0, provider.given()), "after {text}");
            assert_eq!(iommu.mapped_bytes(), 0, "after {text}");
        });
        assert_eq!(steps, 2 + 2 * (2 + 32), "a number, records; twice memory, a map, an address a page");
        assert_eq!(iommu.mapped_bytes(), 2 * 64 * 2048);
        drop(pool);
        // Whoever got as far as having a provider gave it up: all but the one without a number.
        assert_eq!(provider.uninstalled.load(Ordering::Relaxed), steps);
        assert_eq!((provider.alive(), iommu.mapped_bytes()), (0, 0));
        failures += steps;
    }
    assert!(pools().iter().all(|pool| pool.name() != "test" || pool.life() != Life::Orphan));
}

#[test]
fn a_growth_that_fails_half_way_leaves_the_pool_as_it_was() {
    let (space, _function, iommu) = space();
    let provider = Arc::new(Counted::default());
    let mut pool = Pool::with_provider(&config(), &space, provider.clone()).expect("a small pool");
    let mut held = all(&mut pool);
    let mapped = iommu.mapped_bytes();
    for grown in 1..=2 {
        let (added, steps) = fault::in_steps(
            || {
                let before = (pool.stats().fragments, provider.alive(), iommu.mapped_bytes());
                let result = pool.grow();
                if result.is_err() {
                    assert_eq!(before, (pool.stats().fragments, provider.alive(), iommu.mapped_bytes()));
                    assert!(pool.alloc().is_none(), "nothing of what failed is given out");
                }
                result
            },
            |error| assert!(error.to_string().starts_with("pool \"test\": "), "{error}"),
        );
        assert_eq!((added, steps), (64, 2 + 32));
        assert_eq!(iommu.mapped_bytes(), mapped + grown * mapped / 2);
        held.extend(all(&mut pool));
        assert_eq!(held.len(), 128 + grown * 64);
    }
    assert!(matches!(pool.grow(), Err(Error::FullyGrown { fragments: 256, .. })));
    drop(pool);
    assert_eq!(provider.uninstalled.load(Ordering::Relaxed), 0, "fragments are out");
    drop(held);
    crate::flush_thread();
    assert_eq!((provider.uninstalled.load(Ordering::Relaxed), provider.alive()), (1, 0));
    assert_eq!(iommu.mapped_bytes(), 0);
}

#[test]
fn a_map_that_one_of_two_iommus_refuses_is_taken_back() {
    let (space, _function, willing) = space();
    let (_other, registers) = mock::open(&space, (1, 2), 0..4096, Plain).expect("another function");
    let provider = Arc::new(Counted::default());
    registers.iommu().refuse(true);
    let error = Pool::with_provider(&config(), &space, provider.clone()).map(drop).expect_err("refused");
    assert!(matches!(error, Error::Map { .. }), "{error}");
    assert_eq!((provider.alive(), willing.mapped_bytes(), willing.map_calls()), (0, 0, 1));
    registers.iommu().refuse(false);
    let mut pool = Pool::with_provider(&config(), &space, provider.clone()).expect("a small pool");
    registers.iommu().refuse(true);
    let mapped = willing.mapped_bytes();
    assert!(pool.grow().is_err());
    assert_eq!((willing.mapped_bytes(), provider.alive()), (mapped, 2));
}

#[test]
fn what_an_iommu_does_not_unmap_is_neither_released_nor_used_again() {
    let (space, _function, iommu) = space();
    let provider = Arc::new(Counted::default());
    let mut pool = Pool::with_provider(&config(), &space, provider.clone()).expect("a small pool");
    let lost = Arc::as_ptr(&pool.segments()[1]);
    let (mapped, address) = (iommu.mapped_bytes(), pool.segments()[1].window_offset());
    // While it runs.
    iommu.refuse_unmap(true);
    assert_eq!(pool.shrink(64), 64);
    assert_eq!((pool.stats().fragments, pool.stats().unmap_failed), (64, 64));
    assert_eq!((provider.released(), provider.alive(), iommu.mapped_bytes()), (0, 2, mapped));
    iommu.refuse_unmap(false);
    for _ in 0..3 {
        assert_eq!(pool.grow().expect("other memory"), 64);
        let grown = pool.segments()[1].clone();
        assert!(!std::ptr::eq(Arc::as_ptr(&grown), lost) && grown.window_offset() != address);
        drop(grown);
        assert_eq!(pool.shrink(64), 64);
    }
    assert_eq!((provider.released(), provider.alive()), (3, 2));
    // At its end.
    let monitor = pool.monitor();
    iommu.refuse_unmap(true);
    drop(pool);
    assert_eq!((monitor.life(), monitor.stats().unmap_failed), (Life::Gone, 128));
    assert_eq!((provider.released(), provider.alive(), iommu.mapped_bytes()), (3, 2, mapped));
    assert_eq!(provider.uninstalled.load(Ordering::Relaxed), 0, "it has memory out");
    assert!(Arc::strong_count(&provider) > 1, "and stays for it");
    // Where a second IOMMU refuses the map, and the first to take it back.
    iommu.refuse_unmap(true);
    let (_other, registers) = mock::open(&space, (1, 2), 0..4096, Plain).expect("another function");
    registers.iommu().refuse(true);
    let provider = Arc::new(Counted::default());
    let error = Pool::with_provider(&config(), &space, provider.clone()).map(drop).expect_err("refused");
    assert!(matches!(error, Error::Map { .. }), "{error}");
    assert_eq!((provider.released(), provider.alive()), (0, 1));
}

/// A provider that gives less than it was asked for, or nothing.
struct Poor(Option<usize>);

// SAFETY: its segments come from `Pages`, each once.
unsafe impl Provider for Poor {
    fn describe(&self) -> String {
        "a poor provider".into()
    }

    fn allocate(&self, _: usize) -> Result<Arc<Segment>, ProviderError> {
        let len = self.0.ok_or("nothing is left")?;
        let options = SegmentOptions { page_size: PageSize::Size4K, node: None, name: "poor".into() };
        Ok(Segment::allocate(len, &options)?)
    }
}

#[test]
fn a_provider_is_not_trusted_with_lengths() {
    let (space, _function, iommu) = space();
    let refused = |provider| {
        let pool = Pool::with_provider(&config(), &space, Arc::new(provider));
        pool.map(drop).expect_err("a poor provider").to_string()
    };
    assert_eq!(
        refused(Poor(Some(4096))),
        "pool \"test\": a poor provider: 4096 bytes were provided where 131072 were asked for"
    );
    assert_eq!(refused(Poor(None)), "pool \"test\": a poor provider: nothing is left");
    assert_eq!(iommu.map_calls(), 0);
}
