//! `GET /admin/v1/limits?key=`: which limits apply to a key, and how they stand now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use actix_http::StatusCode;
use serde_json::{Value, json};

use super::query::Query;
use super::{Answer, error, typed};
use crate::policy::limit::{Algorithm, Degraded, Metric};
use crate::proxy::{Applying, Known, Shared, applying};
use crate::snapshot::{Key, Snapshot};
use crate::store::Away;

/// Answers how the limits of one key stand.
pub(super) async fn limits(shared: &Shared, query: &str) -> Answer {
    match standing(shared, query).await {
        Ok(body) => typed(StatusCode::OK, "application/json", format!("{body}\n")),
        Err(answer) => answer,
    }
}

async fn standing(shared: &Shared, query: &str) -> Result<Value, Answer> {
    let query = Query::read(query, &["key", "model", "user", "ip", "target"])?;
    let snapshot = shared.snapshot.load_full();
    let key = key(&snapshot, query.get("key"))?;
    let ip = query.get("ip").map(|text| {
        let bad = || error(StatusCode::BAD_REQUEST, "invalid_request", "`ip` is no address.");
        text.parse::<IpAddr>().map_err(|_| bad())
    });
    let known = Known {
        model: query.get("model"),
        user: query.get("user"),
        ip: ip.transpose()?,
        target: query.get("target"),
    };
    let all = applying(&snapshot, &key, &shared.node, known, shared.store.now_ms());
    let used = used(shared, &all).await.map_err(|Away| {
        let message = "The limits' store does not answer; retry soon.";
        error(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
    })?;
    let limits: Vec<_> = all.iter().zip(used).map(|(limit, used)| shown(limit, used)).collect();
    Ok(json!({ "key": &*key.name, "tenant": &*key.tenant.name, "limits": limits }))
}

/// The key of this name; without a name, whoever needs no key.
fn key(snapshot: &Snapshot, name: Option<&str>) -> Result<Arc<Key>, Answer> {
    let found = match name {
        None if !snapshot.keys_required => Some(&snapshot.anonymous),
        None => {
            let message = "Say which key: GET /admin/v1/limits?key=NAME";
            return Err(error(StatusCode::BAD_REQUEST, "invalid_request", message));
        }
        Some(name) => snapshot.keys.values().find(|key| *key.name == *name),
    };
    let missing = || error(StatusCode::NOT_FOUND, "not_found", "There is no key of this name.");
    found.cloned().ok_or_else(missing)
}

/// What is used of each, where it is known where it counts; one question for each tag.
async fn used(shared: &Shared, all: &[Applying]) -> Result<Vec<Option<u64>>, Away> {
    let mut by_tag: HashMap<_, Vec<_>> = HashMap::new();
    for (index, limit) in all.iter().enumerate() {
        if let Some((tag, scope)) = &limit.place {
            by_tag.entry(tag).or_default().push((index, (Arc::clone(scope), limit.rule)));
        }
    }
    let mut used = vec![None; all.len()];
    for (tag, asked) in by_tag {
        let (places, asked): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        let standing = shared.store.standing(tag, &asked).await?;
        for (place, standing) in places.into_iter().zip(standing) {
            if let Some(used) = used.get_mut(place) {
                *used = Some(standing.used);
            }
        }
    }
    Ok(used)
}

fn shown(limit: &Applying, used: Option<u64>) -> Value {
    let rule = limit.rule;
    let mut shown = json!({
        "name": &*limit.name,
        "metric": metric(limit.metric),
        "limit": rule.limit,
        "used": used,
        "left": used.map(|used| rule.limit.saturating_sub(used)),
        "per": limit.per,
        "target": limit.target.as_deref(),
        "hard": limit.hard,
        "degraded": degraded(limit.degraded),
    });
    let (algorithm, more) = match rule.algorithm {
        Algorithm::Window { slot_ms, slots } => {
            ("sliding_window", json!({ "window_ms": slot_ms * u64::from(slots) }))
        }
        Algorithm::Bucket { window_ms, burst } => {
            ("token_bucket", json!({ "window_ms": window_ms, "burst": burst }))
        }
        Algorithm::Budget { start_ms, end_ms } => {
            ("budget", json!({ "period_start_ms": start_ms, "period_end_ms": end_ms }))
        }
        Algorithm::Permits => ("permits", json!({})),
    };
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.insert("algorithm".to_owned(), algorithm.into());
        shown.extend(more);
    }
    shown
}

/// The metric's name in the document; cost is in micro-USD here.
fn metric(metric: Metric) -> &'static str {
    match metric {
        Metric::Requests => "requests",
        Metric::Tokens => "tokens",
        Metric::InputTokens => "input_tokens",
        Metric::OutputTokens => "output_tokens",
        Metric::Cost => "cost",
        Metric::Concurrency => "concurrency",
    }
}

fn degraded(degraded: Degraded) -> &'static str {
    match degraded {
        Degraded::LocalShare => "local_share",
        Degraded::FailClosed => "fail_closed",
        Degraded::FailOpen => "fail_open",
    }
}
