//! Phase: from the requested model to a pool, and whether this key may use it.

use std::sync::Arc;

use crate::domain::{Code, Fault};
use crate::snapshot::{Key, Pool, Snapshot};

/// The pool for `model`.
///
/// # Errors
/// `model_not_found` where nothing serves it, `model_not_allowed` where the key may not.
pub(super) fn route(snapshot: &Snapshot, key: &Key, model: &str) -> Result<Arc<Pool>, Fault> {
    let Some(pool) = snapshot.pool(model) else {
        let message = format!("model {model:?} is not served here; GET /v1/models lists what is");
        return Err(Fault::new(Code::ModelNotFound, message));
    };
    if !key.may_use(model, &pool.name) {
        let message = format!("this API key may not use model {model:?}");
        return Err(Fault::new(Code::ModelNotAllowed, message));
    }
    Ok(Arc::clone(pool))
}

/// The models that `key` may ask for by name, sorted: pools, and routes without a wildcard.
pub(super) fn models(snapshot: &Snapshot, key: &Key) -> Vec<String> {
    let pools = snapshot.pools.iter().map(|pool| (&*pool.name, &*pool.name));
    let literal = snapshot.routes.iter().filter(|route| route.model.is_literal());
    let routes = literal.map(|route| (route.model.as_str(), &*route.pool.name));
    let mut models: Vec<String> = pools
        .chain(routes)
        .filter(|(model, pool)| key.may_use(model, pool))
        .map(|(model, _)| model.to_owned())
        .collect();
    models.sort_unstable();
    models.dedup();
    models
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::domain::Glob;

    #[test]
    fn a_model_is_found_by_route_then_by_pool_and_must_be_allowed() {
        let snapshot = testing::snapshot_with_routes(&[("gpt-4o*", "fast")], &["fast", "slow"]);
        let key = testing::key("any", None);
        let name = |model: &str| route(&snapshot, &key, model).map(|pool| pool.name.to_string());
        assert_eq!(name("gpt-4o-mini"), Ok("fast".into()));
        assert_eq!(name("slow"), Ok("slow".into()));
        assert_eq!(name("gpt-5").map_err(|fault| fault.code), Err(Code::ModelNotFound));
        let key = testing::key("some", Some(vec![Glob::new("gpt-4o*")]));
        assert!(route(&snapshot, &key, "gpt-4o").is_ok());
        let refused = route(&snapshot, &key, "slow").expect_err("not granted");
        assert_eq!(refused.code, Code::ModelNotAllowed);
    }

    #[test]
    fn only_what_the_key_may_use_is_listed() {
        let routes = [("gpt-4o", "fast"), ("gpt-*", "fast")];
        let snapshot = testing::snapshot_with_routes(&routes, &["fast", "slow"]);
        assert_eq!(models(&snapshot, &testing::key("any", None)), ["fast", "gpt-4o", "slow"]);
        let key = testing::key("some", Some(vec![Glob::new("slow")]));
        assert_eq!(models(&snapshot, &key), ["slow"]);
    }
}
