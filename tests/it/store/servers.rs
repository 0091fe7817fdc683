//! Where Redis may be: over TLS, behind a password, on a cluster.

use std::sync::Arc;

use flotilla::domain::Secret;
use flotilla::policy::limit::{Applied, Batch, Verdict};
use flotilla::store::connection::{Config, Tls};
use flotilla::store::redis::{Redis, Shape, Tick};

use super::world::{admit, budget_now, config, local, permits, settle, shape, window};
use crate::support::redis::{Cluster, Kind, Server, prefix, shared};

/// One admission and its settlement.
async fn works(redis: &Redis, tag: &str, now_ms: u64) {
    let mut admit = admit(&[(window(100), 5), (budget_now(100, now_ms), 5), (permits(3), 1)]);
    admit.tag = tag.into();
    let verdict = redis.admit(&admit).await.expect("redis answers").verdict;
    assert_eq!(verdict, Verdict::Admitted(vec![95, 95, 2]));
    let settles = vec![settle(&admit, &[3, 3, 0])];
    let batch =
        Batch { tag: admit.tag.clone(), incarnation: 1, number: 1, settles, usage: Vec::new() };
    assert_eq!(redis.apply(&batch).await, Ok(Applied::Now));
    let asked: Vec<_> =
        admit.charges.iter().map(|one| (admit.scopes[0].clone(), one.rule)).collect();
    let standing = redis.standing(tag, &asked).await.expect("redis answers");
    assert_eq!(standing.iter().map(|one| one.used).collect::<Vec<_>>(), [3, 3, 0]);
}

#[test]
fn tls_with_a_certificate_of_the_client_and_a_user_of_its_own() {
    local(async {
        let prefix = prefix();
        let keys = format!("~{prefix}:*");
        let server = Server::start_tls(&[
            "--user", "node", "on", ">secret", &keys, "+@all", "--user", "default", "off",
        ]);
        let certificates = server.certificates();
        let pem = |text: &str| text.as_bytes().to_vec();
        let (certificate, key) = &certificates.client;
        let identity = Some((pem(certificate), pem(key)));
        let tls = Tls { ca: Some(pem(&certificates.ca)), identity };
        let url = format!("rediss://node:secret@127.0.0.1:{}", server.port);
        let config = Config { url: Secret::new(url.clone()), tls, ..config(&url) };
        let redis = Redis::open(&config, &shape(&prefix)).expect("a good URL");
        works(&redis, "t:acme", now_ms()).await;

        // Without its certificate, or with another authority, there is no connection at all.
        for tls in
            [Tls { identity: None, ..config.tls.clone() }, Tls { ca: None, ..config.tls.clone() }]
        {
            let deadline = std::time::Duration::from_millis(300);
            let config = Config { tls, deadline, ..config.clone() };
            let redis = Redis::open(&config, &shape(&prefix)).expect("a good URL");
            assert!(redis.admit(&admit(&[(window(1), 1)])).await.is_err());
        }
    });
}

#[test]
fn every_master_of_a_cluster_decides_for_its_own_tags() {
    local(async {
        let cluster = Cluster::start().await;
        let prefix = prefix();
        let redis = Redis::open(&config(&cluster.url()), &shape(&prefix)).expect("a good URL");
        for tenant in 0..30 {
            works(&redis, &format!("t:tenant-{tenant}"), now_ms()).await;
        }
        for server in &cluster.0 {
            assert!(!server.keys(&prefix).is_empty(), "port {} has no keys", server.port);
            let errors: String = server.ask(&["INFO", "errorstats"]);
            assert!(!errors.contains("CROSSSLOT"), "{errors}");
        }
    });
}

#[test]
fn nodes_are_registered_counted_lost_and_forgotten() {
    local(async {
        for kind in [Kind::Redis7, Kind::Redis6, Kind::Valkey9] {
            let server = shared(kind);
            let shape = Shape { ..shape(&prefix()) };
            let clock = flotilla::store::connection::TestClock::default();
            let set = |ms: u64| {
                clock.0.store(1_800_000_000_000 + ms, std::sync::atomic::Ordering::Relaxed)
            };
            set(0);
            let redis = Redis::open_with_clock(&config(&server.url()), &shape, clock.clone());
            let redis = redis.expect("a good URL");
            let tick = |incarnation, tags: &[&str]| Tick {
                incarnation,
                node_ttl_ms: 2_500,
                description: format!("{{\"node\":\"n{incarnation}\"}}"),
                tags: tags.iter().map(|tag| Arc::from(*tag)).collect(),
            };
            assert_eq!(redis.tick(&tick(1, &["t:a"])).await.expect("an answer").live, 1);
            let fleet = redis.tick(&tick(2, &["t:a", "t:b"])).await.expect("an answer");
            assert_eq!((fleet.live, fleet.now_ms), (2, 1_800_000_000_000));
            set(2_500);
            let fleet = redis.tick(&tick(1, &["t:c"])).await.expect("an answer");
            assert_eq!((fleet.live, fleet.lost), (1, vec![2]));
            let mut tags = redis.tags(2).await.expect("an answer");
            tags.sort();
            assert_eq!(tags, ["t:a".into(), "t:b".into()] as [Arc<str>; 2]);
            assert_eq!(redis.forget(1, false).await, Ok(false), "it lives");
            assert_eq!(redis.forget(2, false).await, Ok(true));
            assert_eq!(redis.tags(2).await.expect("an answer").len(), 0);
            assert_eq!(redis.forget(1, true).await, Ok(true));
            assert_eq!(redis.tick(&tick(3, &[])).await.expect("an answer").live, 1);
        }
    });
}

fn now_ms() -> u64 {
    shared(Kind::Redis7).now_ms()
}
