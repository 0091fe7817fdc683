//! Refusals as clients read them: status, code, when to come again.

use std::time::{Duration, Instant};

use super::rig::Rig;
use crate::support::crowd::{Answer, Wish};
use crate::support::eventually::eventually;
use crate::support::wall::DEADLINE;

const LIMITS: &str = r#"tenants:
  rpm: {}
  tpm: {}
  usd: {}
  slots: {}
  budget: { budget: { limit: "0.0002 USD", period: month } }
keys:
  - { name: rpm, tenant: rpm, key: "sk-rpm" }
  - { name: tpm, tenant: tpm, key: "sk-tpm" }
  - { name: usd, tenant: usd, key: "sk-usd" }
  - { name: slots, tenant: slots, key: "sk-slots" }
  - { name: budget, tenant: budget, key: "sk-budget" }
limits:
  - { name: rpm, scope: { tenant: rpm }, metric: requests, limit: 2, window: 3s, degraded: fail_closed }
  - { name: tpm, scope: { tenant: tpm }, metric: tokens, limit: 1000, window: 3s, degraded: fail_closed }
  - { name: usd, scope: { tenant: usd }, metric: cost, limit: "0.002 USD", window: 3s, degraded: fail_closed }
  - { name: slots, scope: { tenant: slots }, metric: concurrency, limit: 1, degraded: fail_closed }
"#;

impl Answer {
    fn number(&self, name: &str) -> Option<u64> {
        self.head.header(name).map(|value| value.parse().expect("a whole number"))
    }
}

// T22
#[tokio::test]
async fn each_refusal_says_what_it_is_and_when_to_come_again() {
    let rig = Rig::start(2, 0, LIMITS);
    let crowd = &rig.crowd;
    let ask = |key: &str, most| crowd.ask(crowd.any(), Wish::of(key).tokens(most, most));
    let slots = Wish::of("sk-slots").held(Duration::from_millis(1500));
    let held = async { crowd.ask(0, slots).await.expect("an answer") };
    let table = async {
        for (key, most, served, code) in [
            ("sk-rpm", 1, 2, "rate_limited"),
            ("sk-tpm", 600, 1, "tokens_limited"),
            ("sk-usd", 600, 1, "cost_limited"),
            ("sk-budget", 60, 1, "budget_exceeded"),
            ("sk-slots", 1, 0, "concurrency_limited"),
        ] {
            if key == "sk-slots" {
                eventually(DEADLINE, || rig.permits() == 1).await;
            }
            for _ in 0..served {
                let answer = ask(key, most).await.expect("an answer");
                assert_eq!(answer.head.status, 200, "{key}: {}", answer.code());
            }
            let answer = ask(key, most).await.expect("an answer");
            assert_eq!((answer.head.status, answer.code().as_str()), (429, code), "{key}");
            let (seconds, ms) = (answer.number("retry-after"), answer.number("retry-after-ms"));
            let ms = ms.expect("how long to wait");
            assert_eq!(seconds, Some(ms.div_ceil(1000)), "{key}: rounded up");
            match code {
                "budget_exceeded" => {
                    assert_eq!(answer.head.header("x-should-retry"), Some("false"));
                    assert!(ms <= 31 * 86_400_000, "{ms}");
                }
                "concurrency_limited" => assert_eq!(ms, 1000),
                _ => {
                    assert!((1..=3100).contains(&ms), "{key}: {ms}");
                    assert_eq!(answer.head.header("x-should-retry"), None);
                }
            }
        }
    };
    let (held, ()) = tokio::join!(held, table);
    assert_eq!(held.head.status, 200);

    // More than all of it: no retry helps.
    for (key, most) in [("sk-tpm", 5000), ("sk-usd", 5000)] {
        let answer = ask(key, most).await.expect("an answer");
        let told = (answer.head.status, answer.code());
        assert_eq!(told, (413, "request_exceeds_limit".into()), "{key}");
        assert_eq!(answer.head.header("retry-after"), None, "{key}");
    }
}

// T22
#[tokio::test]
async fn retry_after_is_exact_for_requests() {
    let rig = Rig::start(2, 0, LIMITS);
    let crowd = &rig.crowd;
    let ask = || async { crowd.ask(crowd.any(), Wish::of("sk-rpm")).await.expect("an answer") };
    let first = ask().await;
    assert_eq!(first.number("x-ratelimit-limit-requests"), Some(2));
    assert_eq!(first.number("x-ratelimit-remaining-requests"), Some(1));
    assert!(first.head.header("x-ratelimit-reset-requests").is_some());
    assert_eq!(ask().await.number("x-ratelimit-remaining-requests"), Some(0));
    let asked = Instant::now();
    let refused = ask().await;
    let answered = Instant::now();
    assert_eq!(refused.number("x-ratelimit-remaining-requests"), Some(0));
    let wait = Duration::from_millis(refused.number("retry-after-ms").expect("a time"));

    // Not before, though nothing else is asked for; and then at once.
    let early = asked + wait - Duration::from_millis(150);
    tokio::time::sleep_until(early.into()).await;
    let answer = ask().await;
    if Instant::now() < asked + wait {
        assert_eq!(answer.head.status, 429, "it came too early");
    }
    tokio::time::sleep_until((answered + wait + Duration::from_millis(5)).into()).await;
    assert_eq!(ask().await.head.status, 200, "it waited as long as it was told");
}
