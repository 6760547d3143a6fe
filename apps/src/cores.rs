//! CPUs: which may be used, and pinning a thread to one.

use anyhow::{Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPUs that this process may run on.
fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The CPUs asked for, if the process may run on all of them.
pub(crate) fn check(cpus: &[usize]) -> Result<Vec<usize>> {
    let allowed = allowed()?;
    if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
        bail!(
            "--cores: this process may not run on CPU {cpu}; it may on {allowed:?} (see `taskset -p $$`, /proc/cmdline isolcpus)"
        );
    }
    Ok(cpus.to_vec())
}

/// One for each of `lanes`, leaving the first for everything else if there is more than one.
pub(crate) fn default(lanes: usize) -> Result<Vec<usize>> {
    Ok(spare(allowed()?, lanes))
}

/// [`default`] of these CPUs.
pub(crate) fn spare(mut cpus: Vec<usize>, lanes: usize) -> Vec<usize> {
    if cpus.len() > 1 {
        cpus.remove(0);
    }
    cpus.truncate(lanes.max(1));
    cpus
}

/// Pin the calling thread. Failing that it runs where the kernel puts it, which is slower and not wrong.
pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        log::warn!("CPU {cpu}: pinning a thread to it failed: {error}");
    }
}

/// CPUs for loops and modelled cards beside each other; see [`divide`].
pub(crate) fn beside(lanes: usize, cards: usize) -> Result<(Vec<usize>, Vec<usize>)> {
    Ok(divide(allowed()?, lanes, cards))
}

/// The last of these for up to `lanes` loops, those before for up to `cards` cards, as far as there are any: cards have more to
/// do than loops. A single one is for both.
fn divide(mut cpus: Vec<usize>, lanes: usize, cards: usize) -> (Vec<usize>, Vec<usize>) {
    let own = if cpus.len() >= lanes + cards { lanes } else { 1 };
    let for_lanes = cpus.split_off(cpus.len().saturating_sub(own));
    let for_cards = match cpus.len() {
        0 => for_lanes.clone(),
        count => cpus.split_off(count.saturating_sub(cards)),
    };
    (for_lanes, for_cards)
}

/// The CPUs that this process may run on and that are not among these.
pub(crate) fn others(cpus: &[usize]) -> Result<Vec<usize>> {
    Ok(allowed()?.into_iter().filter(|cpu| !cpus.contains(cpu)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_and_cards_share_what_there_is() {
        for (cpus, lanes, cards) in [
            (vec![3], vec![3], vec![3]),
            (vec![0, 1], vec![1], vec![0]),
            (vec![0, 1, 2], vec![2], vec![0, 1]),
            (vec![0, 1, 2, 3], vec![2, 3], vec![0, 1]),
            ((0..8).collect(), vec![6, 7], vec![4, 5]),
        ] {
            assert_eq!(divide(cpus.clone(), 2, 2), (lanes, cards), "{cpus:?}");
        }
    }
}
