use super::check::{Report, check};
use super::simulate::{Broken, Weather, simulate};

fn judged(seed: u64, broken: Broken, weather: Weather) -> Report {
    check(&simulate(seed, broken, weather))
}

#[test]
fn histories_of_a_correct_limiter_pass() {
    for seed in 0..12 {
        let weather = Weather { kills: seed % 3 == 1, empties: seed % 4 == 2 };
        let history = simulate(seed, Broken::Nothing, weather);
        check(&history).assert_good(&history);
    }
}

#[test]
fn the_histories_try_what_they_are_to_try() {
    let history = simulate(7, Broken::Nothing, Weather::default());
    let report = check(&history);
    for measured in report.measured.iter().filter(|it| !it.limit.starts_with("all")) {
        assert!(measured.refusals > 30, "{} refuses too seldom:\n{report}", measured.limit);
        assert!(measured.fullest > 0.5, "{} is never full:\n{report}", measured.limit);
    }
    let requests = &report.measured[0];
    assert!(requests.saturated.is_some_and(|share| share > 0.85), "{report}");
}

/// Each seed must be caught, and for the right reason.
fn is_caught(broken: Broken, reasons: &[&str]) {
    for seed in 100..103 {
        let wrong = judged(seed, broken, Weather::default()).wrong();
        assert!(!wrong.is_empty(), "{broken:?} with seed {seed} is not caught");
        for reason in reasons {
            let named = wrong.iter().any(|it| it.contains(reason));
            assert!(named, "{broken:?} with seed {seed} is not caught by {reason}: {wrong:?}");
        }
    }
}

#[test]
fn a_limiter_that_admits_too_much_is_caught() {
    is_caught(Broken::AdmitsOneTooMany, &["requests: 41 were surely taken where 40"]);
    is_caught(Broken::ForgetsEarly, &["requests: ", "tokens: "]);
    is_caught(Broken::CountsNodesApart, &["requests: ", "tokens: ", "bucket: ", "permits: "]);
}

#[test]
fn a_limiter_that_refuses_too_much_is_caught() {
    is_caught(Broken::RefusesOneTooMany, &["refusals: refused by"]);
    is_caught(Broken::ForgetsLate, &["refusals: refused by"]);
}

#[test]
fn a_limiter_that_leaks_permits_is_caught() {
    is_caught(Broken::LeaksPermits, &["permits: stands at", "refused by concurrency_limited"]);
}

#[test]
fn a_limiter_that_charges_refusals_is_caught() {
    is_caught(Broken::ChargesRefusals, &["refusals: refused by"]);
}

#[test]
fn a_limiter_that_settles_twice_or_never_is_caught() {
    is_caught(Broken::SettlesTwice, &["all tokens: stands at", "usage: the row", "tokens: "]);
    is_caught(Broken::NeverSettles, &["all tokens: stands at", "usage: the row"]);
}
