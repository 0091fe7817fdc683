//! Which commands a request becomes.

use super::*;
use crate::domain::RequestId;
use crate::policy::limit::LimitId;
use crate::policy::limit::period::{Period, Zone};
use crate::proxy::testing;
use crate::snapshot::Price;

const WINDOW: Algorithm = Algorithm::Window { slot_ms: 1000, slots: 60 };

fn limit(
    id: &[u8; 8],
    metric: Metric,
    narrow: &[(Dimension, &str)],
    spread: &[Dimension],
) -> Limit {
    let algorithm = if metric == Metric::Concurrency { Algorithm::Permits } else { WINDOW };
    Limit {
        name: std::str::from_utf8(id).expect("ASCII").into(),
        id: LimitId(*id),
        narrow: narrow.iter().map(|(dimension, value)| (*dimension, (*value).into())).collect(),
        spread: spread.to_vec(),
        metric,
        algorithm,
        limit: 1000,
        degraded: Degraded::FailClosed,
        hard: false,
    }
}

/// What a request of key `k` of tenant `acme` by user `u` asks for, with these limits.
fn asked(
    limits: Vec<Limit>,
    change: impl FnOnce(&mut Key, &mut Target),
    first: bool,
) -> Vec<Admit> {
    let mut key = testing::key_of(testing::tenant("acme", None));
    let pool = testing::pool("p", &[&["t"]]);
    let target = Arc::clone(&pool.tiers[0][0]);
    drop(pool);
    let mut target = Arc::try_unwrap(target).expect("nobody else has it");
    let own = Arc::get_mut(&mut key).expect("nobody else has it");
    own.limits = limits.into_iter().map(Arc::new).collect();
    change(own, &mut target);
    let facts = Facts {
        key: &key,
        pool: "p",
        model: "m",
        user: Some("u"),
        ip: IpAddr::from([127, 0, 0, 1]),
        node: "n",
    };
    let id = AttemptId { request: RequestId::from_random([1; 16]), attempt: 1 };
    let (input_tokens, output_tokens) = (30, 12);
    let attempt = Try { id, target: &target, first, input_tokens, output_tokens, now_ms: 0 };
    admits(&facts, &attempt, &Row::default())
}

fn plain(limits: Vec<Limit>, first: bool) -> Vec<Admit> {
    asked(limits, |_, _| {}, first)
}

#[test]
fn a_scope_says_on_which_tag_a_limit_counts() {
    use Dimension::{Fleet, Ip, Key, Model, Provider, Target, Tenant, User};
    let user = format!("user={}", place::hashed("u"));
    let by_user = format!("{user},model={}", place::hashed("m"));
    let ip = format!("l:12345678:ip={}", place::hashed("127.0.0.1"));
    for (narrow, spread, tag, scope) in [
        (vec![], vec![Tenant], "t:acme", "all"),
        (vec![(Tenant, "acme")], vec![], "t:acme", "all"),
        (vec![], vec![Key], "t:acme", "key=of-tenant"),
        (vec![(Tenant, "acme")], vec![User, Model], "t:acme", &by_user),
        (vec![], vec![Tenant, Target], "t:acme", "target=t"),
        (vec![], vec![Target], "g:t", "all"),
        (vec![(Target, "t")], vec![User], "t:acme", &user),
        (vec![], vec![Fleet], "l:12345678", "all"),
        (vec![], vec![Provider], "l:12345678:provider=provider", "all"),
        (vec![], vec![Ip], &ip, "all"),
    ] {
        let admits = plain(vec![limit(b"12345678", Metric::Requests, &narrow, &spread)], true);
        assert_eq!(admits.len(), 1, "{tag}");
        assert_eq!((&*admits[0].tag, &*admits[0].scopes[0]), (tag, scope));
    }
}

#[test]
fn a_limit_for_others_is_not_asked() {
    use Dimension::{Key, Model, Pool, Tier};
    for narrow in [(Key, "other"), (Model, "other"), (Pool, "other"), (Tier, "gold")] {
        let limit = limit(b"12345678", Metric::Requests, &[narrow], &[Dimension::Tenant]);
        assert!(plain(vec![limit], true).is_empty(), "{narrow:?}");
    }
}

#[test]
fn requests_and_permits_count_once_and_tokens_for_each_attempt() {
    use Dimension::{Target, Tenant};
    let limits = || {
        vec![
            limit(b"requests", Metric::Requests, &[], &[Tenant]),
            limit(b"permits_", Metric::Concurrency, &[], &[Tenant]),
            limit(b"tokens__", Metric::Tokens, &[], &[Tenant]),
            limit(b"attempts", Metric::Requests, &[], &[Tenant, Target]),
        ]
    };
    let amounts = |first| -> Vec<_> {
        let admits = plain(limits(), first);
        assert_eq!(admits.len(), 1);
        admits[0].charges.iter().map(|charge| (charge.rule.id.0, charge.amount)).collect()
    };
    let always = [(*b"tokens__", 42), (*b"attempts", 1)];
    assert_eq!(amounts(false), always);
    assert_eq!(amounts(true), [&[(*b"requests", 1), (*b"permits_", 1)][..], &always].concat());
}

#[test]
fn only_what_will_be_settled_is_a_member_and_the_tenant_knows_of_it() {
    use Dimension::{Target, Tenant};
    let requests = plain(vec![limit(b"requests", Metric::Requests, &[], &[Tenant])], true);
    assert!(!requests[0].member && requests[0].bill.is_none());
    let tokens = plain(vec![limit(b"tokens__", Metric::Tokens, &[], &[Target])], true);
    let [books, target] = &tokens[..] else { unreachable!("two tags") };
    assert_eq!((&*books.tag, &*target.tag), ("t:acme", "g:t"));
    assert!(books.member && target.member && books.charges.is_empty());
    let bill = books.bill.as_ref().expect("the tenant's tag keeps the books");
    assert_eq!((bill.estimate.input_tokens, bill.estimate.output_tokens), (30, 12));
}

#[test]
fn a_budget_is_asked_where_a_target_has_a_price() {
    let budget = |id| {
        let zone = Zone::named("UTC").expect("known");
        let (period, limit, id) = (Period::Day, 500, LimitId(id));
        Some(Arc::new(Budget { id, limit, period, zone, soft: None, hard: false }))
    };
    let asked = |price| {
        let change = |key: &mut Key, target: &mut Target| {
            key.budget = budget(*b"a-budget");
            target.price = price;
        };
        asked(Vec::new(), change, true)
    };
    assert!(asked(None).is_empty());
    let priced = asked(Some(Price { input: 1_000_000, output: 2_000_000 }));
    assert_eq!(&*priced[0].scopes[0], "budget.key=of-tenant");
    let charge = priced[0].charges[0];
    assert_eq!(charge.amount, 30 + 24);
    assert_eq!(charge.rule.algorithm, Algorithm::Budget { start_ms: 0, end_ms: 86_400_000 });
}

#[test]
fn all_addresses_of_one_client_are_one_counter() {
    let network = |text: &str| network(text.parse().expect("an address")).to_string();
    assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2:ffff::1"));
    assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
    assert_ne!(network("192.0.2.7"), network("192.0.2.8"));
}
