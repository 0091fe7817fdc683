//! Combinations, bounds, names and prices.

use proptest::prelude::*;

use super::*;

fn counting(metric: Metric, limit: u64, window: &str) -> Counting {
    let window = (!window.is_empty())
        .then(|| Span(crate::domain::parse_duration(window).expect("a duration")));
    let limit = match metric {
        Metric::Cost => Amount::Money(Money(limit)),
        _ => Amount::Count(limit),
    };
    Counting { metric, algorithm: None, limit, burst: None, window, degraded: None, hard: false }
}

fn flaws(counting: &Counting) -> Vec<(Option<&'static str>, String)> {
    let flaws = counted(counting).expect_err("it is refused");
    flaws.into_iter().map(|flaw| (flaw.field, flaw.what)).collect()
}

#[test]
fn a_window_has_about_sixty_slots_and_is_never_shorter_than_asked() {
    for (window, slot_ms, slots) in
        [("1m", 1_000, 60), ("1h", 60_000, 60), ("100ms", 2, 50), ("32d", 46_080_000, 60)]
    {
        let found = counted(&counting(Metric::Requests, 5, window)).expect("it is good");
        let expected = Counted { algorithm: Algorithm::Window { slot_ms, slots }, limit: 5 };
        assert_eq!(found, expected, "{window}");
    }
}

#[test]
fn concurrency_counts_permits_and_has_no_window() {
    let found = counted(&counting(Metric::Concurrency, 0, "")).expect("it is good");
    assert_eq!(found, Counted { algorithm: Algorithm::Permits, limit: 0 });
    let mut all = counting(Metric::Concurrency, 5, "1m");
    all.algorithm = Some(Word::TokenBucket);
    all.burst = Some(Amount::Count(1));
    let fields: Vec<_> = flaws(&all).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, [Some("algorithm"), Some("burst"), Some("window")]);
}

#[test]
fn every_other_metric_needs_a_window() {
    let missing = (None, "missing field `window`, within how long".to_owned());
    assert_eq!(flaws(&counting(Metric::Tokens, 5, "")), [missing]);
    for window in ["99ms", "0s", "33d"] {
        let found = flaws(&counting(Metric::Tokens, 5, window));
        assert_eq!(found, [(Some("window"), "not from 100ms to 32d".to_owned())], "{window}");
    }
}

#[test]
fn a_burst_is_the_limit_unless_it_is_given_and_only_for_buckets() {
    let mut bucket = counting(Metric::Cost, 5, "1m");
    bucket.algorithm = Some(Word::TokenBucket);
    let expect = |burst| Algorithm::Bucket { window_ms: 60_000, burst };
    assert_eq!(counted(&bucket).map(|c| c.algorithm), Ok(expect(5)));
    bucket.burst = Some(Amount::Money(Money(0)));
    assert_eq!(counted(&bucket).map(|c| c.algorithm), Ok(expect(0)));
    bucket.burst = Some(Amount::Count(9));
    assert_eq!(flaws(&bucket)[0].0, Some("burst"));
    bucket.burst = Some(Amount::Money(Money(9)));
    bucket.algorithm = None;
    assert_eq!(flaws(&bucket), [(Some("burst"), "only a token_bucket has a burst".to_owned())]);
}

#[test]
fn amounts_and_products_that_a_double_cannot_hold_are_refused() {
    let most = (1 << 48) - 1;
    for metric in [Metric::Requests, Metric::Cost, Metric::Concurrency] {
        let window = if metric == Metric::Concurrency { "" } else { "32d" };
        assert_eq!(counted(&counting(metric, most, window)).map(|c| c.limit), Ok(most));
        assert_eq!(flaws(&counting(metric, most + 1, window))[0].0, Some("limit"));
        assert_eq!(flaws(&counting(metric, u64::MAX, window))[0].0, Some("limit"));
    }
    let mut bucket = counting(Metric::Tokens, (1 << 52) / 60_000, "1m");
    bucket.algorithm = Some(Word::TokenBucket);
    assert!(counted(&bucket).is_ok());
    bucket.limit = Amount::Count((1 << 52) / 60_000 + 1);
    assert_eq!(flaws(&bucket)[0].0, Some("limit"));
    bucket.burst = Some(Amount::Count(1));
    assert_eq!(flaws(&bucket)[0].0, Some("limit"));
    bucket.limit = Amount::Count(1);
    bucket.burst = Some(Amount::Count((1 << 52) / 60_000 + 1));
    assert_eq!(flaws(&bucket)[0].0, Some("burst"));
}

#[test]
fn a_price_is_exactly_what_is_written() {
    for (usd, pico) in [
        (0.15, 150_000),
        (0.6, 600_000),
        (0.0, 0),
        (2.5, 2_500_000),
        (1.1, 1_100_000),
        (0.000_001, 1),
        (99_999.999_999, 99_999_999_999),
        (100_000.0, 100_000_000_000),
    ] {
        assert_eq!(price(usd), Ok(pico), "{usd}");
    }
    for usd in [-1.0, -0.0001, 100_000.01, 1e300, f64::INFINITY, f64::NAN] {
        assert!(price(usd).is_err_and(|what| what.contains("absurd")), "{usd}");
    }
    for usd in [0.000_000_1, 0.1 + 0.2] {
        assert!(price(usd).is_err_and(|what| what.contains("decimals")), "{usd}");
    }
}

#[test]
fn a_target_s_limit_is_named_after_what_it_is() {
    let limit = |metric, window: &str, name: Option<&str>| TargetLimit {
        name: name.map(str::to_owned),
        metric,
        algorithm: None,
        limit: Amount::Count(1),
        burst: None,
        window: (!window.is_empty())
            .then(|| Span(crate::domain::parse_duration(window).expect("a duration"))),
        mode: None,
        degraded: None,
        hard: None,
        durability: None,
    };
    assert_eq!(name_of("gpt", &limit(Metric::Tokens, "60s", None)), "gpt/tokens/1m");
    assert_eq!(name_of("gpt", &limit(Metric::InputTokens, "90s", None)), "gpt/input_tokens/90s");
    assert_eq!(name_of("gpt", &limit(Metric::Cost, "1500ms", None)), "gpt/cost/1500ms");
    assert_eq!(name_of("gpt", &limit(Metric::Requests, "48h", None)), "gpt/requests/2d");
    assert_eq!(name_of("gpt", &limit(Metric::Concurrency, "", None)), "gpt/concurrency");
    assert_eq!(name_of("gpt", &limit(Metric::Concurrency, "", Some("own"))), "own");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_window_s_slots_cover_it_and_waste_less_than_a_slot(ms in 100..=32 * 86_400_000_u64) {
        let Algorithm::Window { slot_ms, slots } = window(ms) else { unreachable!() };
        let covered = slot_ms * u64::from(slots);
        prop_assert!(covered >= ms && covered - ms < slot_ms && (30..=60).contains(&slots));
    }

    #[test]
    fn every_price_of_six_decimals_is_kept_exactly(pico in 0..=100_000_000_000_u64) {
        let text = format!("{}.{:06}", pico / 1_000_000, pico % 1_000_000);
        prop_assert_eq!(price(text.parse().expect("a number")), Ok(pico));
    }

    #[test]
    fn a_share_is_never_more_than_the_whole(amount in 0..1_u64 << 48, share in 0.0..=1.0_f64) {
        prop_assert!(share_of(amount, share) <= amount);
    }
}
