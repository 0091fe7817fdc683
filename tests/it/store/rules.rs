//! The rules of limits as Redis carries them out: each on its own, on a clock of the test's.

use flotilla::policy::limit::{Refusal, Verdict};

use super::world::{World, admit, bucket, budget, local, permits, window};
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

/// All values of the world's keys.
fn dump(world: &World) -> Vec<Vec<u8>> {
    let server = shared(Kind::Redis7);
    let keys = server.keys(&world.prefix);
    keys.iter().map(|key| server.ask(&["DUMP", key])).collect()
}
