//! When a busy process lets others run who wait for its core.
//!
//! It does between two turns, for whoever reads what one turn wrote has a socket that holds no more
//! than a few hundred packets. The kernel counts what is left of a slice of time as used. Beside one
//! that never sleeps that would be nearly all of it; so such a one is not let run again for a while.

/// Whoever keeps the core for longer, in seconds, than the readers of one turn's packets would, is
/// somebody else: for so many times as long nobody is let run.
const LONG_WAIT: f64 = 0.002;
const KEEPING: f64 = 10.0;

/// What one process has met with.
#[derive(Default)]
pub struct Courtesy {
    /// Until this time nobody is let run.
    keeps_until: f64,
}

impl Courtesy {
    /// Call `let_run`, which returns when the core is ours again, unless it is too early for that.
    /// `clock`: seconds.
    pub fn give_way(&mut self, clock: impl Fn() -> f64, let_run: impl FnOnce()) {
        let before = clock();
        if before < self.keeps_until {
            return;
        }
        let_run();
        let after = clock();
        if after - before > LONG_WAIT {
            self.keeps_until = after + KEEPING * (after - before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A process whose turns take 1 ms, beside others that keep the core for `wait` seconds each
    /// time; return in which of its first turns' ends they ran.
    fn others_ran(wait: f64, turns: usize) -> Vec<bool> {
        let (mut courtesy, now) = (Courtesy::default(), Cell::new(1000.0));
        let turn = |_| {
            now.set(now.get() + 0.001);
            let ran = Cell::new(false);
            courtesy.give_way(
                || now.get(),
                || {
                    now.set(now.get() + wait);
                    ran.set(true);
                },
            );
            ran.get()
        };
        (0..turns).map(turn).collect()
    }

    #[test]
    fn those_who_sleep_again_soon_run_after_every_turn() {
        for wait in [0.0, 0.0001, 0.0019] {
            assert_eq!(others_ran(wait, 100), [true; 100], "{wait}");
        }
    }

    #[test]
    fn one_that_never_sleeps_gets_a_tenth_of_our_time() {
        for (wait, kept) in [(0.0031, 31), (0.0041, 41), (0.1001, 1001)] {
            let mut ends = vec![true];
            ends.extend(vec![false; kept]);
            let twice = [ends.clone(), ends].concat();
            assert_eq!(others_ran(wait, twice.len()), twice, "{wait}");
        }
    }
}
