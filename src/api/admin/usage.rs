//! `GET /admin/v1/usage?from&to&by=`: what was used, summed up.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use actix_http::StatusCode;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::query::Query;
use super::{Answer, error, typed};
use crate::policy::limit::{Counts, Row};
use crate::proxy::Shared;
use crate::store::Away;

const HOUR_MS: u64 = 3_600_000;
/// Without a beginning: the last day.
const USUAL_HOURS: u64 = 24;
/// More than usage is kept for.
const MOST_HOURS: u64 = 24 * 366;
/// Tenants asked at once.
const AT_ONCE: usize = 16;
/// More than anybody reads; a finer question is a narrower one.
const MOST_ROWS: usize = 100_000;

const DIMENSIONS: [&str; 6] = ["tenant", "key", "pool", "target", "model", "hour"];

/// Answers what was used.
pub(super) async fn usage(shared: &Shared, query: &str) -> Answer {
    match rows(shared, query).await {
        Ok(body) => typed(StatusCode::OK, "application/json", format!("{body}\n")),
        Err(answer) => answer,
    }
}

async fn rows(shared: &Shared, query: &str) -> Result<Value, Answer> {
    let query = Query::read(query, &["from", "to", "by"])?;
    let hours = hours(&query, shared.store.now_ms())?;
    let by = by(query.get("by"))?;
    let mut sums: BTreeMap<Vec<String>, Counts> = BTreeMap::new();
    let asked = tenants(shared).into_iter().map(|(tenant, tag)| {
        let hours = hours.clone();
        async move { shared.store.usage(&tag, hours).await.map(|rows| (tenant, rows)) }
    });
    let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some((tenant, rows)) = answers.try_next().await.map_err(|Away| away())? {
        for (hour, row, counts) in rows {
            let names = by.iter().map(|dimension| value(dimension, &tenant, hour, &row));
            sums.entry(names.collect()).or_default().add(&counts);
            if sums.len() > MOST_ROWS {
                let message = "More than 100,000 rows; ask for less time or fewer dimensions.";
                return Err(error(StatusCode::BAD_REQUEST, "invalid_request", message));
            }
        }
    }
    let rows: Vec<_> = sums.iter().map(|(names, counts)| shown(&by, names, counts)).collect();
    Ok(json!({ "from": time(hours.start), "to": time(hours.end), "rows": rows }))
}

/// All tenants that can be named, with their tags.
fn tenants(shared: &Shared) -> BTreeSet<(Arc<str>, Arc<str>)> {
    let snapshot = shared.snapshot.load();
    let keys = snapshot.keys.values().chain([&snapshot.anonymous]);
    keys.map(|key| (Arc::clone(&key.tenant.name), Arc::clone(&key.tenant.tag))).collect()
}

/// Whole hours: the one that `from` is in up to the one before `to`, or with it if it has begun.
fn hours(query: &Query, now_ms: u64) -> Result<Range<u64>, Answer> {
    let bad = |message: &str| error(StatusCode::BAD_REQUEST, "invalid_request", message);
    let read = |name: &str| {
        let Some(text) = query.get(name) else { return Ok(None) };
        let time = text.parse::<Timestamp>().ok();
        let time = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
        let message = format!("`{name}` is no time such as 2027-01-01T00:00:00Z.");
        time.map(Some).ok_or_else(|| bad(&message))
    };
    let to = read("to")?.unwrap_or(now_ms).div_ceil(HOUR_MS);
    let from = read("from")?.map_or(to.saturating_sub(USUAL_HOURS), |from| from / HOUR_MS);
    if from >= to {
        return Err(bad("`from` is not before `to`."));
    }
    if to - from > MOST_HOURS {
        return Err(bad("At most 366 days can be asked for."));
    }
    Ok(from..to)
}

fn by(text: Option<&str>) -> Result<Vec<&'static str>, Answer> {
    let mut by = Vec::new();
    for word in text.unwrap_or("key,model").split(',') {
        let known = DIMENSIONS.iter().find(|dimension| **dimension == word);
        let Some(dimension) = known else {
            let message = format!("`by` knows {}; not `{word}`.", DIMENSIONS.join(", "));
            return Err(error(StatusCode::BAD_REQUEST, "invalid_request", &message));
        };
        if !by.contains(dimension) {
            by.push(*dimension);
        }
    }
    Ok(by)
}

fn value(dimension: &str, tenant: &str, hour: u64, row: &Row) -> String {
    match dimension {
        "tenant" => tenant.to_owned(),
        "key" => row.key.to_string(),
        "pool" => row.pool.to_string(),
        "target" => row.target.to_string(),
        "model" => row.model.to_string(),
        _ => time(hour),
    }
}

fn shown(by: &[&'static str], names: &[String], counts: &Counts) -> Value {
    let mut row: Map<_, _> = by
        .iter()
        .zip(names)
        .map(|(dimension, name)| ((*dimension).to_owned(), Value::from(name.as_str())))
        .collect();
    let figures = [
        ("requests", counts.requests),
        ("attempts", counts.attempts),
        ("input_tokens", counts.input_tokens),
        ("output_tokens", counts.output_tokens),
        ("cached_tokens", counts.cached_tokens),
        ("reasoning_tokens", counts.reasoning_tokens),
        ("cost_micro_usd", counts.cost_micro_usd),
        ("errors", counts.errors),
        ("estimated", counts.estimated),
        ("node_lost", counts.node_lost),
    ];
    row.extend(figures.map(|(name, figure)| (name.to_owned(), figure.into())));
    Value::Object(row)
}

/// The beginning of an hour.
fn time(hour: u64) -> String {
    let seconds = i64::try_from(hour.saturating_mul(3600)).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

fn away() -> Answer {
    let message = "The limits' store does not answer; retry soon.";
    error(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
}
