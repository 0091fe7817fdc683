//! What is served where no fleet document is given: the providers whose usual variable is set,
//! and with none of them the simulator, so that the first run needs nothing.

use std::net::SocketAddr;

use serde_json::json;

use super::document::Document;
use super::env::Env;
use super::fault::{DocumentFault, Warning};
use super::load::Format;

/// Providers by the variable that usually holds their credential, and whether they are served.
const USUAL: [(&str, &str, bool); 4] = [
    ("openai", "OPENAI_API_KEY", true),
    ("anthropic", "ANTHROPIC_API_KEY", false),
    ("gemini", "GEMINI_API_KEY", false),
    ("cohere", "COHERE_API_KEY", false),
];

/// Whether the document that stands in for a missing one leads to the simulator.
#[must_use]
pub fn needs_simulator(env: &Env) -> bool {
    !USUAL.iter().any(|(_, variable, served)| *served && env.get(variable).is_some())
}

/// The document that stands in for a missing one; `sim` is where the simulator listens, and
/// `models` are those that it lists.
///
/// # Errors
/// None that a caller could cause; a fault here is one of ours, and shown like any other.
pub fn default_document(
    env: &Env,
    sim: SocketAddr,
    models: &[&str],
) -> Result<(Document, Vec<Warning>), Vec<DocumentFault>> {
    let set = || USUAL.iter().filter(|(_, variable, _)| env.get(variable).is_some());
    let warnings = set().filter(|(.., served)| !served).map(|(provider, variable, _)| Warning {
        name: (*variable).to_owned(),
        what: format!("is set, but {provider} is not served yet"),
        hint: None,
    });
    let warnings = warnings.collect();
    let document = if !needs_simulator(env) {
        json!({
            "providers": {"openai": {"protocol": "openai", "api_key": "${OPENAI_API_KEY}"}},
            "targets": {"openai": {"provider": "openai"}},
            "pools": {"openai": {"tiers": [["openai"]]}},
            "routes": [{"name": "openai", "match": {"model": "*"}, "pool": "openai"}],
        })
    } else {
        json!({
            "providers": {"sim": {"protocol": "openai", "base_url": format!("http://{sim}/v1")}},
            "targets": {"sim": {"provider": "sim"}},
            "pools": {"sim": {"tiers": [["sim"]]}},
            "routes": sim_routes(models),
        })
    };
    let document = Document::parse("(no document)", Format::Json, document.to_string().as_bytes())?;
    Ok((document, warnings))
}
/// A route for each listed model, so that `/v1/models` shows it, and one for all of the family.
fn sim_routes(models: &[&str]) -> Vec<serde_json::Value> {
    let route = |model: &str| json!({"name": model, "match": {"model": model}, "pool": "sim"});
    let family = json!({"name": "sim-family", "match": {"model": "sim*"}, "pool": "sim"});
    models
        .iter()
        .filter(|model| **model != "sim")
        .map(|model| route(model))
        .chain([family])
        .collect()
}
