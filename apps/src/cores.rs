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
    let mut cpus = allowed()?;
    if cpus.len() > 1 {
        cpus.remove(0);
    }
    cpus.truncate(lanes.max(1));
    Ok(cpus)
}

/// Pin the calling thread. Failing that it runs where the kernel puts it, which is slower and not wrong.
pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        log::warn!("CPU {cpu}: pinning a thread to it failed: {error}");
    }
}

/// For loops and modelled cards beside each other: CPUs for up to `lanes` loops, and others for up to `cards`, as far as
/// there are any. Cards have more to do than loops, and each polls.
pub(crate) fn beside(lanes: usize, cards: usize) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut rest = allowed()?;
    let own = if rest.len() >= lanes + cards { lanes } else { 1 };
    let for_lanes = rest.split_off(rest.len() - own.min(rest.len()));
    let for_cards = match rest.len() {
        0 => for_lanes.clone(),
        count => rest.split_off(count.saturating_sub(cards)),
    };
    Ok((for_lanes, for_cards))
}

/// The CPUs that this process may run on and that are not among these.
pub(crate) fn others(cpus: &[usize]) -> Result<Vec<usize>> {
    Ok(allowed()?.into_iter().filter(|cpu| !cpus.contains(cpu)).collect())
}
