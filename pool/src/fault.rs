//! Failures on order, for the tests of what a failure leaves behind.

/// Whether the step that asks is to fail. Never, outside of this crate's own tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn here() -> bool {
    false
}

#[cfg(test)]
pub(crate) use ordered::here;
#[cfg(all(test, not(loom)))]
pub(crate) use ordered::in_steps;

#[cfg(test)]
mod ordered {
    use std::cell::Cell;

    thread_local! {
        /// Steps that this thread still takes before one fails.
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub(crate) fn here() -> bool {
        let left = LEFT.get();
        LEFT.set(left.map(|left| left.wrapping_sub(1)));
        left == Some(0)
    }

    /// Run `attempt` with its first step failing, then with its second, and so on until it comes to its end. Returns what it
    /// made, and how many steps there were.
    #[cfg(not(loom))]
    pub(crate) fn in_steps<T, E>(mut attempt: impl FnMut() -> Result<T, E>, check: impl Fn(E)) -> (T, usize) {
        for steps in 0.. {
            LEFT.set(Some(steps));
            let made = attempt();
            LEFT.set(None);
            match made {
                Ok(made) => return (made, steps),
                Err(error) => check(error),
            }
        }
        unreachable!("a creation has an end")
    }
}
