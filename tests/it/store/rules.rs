//! The rules of limits as Redis carries them out: each on its own, on a clock of the test's.

use flotilla::policy::limit::{Applied, Batch, Bill, Counts, Origin, Refusal, Row, Verdict};

use super::world::{
    LEASE, START, TAG, World, admit, bucket, budget, local, permits, settle, window,
};
use crate::support::redis::{Kind, shared};

fn refused(charge: usize, wait_ms: Option<u64>, left: u64) -> Verdict {
    Verdict::Refused(Refusal { charge, wait_ms, left })
}

#[test]
fn a_window_admits_up_to_its_limit_and_says_when_there_is_room_again() {
    local(async {
        let world = World::on(shared(Kind::Redis7));
        assert_eq!(world.admit(&admit(&[(window(10), 6)])).await, Verdict::Admitted(vec![4]));
        world.at(500);
        assert_eq!(world.admit(&admit(&[(window(10), 4)])).await, Verdict::Admitted(vec![0]));
        world.at(1_500);
        // The slot of the first second leaves after 61 of them.
        assert_eq!(world.admit(&admit(&[(window(10), 1)])).await, refused(0, Some(59_500), 0));
        assert_eq!(world.admit(&admit(&[(window(10), 11)])).await, refused(0, None, 0));
        world.at(60_999);
        assert_eq!(world.admit(&admit(&[(window(10), 1)])).await, refused(0, Some(1), 0));
        world.at(61_000);
        assert_eq!(world.admit(&admit(&[(window(10), 10)])).await, Verdict::Admitted(vec![0]));
    });
}

#[test]
fn all_limits_take_their_part_or_none_does() {
    local(async {
        let world = World::on(shared(Kind::Redis7));
        let all = |n| [(window(100), n), (bucket(60, 100), n), (budget(100), n), (permits(2), 1)];
        let taken = Verdict::Admitted(vec![90, 90, 90, 1]);
        assert_eq!(world.admit(&admit(&all(10))).await, taken);
        let before = dump(&world);
        assert_eq!(world.admit(&admit(&all(91))).await, refused(0, Some(61_000), 90));
        let last = [(window(100), 1), (bucket(60, 100), 1), (budget(5), 1)];
        assert_eq!(world.admit(&admit(&last)).await, refused(2, Some(3_600_000), 0));
        assert_eq!(dump(&world), before, "a refusal changes nothing");
    });
}

#[test]
fn a_clock_that_goes_back_frees_nothing_and_one_far_ahead_is_forgiven() {
    local(async {
        let world = World::on(shared(Kind::Redis7));
        let one = |n| admit(&[(window(10), n)]);
        world.at(100_000);
        assert_eq!(world.admit(&one(4)).await, Verdict::Admitted(vec![6]));
        // Two seconds back: the newest slot stays, and what comes counts in it.
        world.at(98_000);
        assert_eq!(world.admit(&one(6)).await, Verdict::Admitted(vec![0]));
        assert_eq!(world.admit(&one(1)).await, refused(0, Some(63_000), 0));
        // It was an hour ahead: the counts come along to the time that is right.
        world.at(3_700_000);
        assert_eq!(world.admit(&one(7)).await, Verdict::Admitted(vec![3]));
        world.at(100_000);
        assert_eq!(world.admit(&one(3)).await, Verdict::Admitted(vec![0]));
        assert_eq!(world.admit(&one(1)).await, refused(0, Some(61_000), 0));
        world.at(161_000);
        assert_eq!(world.admit(&one(10)).await, Verdict::Admitted(vec![0]));
    });
}

#[test]
fn keys_live_as_long_as_their_longest_limit_and_not_for_ever() {
    local(async {
        let world = World::on(shared(Kind::Redis7));
        world.admit(&admit(&[(window(10), 1), (budget(10), 1), (permits(3), 1)])).await;
        world.admit(&admit(&[(window(10), 1)])).await;
        let mut plain = admit(&[(window(10), 1)]);
        plain.member = false;
        world.admit(&plain).await;
        let server = shared(Kind::Redis7);
        let keys = server.keys(&world.prefix);
        assert_eq!(keys.len(), 5, "{keys:?}");
        for key in keys {
            let ttl: i64 = server.ask(&["PTTL", &key]);
            let (least, most) = match key.split(':').nth(4).or(key.split(':').nth(3)) {
                // A period of two hours, though the last admission asked for a minute only.
                Some("scope") => (7_200_000, 7_260_000),
                Some("seen") => (3_500_000, 3_600_000),
                _ => (86_300_000, 86_400_000),
            };
            assert!(ttl > least && ttl <= most, "{key}: {ttl}");
        }
    });
}

#[test]
fn a_truth_that_comes_the_next_day_goes_back_to_the_hour_of_the_estimate() {
    local(async {
        let world = World::on(shared(Kind::Redis7));
        let name = |name: &str| std::sync::Arc::<str>::from(name);
        let row = Row { key: name("a"), pool: name("p"), target: name("t"), model: name("m") };
        let estimate = Counts { requests: 1, output_tokens: 40, ..Counts::default() };
        let mut lost = admit(&[(window(100), 40)]);
        lost.bill = Some(Bill { row: row.clone(), estimate });
        world.admit(&lost).await;
        world.at(LEASE);
        let lapsed = world.redis.lapsed(TAG, 10).await.expect("an answer").remove(0);
        assert_eq!((lapsed.id, &lapsed.bill), (lost.id, &lost.bill));
        let mut swept = settle(&lost, &[0]);
        swept.origin = Origin::Lapsed;
        assert_eq!(world.apply(1, swept).await, Applied::Now);
        let hour = START / 3_600_000;
        let usage = world.redis.usage(TAG, hour).await.expect("an answer");
        assert_eq!(usage, [(row.clone(), estimate.of_lost_node())]);
        // Thirteen hours later it is another day, and the node that was only cut off is back.
        world.at(13 * 3_600_000);
        assert_eq!(world.apply(2, settle(&lost, &[55])).await, Applied::Now);
        let usage = world.redis.usage(TAG, hour).await.expect("an answer");
        assert_eq!(usage, [(row, Counts::default())]);
        assert_eq!(world.used(window(100)).await, 15, "more than reserved counts now");
        assert_eq!(world.apply(3, settle(&lost, &[99])).await, Applied::Now);
        assert_eq!(world.used(window(100)).await, 15, "a second truth is none");
    });
}

#[test]
fn an_hour_of_a_tag_has_ten_thousand_rows_and_one_for_the_others() {
    local(async {
        let world = World::on(shared(Kind::Redis7));
        let hour = START / 3_600_000;
        let one = Counts { requests: 1, ..Counts::default() };
        let name = |name: String| std::sync::Arc::<str>::from(name);
        let row = |i| Row { key: name(format!("key-{i}")), ..Row::default() };
        for (number, rows) in [(1, 0..6_000), (2, 4_000..10_003)] {
            let usage = rows.map(|i| (hour, row(i), one)).collect();
            let batch = Batch { tag: TAG.into(), incarnation: 1, number, settles: vec![], usage };
            assert_eq!(world.redis.apply(&batch).await, Ok(Applied::Now));
        }
        let usage = world.redis.usage(TAG, hour).await.expect("an answer");
        assert_eq!(usage.len(), 10_001);
        let of =
            |row: &Row| usage.iter().find(|(known, _)| known == row).map(|(_, one)| one.requests);
        assert_eq!((of(&row(5_000)), of(&row(1)), of(&Row::other())), (Some(2), Some(1), Some(3)));
    });
}

#[test]
fn a_call_reads_and_writes_no_more_commands_than_it_must() {
    local(async {
        let server = crate::support::redis::Server::start();
        let world = World::on(&server);
        let all = [(window(100), 1), (bucket(60, 100), 1), (permits(9), 1)];
        world.admit(&admit(&all)).await;
        world.admit(&admit(&all)).await;
        let () = server.ask(&["CONFIG", "RESETSTAT"]);
        world.admit(&admit(&all)).await;
        let info: String = server.ask(&["INFO", "commandstats"]);
        let mut calls: Vec<_> = info
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
            .map(|(name, rest)| format!("{name} {}", rest.split(',').next().unwrap_or_default()))
            .filter(|call| !call.contains("config") && !call.contains("info"))
            .filter(|call| !call.contains("client") && !call.contains("command"))
            .collect();
        calls.sort();
        let expected = ["evalsha 1", "hget 1", "hlen 1", "hset 2", "zadd 2", "zcard 1", "zscore 1"];
        assert_eq!(calls, expected);
    });
}

/// All values of the world's keys.
fn dump(world: &World) -> Vec<Vec<u8>> {
    let server = shared(Kind::Redis7);
    let keys = server.keys(&world.prefix);
    keys.iter().map(|key| server.ask(&["DUMP", key])).collect()
}
