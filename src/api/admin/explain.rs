//! `POST /admin/v1/explain`: what would be decided about a request, and what would be if the store
//! were away. Of the decision only its limits are there.

use actix_http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::limits::{key, shown, used};
use super::{Answer, error, typed};
use crate::policy::limit::share::Bound;
use crate::policy::limit::{Algorithm, Degraded};
use crate::proxy::{Applying, Known, Shared, applying};
use crate::store::Away;

/// The request that is asked about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    key: Option<String>,
    model: Option<String>,
    user: Option<String>,
    target: Option<String>,
}

/// Explains the limits of a request.
pub(super) async fn explain(shared: &Shared, body: &[u8]) -> Answer {
    match explained(shared, body).await {
        Ok(body) => typed(StatusCode::OK, "application/json", format!("{body}\n")),
        Err(answer) => answer,
    }
}

async fn explained(shared: &Shared, body: &[u8]) -> Result<Value, Answer> {
    let asked: Asked = serde_json::from_slice(body).map_err(|fault| {
        let message = format!("The body is no question: {fault}.");
        error(StatusCode::BAD_REQUEST, "invalid_request", &message)
    })?;
    let snapshot = shared.snapshot.load_full();
    let key = key(&snapshot, asked.key.as_deref())?;
    let known = Known {
        model: asked.model.as_deref(),
        user: asked.user.as_deref(),
        ip: None,
        target: asked.target.as_deref(),
    };
    let all = applying(&snapshot, &key, &shared.node, known, shared.store.now_ms());
    // Whoever asks what holds while the store is away may ask while it is.
    let (used, answers) = match used(shared, &all).await {
        Ok(used) => (used, true),
        Err(Away) => (vec![None; all.len()], false),
    };
    let limits = all.iter().zip(used).map(|(limit, used)| one(shared, limit, used));
    let limits: Vec<_> = limits.collect();
    Ok(json!({
        "key": &*key.name,
        "tenant": &*key.tenant.name,
        "store_answers": answers,
        "limits": limits,
    }))
}

fn one(shared: &Shared, limit: &Applying, used: Option<u64>) -> Value {
    let mut shown = shown(limit, used);
    let away = shared.store.if_away(limit.degraded, &limit.rule).map(|away| {
        let bound = match away.bound {
            Bound::AtMost(most) => Some(most),
            Bound::Unbounded => None,
        };
        let local = limit.degraded == Degraded::LocalShare;
        json!({
            "policy": super::limits::degraded(limit.degraded),
            "live_nodes": away.live,
            "share": local.then_some(away.share),
            "bound": bound,
            "text": text(limit, away.live, away.share, bound),
        })
    });
    if let Value::Object(shown) = &mut shown {
        shown.insert("if_store_is_away".to_owned(), away.unwrap_or(Value::Null));
    }
    shown
}

/// The rule in one sentence.
fn text(limit: &Applying, live: u32, share: u64, bound: Option<u64>) -> String {
    let each = if live == 1 {
        "this node, the only one known,".to_owned()
    } else {
        format!("each of {live} nodes")
    };
    let per = match limit.rule.algorithm {
        Algorithm::Budget { .. } => "in this period",
        Algorithm::Permits => "at the same time",
        Algorithm::Window { .. } | Algorithm::Bucket { .. } => "in any window",
    };
    match (limit.degraded, bound) {
        (Degraded::FailClosed, _) => "nothing is admitted".to_owned(),
        (Degraded::FailOpen, _) | (_, None) => {
            "everything is admitted, without a bound; it is charged later".to_owned()
        }
        (Degraded::LocalShare, Some(bound)) if share == 0 && bound > 0 => format!(
            "the nodes take turns, and it is not this one's now; together they admit at most {bound} \
             {per}, beside what the store had admitted"
        ),
        (Degraded::LocalShare, Some(bound)) => format!(
            "{each} admits up to {share}; together at most {bound} {per}, beside what the store had \
             admitted"
        ),
    }
}
