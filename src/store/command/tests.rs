use std::sync::Arc;

use super::super::keys::Keys;
use super::*;
use crate::domain::{AttemptId, RequestId};
use crate::policy::limit::{Admit, Batch, Bill, Counts, Origin, Renew, Row, Rule, Settle, TopUp};

fn charge(scope: u8, algorithm: Algorithm, limit: u64, amount: u64) -> Charge {
    Charge {
        scope,
        rule: Rule { id: LimitId(*b"abcdefgh"), algorithm, limit },
        amount,
        holder: Holder::Attempt,
        metric: Metric::Cost,
        degraded: Degraded::FailOpen,
        hard: true,
    }
}

fn sample() -> Admit {
    let name = |name: &str| Arc::<str>::from(name);
    let row = Row { key: name("k"), pool: name("p"), target: name("t"), model: name("m\u{1f}x") };
    Admit {
        tag: name("t:acme"),
        id: AttemptId { request: RequestId::from_random([7; 16]), attempt: 3 },
        scopes: vec![name("tenant"), name("key=a")],
        charges: vec![
            charge(0, Algorithm::Window { slot_ms: 1_000, slots: 60 }, 10, 2),
            charge(1, Algorithm::Bucket { window_ms: 60_000, burst: 9 }, 10, 3),
            charge(0, Algorithm::Budget { start_ms: 5, end_ms: 6 }, 10, 4),
            charge(1, Algorithm::Permits, 4, 1),
        ],
        member: true,
        bill: Some(Bill { row, estimate: Counts { output_tokens: -5, ..Counts::default() } }),
    }
}

fn calls() -> Vec<Call> {
    let (keys, admit) = (Keys::new("f"), sample());
    let tag = keys.tag(&admit.tag);
    let (id, scopes, charges) = (admit.id, admit.scopes.clone(), admit.charges.clone());
    let more = TopUp {
        tag: admit.tag.clone(),
        id,
        step: 1,
        scopes: scopes.clone(),
        charges: charges.clone(),
    };
    let lease = Renew { id, scopes: scopes.clone(), charges: charges.clone(), member: true };
    let asked: Vec<_> = charges.iter().map(|one| (scopes[0].clone(), one.rule)).collect();
    let settle = Settle { id, scopes, charges, origin: Origin::Member };
    let row = admit.bill.clone().expect("it has one").row;
    let batch = Batch {
        tag: admit.tag.clone(),
        incarnation: 1,
        number: 1,
        settles: vec![settle],
        usage: vec![(500, row, Counts::default())],
    };
    let tick = registry::Tick {
        incarnation: 1,
        node_ttl_ms: 2_500,
        ranked: true,
        description: "{}".to_owned(),
        gone: vec!["t:acme".into()],
        begun: vec!["t:acme".into()],
    };
    vec![
        admit::pack(&tag, &admit, 1).expect("numbers are small"),
        admit::pack_top_up(&tag, &more).expect("numbers are small"),
        settle::pack(&tag, &batch, 1_800_000_000_000, 1, &[7]).expect("numbers are small"),
        renew::pack(&tag, &[lease], 1).expect("numbers are small"),
        renew::pack_lapsed(&tag, 10),
        standing::pack(&tag, &asked).expect("numbers are small"),
        registry::pack_tick(&keys, &tick),
        registry::pack_forget(&keys, 1, true, &["t:acme".into()]),
    ]
}

/// The lines of a header: for each key its noun, for each argument its type; an open end repeats.
fn declared(script: Name, list: &str, word: usize) -> Vec<(&'static str, bool)> {
    let lines = script.source().lines().take_while(|line| *line != "]]");
    let lines =
        lines.filter_map(|line| line.strip_prefix("  ")?.strip_prefix(list)?.split_once(']'));
    lines
        .map(|(number, rest)| {
            let open = number.ends_with('+') || number == "[..";
            (rest.split_whitespace().nth(word).expect("type and name"), open)
        })
        .collect()
}

/// The order of a header against what is packed: fixed ones one to one, open ends in their order.
fn follows(declared: &[(&str, bool)], packed: &[String]) -> bool {
    let Some(((noun, open), rest)) = declared.split_first() else { return packed.is_empty() };
    match packed.split_first() {
        Some((first, others)) if first == noun => {
            follows(if *open { declared } else { rest }, others) || follows(rest, others)
        }
        _ => *open && follows(rest, packed),
    }
}

#[test]
fn keys_and_arguments_are_packed_in_the_order_of_the_headers() {
    let calls = calls();
    assert_eq!(calls.iter().map(|call| call.script).collect::<Vec<_>>(), Name::ALL);
    for call in &calls {
        let nouns: Vec<_> = call
            .keys
            .iter()
            .map(|key| key.split("}:").nth(1).and_then(|rest| rest.split(':').next()))
            .map(|noun| noun.expect("a key has a noun").to_owned())
            .collect();
        let keys = declared(call.script, "KEYS", 1);
        assert!(follows(&keys, &nouns), "{:?}: {keys:?}, {nouns:?}", call.script);
        let types = declared(call.script, "ARGV", 0);
        for (at, arg) in call.args.iter().enumerate() {
            let (of_type, _) = types.get(at).or(types.last()).expect("it has arguments");
            let digits = !arg.is_empty() && arg.iter().all(u8::is_ascii_digit);
            assert!(digits || *of_type == "bytes", "{:?}: argument {at}", call.script);
        }
        let fixed = types.iter().filter(|(_, open)| !open).count();
        let open = types.len() > fixed;
        assert!(call.args.len() == fixed || (open && call.args.len() > fixed), "{:?}", call.script);
    }
}

#[test]
fn all_keys_of_a_call_share_one_tag() {
    for call in calls() {
        let tag = |key: &String| key.split(['{', '}']).nth(1).map(str::to_owned);
        let first = call.keys.first().and_then(tag);
        assert!(first.is_some());
        assert!(call.keys.iter().all(|key| tag(key) == first), "{:?}", call.keys);
    }
}

#[test]
fn what_changes_something_begins_with_its_deadline() {
    for mut call in calls() {
        let before = call.args.clone();
        call.set_deadline(0x0102_0304_0506);
        if call.changes() {
            assert_eq!(&call.args[0][..6], [6, 5, 4, 3, 2, 1]);
            assert_eq!(call.args[0][6..], before[0][6..]);
        } else {
            assert_eq!(call.args, before);
        }
    }
}

#[test]
fn what_a_member_holds_is_read_back_as_it_was_admitted() {
    let admit = sample();
    let call = admit::pack(&Keys::new("f").tag("t:acme"), &admit, 1).expect("numbers are small");
    // As the script puts it together: steps, charges, deadline, slots, and what it was given.
    let mut held = vec![2, 4];
    held.extend([0; 6 + 4 * 6]);
    held.extend(&call.args[3]);
    held.extend(&call.args[4]);
    let lapsed = held::read(&admit.id.to_bytes(), &held).expect("it is whole");
    assert_eq!((lapsed.id, &lapsed.scopes), (admit.id, &admit.scopes));
    assert_eq!(lapsed.charges, admit.charges);
    let bill = lapsed.bill.expect("it had one");
    assert_eq!(bill.estimate, admit.bill.as_ref().expect("it has one").estimate);
    assert_eq!(&*bill.row.model, "m x", "what joins names is not in one");
    assert!(held::read(&admit.id.to_bytes(), &held[..held.len() - 1]).is_none());
}

#[test]
fn numbers_that_would_lose_digits_are_refused() {
    let keys = Keys::new("f");
    let window = Algorithm::Window { slot_ms: 1_000, slots: 60 };
    let bucket = Algorithm::Bucket { window_ms: 1 << 26, burst: 1 << 27 };
    for one in [
        charge(0, window, 1 << 48, 1),
        charge(0, bucket, 1, 1),
        charge(0, Algorithm::Window { slot_ms: 0, slots: 60 }, 1, 1),
    ] {
        let admit = Admit { charges: vec![one], ..sample() };
        let packed = admit::pack(&keys.tag("t:acme"), &admit, 1);
        assert!(matches!(packed, Err(Error::Number)), "{one:?}");
    }
}

#[test]
fn a_reply_that_no_script_gives_is_an_error() {
    for value in [
        Value::Nil,
        Value::Int(0),
        Value::Array(vec![]),
        Value::Array(vec![Value::Int(0)]),
        Value::Array(vec![Value::Int(9), Value::Int(1)]),
    ] {
        assert!(matches!(Reply::read(value), Err(Error::Reply)));
    }
}

// What clients ask for and providers claim must be no way around a limit, and must not keep the
// batch from being sent that all other truths of the tag are in.
#[test]
fn an_amount_that_cannot_be_counted_is_more_than_any_limit_and_no_error() {
    let day = 86_400_000;
    let burst = PRODUCTS / day - 1;
    for (algorithm, limit, most) in [
        (Algorithm::Window { slot_ms: 1_000, slots: 60 }, NUMBERS - 2, NUMBERS - 1),
        (Algorithm::Bucket { window_ms: day, burst }, burst, burst + 1),
        (Algorithm::Bucket { window_ms: 1, burst: 5 }, 5, NUMBERS - 1),
        (Algorithm::Budget { start_ms: 5, end_ms: 6 }, NUMBERS - 2, NUMBERS - 1),
    ] {
        for amount in [most + 1, u64::MAX] {
            let mut packed = Vec::new();
            let charge = charge(0, algorithm, limit, amount);
            let done = Touched::default().pack(&Arc::from("all"), &charge, &mut packed);
            assert_eq!(done, Ok(()), "{algorithm:?}");
            let read = Bytes(&packed).packed_charge().expect("it is packed");
            assert_eq!(read.amount, most, "{algorithm:?}");
        }
    }
}
