use proptest::prelude::*;

use super::*;

/// The reference: every admission with its time, and nothing else.
#[derive(Default)]
struct Log(Vec<(u64, u64)>);

impl Log {
    fn sum(&self, from: u64, to: u64) -> u64 {
        self.0.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, amount)| amount).sum()
    }
}

fn at(window: &Window, now: u64) -> Window {
    let mut window = window.clone();
    window.advance(now);
    window
}

#[test]
fn a_full_window_frees_what_leaves_it_slot_by_slot() {
    let mut window = Window::new(1_000, 10, 0, 100_500);
    assert_eq!(window.fits(5, 3, 100_500), Ok(2));
    assert_eq!(window.charge(3), 100);
    window.advance(101_500);
    assert_eq!(window.charge(2), 101);
    let later = Misfit { wait_ms: Some(111_000 - 101_500), left: 0 };
    assert_eq!(window.fits(5, 1, 101_500), Err(later));
    let last = Misfit { wait_ms: Some(112_000 - 101_500), left: 0 };
    assert_eq!(window.fits(5, 4, 101_500), Err(last));
    assert_eq!(at(&window, 110_999).used(), 5);
    assert_eq!(at(&window, 111_000).used(), 2);
    assert_eq!(at(&window, 112_000).used(), 0);
    assert_eq!(window.empty_at(), 112_000);
}

#[test]
fn what_is_above_the_limit_never_fits_and_a_limit_of_nothing_refuses_all() {
    let window = Window::new(1_000, 10, 0, 0);
    assert_eq!(window.fits(5, 6, 0), Err(Misfit { wait_ms: None, left: 5 }));
    assert_eq!(window.fits(0, 0, 0), Err(Misfit { wait_ms: None, left: 0 }));
}

#[test]
fn a_lower_limit_keeps_the_count() {
    let mut window = Window::new(1_000, 10, 0, 0);
    window.charge(8);
    assert_eq!(window.fits(4, 1, 0), Err(Misfit { wait_ms: Some(11_000), left: 0 }));
    assert_eq!(window.fits(20, 1, 0), Ok(11));
}

#[test]
fn a_clock_that_goes_back_leaves_the_newest_slot_where_it_is() {
    let mut window = Window::new(1_000, 10, 0, 50_000);
    window.charge(5);
    window.advance(45_000);
    assert_eq!((window.head(), window.used()), (50, 5));
    assert_eq!(window.charge(1), 50);
    assert_eq!(at(&window, 60_999).used(), 6, "no earlier than from the slot that it counts in");
    assert_eq!(at(&window, 61_000).used(), 0);
}

#[test]
fn a_clock_that_was_far_ahead_takes_the_total_along() {
    let mut window = Window::new(1_000, 10, 0, 49_000);
    window.charge(2);
    window.advance(50_000);
    window.charge(5);
    window.advance(39_999);
    assert_eq!((window.head(), window.used()), (39, 7));
    assert_eq!(at(&window, 49_999).used(), 7);
    assert_eq!(at(&window, 50_000).used(), 0);
}

#[test]
fn a_correction_goes_to_the_slot_that_was_charged() {
    let mut window = Window::new(1_000, 10, 0, 0);
    let slot = window.charge(8);
    window.advance(5_000);
    window.charge(1);
    window.correct(Some(slot), -3);
    assert_eq!(window.used(), 6);
    assert_eq!(at(&window, 11_000).used(), 1, "what is left of the first slot leaves with it");
    window.correct(Some(slot), -100);
    assert_eq!(window.used(), 1, "no slot goes below nothing");
}

#[test]
fn of_a_slot_that_has_left_a_refund_is_dropped_and_an_excess_counts_now() {
    let mut window = Window::new(1_000, 10, 0, 0);
    let slot = window.charge(8);
    window.advance(20_000);
    window.charge(1);
    window.correct(Some(slot), -3);
    assert_eq!(window.used(), 1);
    window.correct(Some(slot), 4);
    assert_eq!(window.used(), 5);
    assert_eq!(at(&window, 30_999).used(), 5);
    assert_eq!(at(&window, 31_000).used(), 0);
}

proptest! {
    #[test]
    fn no_true_window_ever_has_more_than_the_limit_and_waits_are_exact(
        slot_ms in 1_u64..2_000,
        slots in 1_u32..70,
        limit in 1_u64..500,
        steps in prop::collection::vec((0_u64..5_000, 0_u64..120), 1..200),
    ) {
        let mut now = 1_000_000;
        let mut window = Window::new(slot_ms, slots, 0, now);
        let length = slot_ms * u64::from(slots);
        let mut log = Log::default();
        for (pause, amount) in steps {
            now += pause;
            window.advance(now);
            match window.fits(limit, amount, now) {
                Ok(left) => {
                    window.charge(amount);
                    log.0.push((now, amount));
                    prop_assert_eq!(left, limit - window.used());
                    prop_assert!(log.sum(now - length, now) <= limit);
                }
                Err(misfit) => {
                    // What the ring counts beyond the true window is one slot at most.
                    let counted = log.sum(now - length - slot_ms, now);
                    prop_assert!(counted + amount > limit, "refused without need");
                    match misfit.wait_ms {
                        None => prop_assert!(amount > limit),
                        Some(wait) => {
                            prop_assert!(at(&window, now + wait).fits(limit, amount, now + wait).is_ok());
                            let early = now + wait - 1;
                            prop_assert!(at(&window, early).fits(limit, amount, early).is_err());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn under_saturating_demand_a_limit_is_used_but_for_one_slot(
        slot_ms in 1_u64..40,
        slots in 1_u32..20,
        limit in 1_u64..60,
        per_ms in 1_u64..8,
    ) {
        let span = slot_ms * (u64::from(slots) + 1);
        // A demand that could not fill the limit in a window saturates nothing.
        prop_assume!(per_ms * slot_ms * u64::from(slots) >= limit);
        let begin = 1_000_000;
        let mut window = Window::new(slot_ms, slots, 0, begin);
        let mut log = Log::default();
        for now in begin..begin + 4 * span {
            for _ in 0..per_ms {
                window.advance(now);
                if window.fits(limit, 1, now).is_ok() {
                    window.charge(1);
                    log.0.push((now, 1));
                }
            }
        }
        // In any S + 1 slots the whole limit, so in any window at least S / (S + 1) of it.
        for from in begin..begin + 3 * span {
            prop_assert!(log.sum(from, from + span - 1) >= limit);
        }
    }

    #[test]
    fn the_total_is_the_sum_of_the_slots_whatever_happens(
        slot_ms in 1_u64..500,
        slots in 1_u32..20,
        steps in prop::collection::vec((-20_000_i64..20_000, 0_u64..100, any::<bool>(), -150_i64..150), 1..100),
    ) {
        let mut now = 1_000_000_u64;
        let mut window = Window::new(slot_ms, slots, 0, now);
        let mut charged = Vec::new();
        for (step, amount, correct, difference) in steps {
            now = now.saturating_add_signed(step);
            window.advance(now);
            if correct && let Some(slot) = charged.pop() {
                window.correct(Some(slot), difference);
            } else {
                charged.push(window.charge(amount));
            }
            let oldest = window.oldest();
            let sum: u64 = (oldest..=window.head).map(|slot| window.count(slot)).sum();
            prop_assert_eq!(sum, window.used());
        }
    }
}
