//! What happens to calls when Redis stops, dies, forgets its scripts, or refuses.

use std::time::{Duration, Instant};

use flotilla::policy::limit::{Applied, Batch, Verdict};
use flotilla::store::connection::{Config, Error};
use flotilla::store::redis::Redis;

use super::world::{admit, config, local, settle, shape, window};
use crate::support::eventually::eventually;
use crate::support::redis::{Kind, Server, prefix};

/// How long recovery may take.
const RECOVERY: Duration = Duration::from_secs(5);

/// On the server's own clock, with the deadline of the settings.
fn strict(server: &Server) -> (Redis, String) {
    let prefix = prefix();
    let config = Config { deadline: Duration::from_millis(50), ..config(&server.url()) };
    (Redis::open(&config, &shape(&prefix)).expect("a good URL"), prefix)
}

/// Admits one of a window of 1,000, as soon as Redis is there again.
async fn recovers(redis: &Redis) -> Duration {
    let start = Instant::now();
    loop {
        let admit = admit(&[(window(1_000), 1)]);
        if redis.admit(&admit).await.is_ok() {
            return start.elapsed();
        }
        assert!(start.elapsed() < 2 * RECOVERY, "redis is up, and nobody asks it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many scripts ran.
fn calls(server: &Server) -> u64 {
    let info: String = server.ask(&["INFO", "commandstats"]);
    let count = info.split("cmdstat_evalsha:calls=").nth(1).and_then(|rest| rest.split(',').next());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn total(server: &Server, prefix: &str) -> usize {
    server.keys(prefix).len()
}

#[test]
fn scripts_that_were_flushed_are_loaded_again_by_the_calls_that_miss_them() {
    local(async {
        let server = Server::start();
        let redis = Redis::open(&config(&server.url()), &shape(&prefix())).expect("a good URL");
        for _ in 0..3 {
            let () = server.ask(&["SCRIPT", "FLUSH"]);
            let admits: Vec<_> = (0..100).map(|_| admit(&[(window(1_000), 1)])).collect();
            let answers = admits.iter().map(|admit| redis.admit(admit));
            for answer in futures_util::future::join_all(answers).await {
                let verdict = answer.expect("redis answers").verdict;
                assert!(matches!(verdict, Verdict::Admitted(_)), "{verdict:?}");
            }
        }
        let asked = [("tenant".into(), window(1_000))];
        assert_eq!(redis.standing("t:acme", &asked).await.expect("an answer")[0].used, 300);
    });
}

#[test]
fn calls_that_were_given_up_run_later_and_change_nothing() {
    local(async {
        let server = Server::start();
        let (redis, prefix) = strict(&server);
        recovers(&redis).await;
        let before = total(&server, &prefix);
        let asked = [("tenant".into(), window(1_000))];
        let used = redis.standing("t:acme", &asked).await.expect("an answer")[0].used;
        let before_calls = calls(&server);
        server.pause();
        let start = Instant::now();
        let first = admit(&[(window(1_000), 7)]);
        let error = redis.admit(&first).await.expect_err("it is silent");
        let Error::InDoubt { until } = error else { panic!("{error:?}") };
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        eventually(RECOVERY, || Instant::now() > until).await;
        server.resume();
        recovers(&redis).await;
        // Both copies of what was given up have run, and what was admitted since.
        eventually(RECOVERY, || calls(&server) >= before_calls + 3).await;
        let now_used = redis.standing("t:acme", &asked).await.expect("an answer")[0].used;
        assert_eq!(now_used, used + 1, "only what was admitted since");
        assert_eq!(total(&server, &prefix), before);
    });
}

#[test]
fn a_silent_redis_is_soon_asked_no_more_and_asked_again_when_it_is_back() {
    local(async {
        let server = Server::start();
        let (redis, _) = strict(&server);
        recovers(&redis).await;
        server.pause();
        let mut unasked = 0;
        for _ in 0..6 {
            let start = Instant::now();
            let error = redis.admit(&admit(&[(window(10), 1)])).await.expect_err("it is silent");
            if error == Error::Away {
                unasked += 1;
                assert!(start.elapsed() < Duration::from_millis(40), "{:?}", start.elapsed());
            }
        }
        assert!(unasked >= 3 && !redis.is_up("t:acme"), "{unasked} of 6 were not asked");
        server.resume();
        assert!(recovers(&redis).await < RECOVERY);
        assert!(redis.is_up("t:acme"));
    });
}

#[test]
fn a_redis_that_was_killed_is_found_again_on_its_port() {
    local(async {
        let mut server = Server::start();
        let (redis, _) = strict(&server);
        recovers(&redis).await;
        for _ in 0..2 {
            server.kill();
            for _ in 0..5 {
                let start = Instant::now();
                let answer = redis.admit(&admit(&[(window(10), 1)])).await;
                assert!(answer.is_err() && start.elapsed() < Duration::from_millis(500));
            }
            server.restart();
            assert!(recovers(&redis).await < RECOVERY);
        }
    });
}

#[test]
fn a_redis_that_keeps_its_data_keeps_the_counts_over_a_crash() {
    local(async {
        let settings = ["--appendonly", "yes", "--appendfsync", "always"];
        let mut server = Server::start_as(Kind::Redis7, &settings);
        let (redis, _) = strict(&server);
        recovers(&redis).await;
        server.kill();
        server.restart();
        recovers(&redis).await;
        let asked = [("tenant".into(), window(1_000))];
        assert_eq!(redis.standing("t:acme", &asked).await.expect("an answer")[0].used, 2);
    });
}

#[test]
fn a_batch_that_is_sent_again_changes_nothing() {
    local(async {
        let server = Server::start();
        let redis = Redis::open(&config(&server.url()), &shape(&prefix())).expect("a good URL");
        let admit = admit(&[(window(1_000), 10)]);
        redis.admit(&admit).await.expect("redis answers");
        let batch = Batch {
            tag: admit.tag.clone(),
            incarnation: 9,
            number: 1,
            settles: vec![settle(&admit, &[4])],
            usage: Vec::new(),
        };
        assert_eq!(redis.apply(&batch).await, Ok(Applied::Now));
        assert_eq!(redis.apply(&batch).await, Ok(Applied::Before));
        let asked = [("tenant".into(), window(1_000))];
        assert_eq!(redis.standing("t:acme", &asked).await.expect("an answer")[0].used, 4);
    });
}

#[test]
fn what_a_server_refuses_with_has_its_name_and_ends_with_it() {
    local(async {
        for kind in [Kind::Redis7, Kind::Redis6, Kind::Valkey9] {
            let server = Server::start_as(kind, &["--min-replicas-max-lag", "10"]);
            let (redis, _) = strict(&server);
            recovers(&redis).await;
            let cases: [(&str, &[&str], &[&str]); 3] = [
                ("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
                (
                    "NOREPLICAS",
                    &["CONFIG", "SET", "min-replicas-to-write", "1"],
                    &["CONFIG", "SET", "min-replicas-to-write", "0"],
                ),
                ("READONLY", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
            ];
            for (name, set, undo) in cases {
                let () = server.ask(set);
                let refused = refused(&redis).await;
                assert_eq!(refused, name, "{kind:?}");
                let () = server.ask(undo);
                assert!(recovers(&redis).await < RECOVERY, "{kind:?} {name}");
            }
        }
    });
}

#[test]
fn a_script_of_somebody_else_that_does_not_end_is_named_and_waited_out() {
    local(async {
        let server = Server::start_as(Kind::Redis7, &["--lua-time-limit", "10"]);
        let (redis, _) = strict(&server);
        recovers(&redis).await;
        let mut other = server.connect();
        let endless = std::thread::spawn(move || {
            redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut other)
        });
        assert_eq!(refused(&redis).await, "BUSY");
        let () = server.ask(&["SCRIPT", "KILL"]);
        assert!(recovers(&redis).await < RECOVERY);
        assert!(endless.join().expect("it does not panic").is_err());
    });
}

#[test]
fn a_right_that_is_missing_and_a_key_of_another_kind_are_reported_and_open_no_breaker() {
    local(async {
        let server = Server::start();
        let (redis, prefix) = strict(&server);
        recovers(&redis).await;
        let () = server.ask(&["SET", &format!("{prefix}:v1:{{t:other}}:scope:tenant"), "x"]);
        for _ in 0..5 {
            let mut other = admit(&[(window(10), 1)]);
            other.tag = "t:other".into();
            let error = redis.admit(&other).await.expect_err("it is a string");
            assert!(
                matches!(&error, Error::Refused { code, .. } if code == "WRONGTYPE"),
                "{error:?}"
            );
        }
        assert!(redis.is_up("t:acme"));
        let () = server.ask(&["ACL", "SETUSER", "default", "-zadd"]);
        for _ in 0..5 {
            assert_eq!(refused(&redis).await, "NOPERM");
        }
        assert!(redis.is_up("t:acme"));
    });
}

/// The code of the refusal that comes.
async fn refused(redis: &Redis) -> String {
    let start = Instant::now();
    loop {
        match redis.admit(&admit(&[(window(1_000), 1)])).await {
            Err(Error::Refused { code, .. }) => return code,
            answer => assert!(start.elapsed() < RECOVERY, "{answer:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
