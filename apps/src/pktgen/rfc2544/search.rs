//! The highest part of a rate, or of a burst, at which all goes well: by trials, as few as it takes.

use anyhow::Result;

/// How a trial went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Went {
    pub(super) well: bool,
    /// The part that came through. Where it went wrong this is the next to be tried.
    pub(super) through: f64,
}

/// How long a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// To find out where to look.
    Short,
    /// What is reported has held for so long.
    Full,
}

/// The highest part up to 1 that a full trial was well with. Halves what is in question, near a guess in steps that double, until
/// that is no more than `resolution` of it; None if nothing went well.
///
/// # Errors
///
/// A trial's.
pub(super) fn highest(
    resolution: f64,
    mut attempt: impl FnMut(f64, Length) -> Result<Went>,
) -> Result<Option<f64>> {
    let (mut good, mut bad, mut next): (f64, f64, f64) = (0.0, f64::INFINITY, 1.0);
    // How far from the last part the next one is at most.
    let mut step = f64::INFINITY;
    while bad - good > resolution * bad.min(1.0) && good < 1.0 {
        let went = attempt(next, Length::Short)?;
        if went.well {
            good = next;
        } else {
            let first = bad.is_infinite();
            bad = next;
            // What comes through an overloaded device is close to what it can do, unless it has collapsed.
            if first && went.through > next / 64.0 && went.through < next {
                (next, step) = (went.through, 2.0 * resolution);
                continue;
            }
        }
        let middle = (good + bad) / 2.0;
        next = if went.well { middle.min(good * (1.0 + step)) } else { middle.max(bad * (1.0 - step)) };
        step *= 2.0;
        if bad < resolution / 1024.0 {
            return Ok(None);
        }
    }
    // Down from there, in steps that double, until it holds for a full trial.
    let (mut part, mut step) = (good, resolution);
    while part > 0.0 {
        if attempt(part, Length::Full)?.well {
            return Ok(Some(part));
        }
        part = good * (1.0 - step);
        step *= 2.0;
    }
    Ok(None)
}

/// Frame loss at parts from 1 down in tenths, until nothing is lost at two in a row (RFC 2544, 26.3).
///
/// # Errors
///
/// A trial's.
pub(super) fn tenths(mut lossless: impl FnMut(f64) -> Result<bool>) -> Result<()> {
    let mut in_a_row = 0;
    for tenth in (1..=10).rev() {
        in_a_row = if lossless(f64::from(tenth) / 10.0)? { in_a_row + 1 } else { 0 };
        if in_a_row == 2 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that carries so much of what is offered, and less for long.
    fn device(limit: f64, for_long: f64, overloaded: f64) -> impl FnMut(f64, Length) -> Result<Went> {
        move |part, length| {
            let limit = if length == Length::Full { for_long } else { limit };
            Ok(Went { well: part <= limit, through: part.min(limit * overloaded) })
        }
    }

    #[test]
    fn the_highest_rate_is_found_to_the_resolution_in_a_few_trials() {
        for limit in [1.0, 0.999, 0.5, 0.123_456, 0.02, 0.001] {
            for resolution in [0.1, 0.01, 0.001] {
                for overloaded in [1.0, 0.5, 0.0] {
                    let (mut trials, mut device) = (0, device(limit, limit, overloaded));
                    let found = highest(resolution, |part, length| {
                        trials += 1;
                        device(part, length)
                    });
                    let found = found.unwrap().unwrap();
                    let error = (limit - found) / limit;
                    assert!(
                        (0.0..=resolution * 1.2).contains(&error),
                        "{found} of {limit}, {resolution}, {overloaded}"
                    );
                    assert!(trials <= 24, "{trials} trials for {limit}, {resolution}, {overloaded}");
                }
            }
        }
    }

    #[test]
    fn a_device_that_carries_everything_takes_two_trials() {
        let mut tried = Vec::new();
        let found = highest(0.01, |part, length| {
            tried.push((part, length));
            Ok(Went { well: true, through: part })
        });
        assert_eq!(found.unwrap(), Some(1.0));
        assert_eq!(tried, [(1.0, Length::Short), (1.0, Length::Full)]);
    }

    #[test]
    fn what_came_through_an_overload_is_close_to_the_limit() {
        for (limit, through) in [(0.15, 1.005), (0.15, 0.995), (0.7, 1.0), (0.02, 0.99)] {
            let (mut trials, mut device) = (0, device(limit, limit, through));
            let found = highest(0.01, |part, length| {
                trials += 1;
                device(part, length)
            });
            let error = (limit - found.unwrap().unwrap()) / limit;
            assert!(
                (0.0..=0.011).contains(&error) && trials <= 6,
                "{trials} for {limit}, {through}: {error}"
            );
        }
    }

    #[test]
    fn what_holds_only_for_a_while_is_not_reported() {
        let found = highest(0.01, device(0.8, 0.5, 1.0)).unwrap().unwrap();
        // Steps double: it is no more than twice as far below as it has to be.
        assert!((0.2..=0.5).contains(&found), "{found}");
        let found = highest(0.01, device(0.8, 0.79, 1.0)).unwrap().unwrap();
        assert!((0.77..=0.79).contains(&found), "{found}");
    }

    #[test]
    fn a_device_that_carries_nothing_has_no_rate_and_errors_end_the_search() {
        assert_eq!(highest(0.01, device(0.0, 0.0, 0.0)).unwrap(), None);
        assert_eq!(highest(0.01, device(1.0, 0.0, 0.0)).unwrap(), None);
        assert!(highest(0.01, |_, _| anyhow::bail!("the port has vanished")).is_err());
    }

    #[test]
    fn frame_loss_is_measured_down_to_two_rates_without() {
        let tried = |limit: f64| {
            let mut tried = Vec::new();
            tenths(|part| {
                tried.push((part * 10.0).round() as u32);
                Ok(part <= limit)
            })
            .unwrap();
            tried
        };
        assert_eq!(tried(1.0), [10, 9]);
        assert_eq!(tried(0.75), [10, 9, 8, 7, 6]);
        assert_eq!(tried(0.0), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        // One rate without loss above others with is no end.
        let mut tried = 0;
        tenths(|part| {
            tried += 1;
            Ok(!(0.55..=0.95).contains(&part))
        })
        .unwrap();
        assert_eq!(tried, 7);
    }
}
