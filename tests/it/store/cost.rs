//! What an admission costs Redis; prints, and judges only where it is asked to.

use std::io::Write;
use std::sync::Arc;

use flotilla::policy::limit::{Admit, Algorithm, Batch, Bill, Counts, Row, Verdict};

use super::world::{admit, charge, local, rule, settle, shape};
use crate::support::redis::{Server, prefix};

/// Rounds of a run, each of 2,000 admissions.
const ROUNDS: u64 = 3;
const ADMITS: f64 = 6_000.0;

/// Six limits in three scopes: two windows of the tenant, two of the key, the budget, and permits;
/// what is reserved is carried by the member.
fn six(now: u64, tenant: u64, key: u64) -> Admit {
    let minute = Algorithm::Window { slot_ms: 1_000, slots: 60 };
    let hour = Algorithm::Budget { start_ms: now - 40_000_000, end_ms: now + 40_000_000 };
    let bucket = Algorithm::Bucket { window_ms: 60_000, burst: 100_000_000 };
    let mut admit = admit(&[]);
    admit.tag = format!("t:tenant-{tenant}").into();
    admit.scopes = vec!["tenant".into(), format!("key=key-{key}").into(), "budget".into()];
    let many = 1_000_000_000;
    admit.charges = vec![
        charge(0, rule(b"l0000001", minute, many), 1),
        charge(0, rule(b"l0000002", minute, many), 700),
        charge(1, rule(b"l0000003", minute, many), 700),
        charge(1, rule(b"l0000004", bucket, many), 1),
        charge(2, rule(b"l0000005", hour, many), 4_000),
        charge(0, rule(b"l0000006", Algorithm::Permits, 1_000), 1),
    ];
    let name = |name: &str| Arc::from(name);
    let key = format!("key-{key}").into();
    let row =
        Row { key, pool: name("default"), target: name("openai-main"), model: name("gpt-5-mini") };
    let estimate =
        Counts { requests: 1, input_tokens: 500, output_tokens: 200, ..Counts::default() };
    admit.bill = Some(Bill { row, estimate });
    admit
}

#[test]
#[ignore = "measures: run it alone, with --nocapture, on a quiet machine"]
fn an_admission_under_six_limits_costs_redis_at_most_35_microseconds() {
    local(async {
        let server = Server::start();
        let redis = flotilla::store::redis::Redis::open(
            &super::world::config(&server.url()),
            &shape(&prefix()),
        )
        .expect("a good URL");
        let now = server.now_ms();
        let (mut admits, mut settles) = (f64::MAX, f64::MAX);
        let mut number = 0;
        for run in 0..10_u32 {
            let () = server.ask(&["CONFIG", "RESETSTAT"]);
            let mut settled = 0.0;
            for round in 0..ROUNDS {
                // 2,000 admissions over 100 tenants of 10 keys each, 20 of a tenant in flight.
                let asked: Vec<_> =
                    (0..2_000).map(|i| six(now, i % 100, (i + round) % 10)).collect();
                for group in asked.chunks(32) {
                    let answers = futures_util::future::join_all(
                        group.iter().map(|admit| redis.admit(admit)),
                    );
                    for answer in answers.await {
                        let verdict = answer.expect("redis answers").verdict;
                        assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
                    }
                }
                let before = evalsha(&server);
                for tenant in 0..100 {
                    number += 1;
                    let tag: Arc<str> = format!("t:tenant-{tenant}").into();
                    let of = asked.iter().filter(|admit| admit.tag == tag);
                    let settles =
                        of.map(|admit| settle(admit, &[1, 500, 500, 1, 3_000, 0])).collect();
                    let batch = Batch { tag, incarnation: 1, number, settles, usage: Vec::new() };
                    redis.apply(&batch).await.expect("redis answers");
                }
                let after = evalsha(&server);
                settled += after.1 - before.1;
            }
            let (calls, total) = evalsha(&server);
            let per_admit = (total - settled) / ADMITS;
            admits = admits.min(per_admit);
            settles = settles.min(settled / ADMITS);
            let per_settle = settled / ADMITS;
            say(&format!(
                "run {run}: {calls} calls, {per_admit:.1} us an admission, {per_settle:.1} us a truth"
            ));
        }
        say(&format!("least: {admits:.1} us an admission, {settles:.1} us a truth"));
        assert!(admits <= 35.0);
    });
}

fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr is open");
}

/// Calls and microseconds of all scripts so far.
fn evalsha(server: &Server) -> (u64, f64) {
    let info: String = server.ask(&["INFO", "commandstats"]);
    let line = info.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
    let field = |name: &str| {
        let field = line.split([':', ',']).find_map(|field| field.strip_prefix(name));
        field.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0)
    };
    (field("calls=") as u64, field("usec="))
}
