//! What one attempt asks of its limits: from the compiled limits and the facts of a request to the
//! commands of `policy::limit`, one for each tag.
//!
//! Where a limit counts is decided by its scope. With a tenant, a key or a user in it, it counts on
//! the tenant's tag; with a target and none of these, on the target's; every other one has a tag of
//! its own, one for each value that it is spread over. All that is decided together must stand on
//! one Redis slot, and these are the units in which load spreads.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::domain::AttemptId;
use crate::policy::limit::{
    Admit, Algorithm, Bill, Charge, Counts, Degraded, Holder, Metric, Row, Rule, place,
};
use crate::snapshot::{Budget, Dimension, Key, Limit, Places, Target};

/// Who asks for what, as limits see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) key: &'a Key,
    pub(super) pool: &'a str,
    pub(super) model: &'a str,
    /// The client's own user, already bounded in number.
    pub(super) user: Option<&'a str>,
    pub(super) ip: IpAddr,
    pub(super) node: &'a str,
}

/// One attempt that is to be admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try<'a> {
    pub(super) id: AttemptId,
    pub(super) target: &'a Target,
    /// Whether what counts once for each request is still to be charged.
    pub(super) first: bool,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Unix time in milliseconds, for the periods of budgets.
    pub(super) now_ms: u64,
}

/// All that an attempt asks for, tag by tag, the tenant's first. Empty where no limit applies.
pub(super) fn admits(facts: &Facts<'_>, attempt: &Try<'_>, row: &Row) -> Vec<Admit> {
    let mut admits = Vec::new();
    let places = facts.key.places.get_or_init(|| places(facts));
    for (limit, place) in facts.key.limits.iter().zip(places) {
        if let Some(asked) = ask(limit, place.as_ref(), facts, attempt) {
            push(&mut admits, attempt.id, asked);
        }
    }
    for limit in &attempt.target.limits {
        if let Some(asked) = ask(limit, None, facts, attempt) {
            push(&mut admits, attempt.id, asked);
        }
    }
    let tenant = &facts.key.tenant;
    if let Some(cost) = cost(attempt) {
        let tag = Arc::clone(&facts.key.tenant.tag);
        let budgets =
            [(tenant.budget.as_ref(), None), (facts.key.budget.as_ref(), Some(&facts.key.name))];
        for (budget, key) in budgets {
            let Some(budget) = budget else { continue };
            let scope = budget_scope(key.map(|key| &**key)).into();
            let charge = spend(budget, cost, attempt.now_ms);
            push(&mut admits, attempt.id, Asked { tag: tag.clone(), scope, charge });
        }
    }
    let joined = admits.len() > 1;
    let mut settles = false;
    for admit in &mut admits {
        admit.member = joined || admit.charges.iter().any(|c| c.metric != Metric::Requests);
        settles |= admit.member;
    }
    if settles {
        keep_books(&mut admits, facts, attempt, row);
    }
    admits
}

/// Sees to it that the tenant's tag knows of an attempt that any tag will have to settle: there its
/// usage is recorded if its node dies.
fn keep_books(admits: &mut Vec<Admit>, facts: &Facts<'_>, attempt: &Try<'_>, row: &Row) {
    let tag = Arc::clone(&facts.key.tenant.tag);
    let at = admits.iter().position(|admit| *admit.tag == *tag).unwrap_or_else(|| {
        admits.push(admit(tag, attempt.id));
        admits.len() - 1
    });
    admits.swap(0, at);
    let Some(books) = admits.first_mut() else { return };
    books.member = true;
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    books.bill = Some(Bill {
        row: row.clone(),
        estimate: Counts {
            requests: 1,
            input_tokens: signed(attempt.input_tokens),
            output_tokens: signed(attempt.output_tokens),
            cost_micro_usd: signed(cost(attempt).unwrap_or(0)),
            ..Counts::default()
        },
    });
}

/// Where the limits of a key count, as far as that is the same for all of its requests.
fn places(facts: &Facts<'_>) -> Places {
    use Dimension::{Fleet, Key, Node, Tenant, Tier};
    let fixed = |limit: &Limit| {
        let narrow = limit.narrow.iter().map(|(dimension, _)| dimension);
        narrow.chain(&limit.spread).all(|one| matches!(one, Fleet | Key | Node | Tenant | Tier))
    };
    let limits = facts.key.limits.iter();
    limits.map(|limit| if fixed(limit) { place(limit, facts, None) } else { None }).collect()
}

/// One charge and where it goes.
struct Asked {
    tag: Arc<str>,
    scope: Arc<str>,
    charge: Charge,
}

/// What `limit` is asked for; none where it does not apply to this attempt. `known` is where it
/// counts, if that is known already.
fn ask(
    limit: &Limit,
    known: Option<&(Arc<str>, Arc<str>)>,
    facts: &Facts<'_>,
    attempt: &Try<'_>,
) -> Option<Asked> {
    let applies = known.is_some() || applies(limit, facts, Some(attempt.target));
    let by_attempt = limit.counts_attempts();
    let counts_once = matches!(limit.metric, Metric::Requests | Metric::Concurrency) && !by_attempt;
    if !applies || counts_once && !attempt.first {
        return None;
    }
    let amount = match limit.metric {
        Metric::Requests | Metric::Concurrency => 1,
        Metric::Tokens => attempt.input_tokens.saturating_add(attempt.output_tokens),
        Metric::InputTokens => attempt.input_tokens,
        Metric::OutputTokens => attempt.output_tokens,
        Metric::Cost => cost(attempt)?,
    };
    let (tag, scope) =
        known.cloned().unwrap_or_else(|| counts_in(limit, facts, Some(attempt.target)));
    let charge = Charge {
        scope: 0,
        rule: Rule { id: limit.id, algorithm: limit.algorithm, limit: limit.limit },
        amount,
        holder: if by_attempt { Holder::Attempt } else { Holder::Request },
        metric: limit.metric,
        degraded: limit.degraded,
        hard: limit.hard,
    };
    Some(Asked { tag, scope, charge })
}

/// Whether `limit` is narrowed to nothing else than this request and target.
fn applies(limit: &Limit, facts: &Facts<'_>, target: Option<&Target>) -> bool {
    let mut narrowed = limit.narrow.iter();
    narrowed.all(|(dimension, value)| value_of(*dimension, facts, target).as_deref() == Some(value))
}

/// Where `limit` counts a request, if it applies to it: tag and scope.
pub(super) fn place(
    limit: &Limit,
    facts: &Facts<'_>,
    target: Option<&Target>,
) -> Option<(Arc<str>, Arc<str>)> {
    applies(limit, facts, target).then(|| counts_in(limit, facts, target))
}

/// The scope of a budget: the tenant's, or that of one of its keys. It is apart from others, as it
/// lives longer.
pub(super) fn budget_scope(key: Option<&str>) -> String {
    key.map_or_else(|| "budget".to_owned(), |key| format!("budget.key={}", place::name(key)))
}

/// The tag and the scope that `limit` counts in.
fn counts_in(limit: &Limit, facts: &Facts<'_>, target: Option<&Target>) -> (Arc<str>, Arc<str>) {
    let has = |dimension| limit.has(dimension);
    let values = |left_out: Option<Dimension>| {
        let mut text = String::new();
        for dimension in limit.spread.iter().filter(|dimension| Some(**dimension) != left_out) {
            let comma = if text.is_empty() { "" } else { "," };
            let value = value_of(*dimension, facts, target).unwrap_or_default();
            let value = match dimension {
                Dimension::Ip => place::hashed(&network(facts.ip).to_string()),
                Dimension::User | Dimension::Model => place::hashed(&value),
                _ => place::name(&value),
            };
            write!(text, "{comma}{}={value}", dimension.as_str()).ok();
        }
        if text.is_empty() { "all".to_owned() } else { text }
    };
    if has(Dimension::Tenant) || has(Dimension::Key) || has(Dimension::User) {
        (Arc::clone(&facts.key.tenant.tag), values(Some(Dimension::Tenant)).into())
    } else if has(Dimension::Target) {
        (
            place::target(target.map_or("", |target| &target.name)),
            values(Some(Dimension::Target)).into(),
        )
    } else {
        let together = limit.spread.iter().all(|dimension| *dimension == Dimension::Fleet);
        let value = (!together).then(|| values(None));
        let tag = place::own(limit.id, value.as_deref());
        (tag, "all".into())
    }
}

/// The value that a request has in this dimension. A request that names no user shares one counter
/// with all others that do not: leaving it out must be no way around a limit.
fn value_of<'a>(
    dimension: Dimension,
    facts: &Facts<'a>,
    target: Option<&'a Target>,
) -> Option<Cow<'a, str>> {
    Some(match dimension {
        Dimension::Key => (&*facts.key.name).into(),
        Dimension::Tenant => (&*facts.key.tenant.name).into(),
        Dimension::User => facts.user.unwrap_or_default().into(),
        Dimension::Tier => facts.key.tenant.tier.as_deref()?.into(),
        Dimension::Pool => facts.pool.into(),
        Dimension::Model => facts.model.into(),
        Dimension::Target => (&*target?.name).into(),
        Dimension::Provider => (&*target?.provider.name).into(),
        Dimension::Ip => facts.ip.to_canonical().to_string().into(),
        Dimension::Fleet => "fleet".into(),
        Dimension::Node => facts.node.into(),
    })
}

/// Whose counter an address is: all of a /64 belong to one client, who could take a new one of them
/// for each request.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip @ IpAddr::V4(_) => ip,
    }
}

fn spend(budget: &Budget, cost: u64, now_ms: u64) -> Charge {
    let (start_ms, end_ms) = budget.period_at(now_ms);
    Charge {
        scope: 0,
        rule: Rule {
            id: budget.id,
            algorithm: Algorithm::Budget { start_ms, end_ms },
            limit: budget.limit,
        },
        amount: cost,
        holder: Holder::Attempt,
        metric: Metric::Cost,
        degraded: Degraded::LocalShare,
        hard: budget.hard,
    }
}

/// What the attempt is estimated to cost in micro-USD; none where its target has no price.
fn cost(attempt: &Try<'_>) -> Option<u64> {
    let price = attempt.target.price?;
    Some(price.cost(attempt.input_tokens, attempt.output_tokens))
}

fn push(admits: &mut Vec<Admit>, id: AttemptId, asked: Asked) {
    let Asked { tag, scope, mut charge } = asked;
    let at = admits.iter().position(|admit| *admit.tag == *tag).unwrap_or_else(|| {
        admits.push(admit(tag, id));
        admits.len() - 1
    });
    let Some(admit) = admits.get_mut(at) else { return };
    let at = admit.scopes.iter().position(|known| *known == scope).unwrap_or_else(|| {
        admit.scopes.push(scope);
        admit.scopes.len() - 1
    });
    charge.scope = u8::try_from(at).expect("config bounds the limits of one request");
    admit.charges.push(charge);
}

fn admit(tag: Arc<str>, id: AttemptId) -> Admit {
    Admit { tag, id, scopes: Vec::new(), charges: Vec::new(), member: false, bill: None }
}

#[cfg(test)]
mod tests;
