//! Where Redis may be: over TLS, behind a password, on a cluster.

use std::sync::Arc;

use flotilla::domain::Secret;
use flotilla::policy::limit::{Applied, Batch, Verdict};
use flotilla::store::connection::{Config, Tls};
use flotilla::store::redis::{Lost, Redis, Shape, Tick};

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
fn nodes_are_registered_counted_lost_swept_and_forgotten() {
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
            let tags = |tags: &[&str]| tags.iter().map(|tag| Arc::from(*tag)).collect::<Vec<_>>();
            let tick = |incarnation, gone: &[&str], begun: &[&str]| Tick {
                incarnation,
                node_ttl_ms: 2_500,
                ranked: incarnation != 3,
                description: format!("{{\"node\":\"n{incarnation}\"}}"),
                gone: tags(gone),
                begun: tags(begun),
            };
            let fleet = redis.tick(&tick(1, &[], &["t:a"])).await.expect("an answer");
            assert_eq!((fleet.live, fleet.fresh, fleet.ticks, fleet.schema), (1, true, 1, None));
            assert_eq!(fleet.rank, Some(0));
            let fleet = redis.tick(&tick(2, &[], &["t:a", "t:b", "t:c"])).await.expect("an answer");
            assert_eq!((fleet.live, fleet.now_ms, fleet.ticks), (2, 1_800_000_000_000, 2));
            let fleet = redis.tick(&tick(2, &["t:c", "t:b"], &["t:b"])).await.expect("an answer");
            assert_eq!((fleet.fresh, fleet.rank), (false, Some(1)));
            set(2_500);
            let fleet = redis.tick(&tick(1, &[], &[])).await.expect("an answer");
            let lost = Lost { incarnation: 2, since_ms: 1_800_000_002_500 };
            assert_eq!((fleet.live, fleet.lost), (1, vec![lost]));
            let mut listed = redis.tags(2, 10).await.expect("an answer");
            listed.sort();
            assert_eq!(listed, tags(&["t:a", "t:b"]));
            assert_eq!(redis.tags(2, 1).await.expect("an answer").len(), 1);
            assert_eq!(redis.forget(1, &[]).await, Ok(None), "it lives");
            assert_eq!(redis.forget(2, &tags(&["t:a"])).await, Ok(Some(1)));
            assert_eq!(redis.forget(2, &tags(&["t:b"])).await, Ok(Some(0)));
            let fleet = redis.tick(&tick(1, &[], &[])).await.expect("an answer");
            assert_eq!(fleet.lost, []);
            assert_eq!(redis.leave(1).await, Ok(()));
            let fleet = redis.tick(&tick(3, &[], &[])).await.expect("an answer");
            assert_eq!((fleet.live, fleet.rank), (1, None));
            assert_eq!(redis.tags(1, 10).await, Ok(vec![]));
        }
    });
}

fn now_ms() -> u64 {
    shared(Kind::Redis7).now_ms()
}
