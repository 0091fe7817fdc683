//! Providers and targets: where requests can go.

use schemars::JsonSchema;
use serde::Deserialize;

use super::TargetLimit;
use super::scalar::Variables;

/// A vendor's endpoint.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Provider {
    /// The wire protocol it speaks.
    #[expect(dead_code, reason = "there is one; the walk refuses the others")]
    pub(in crate::config) protocol: Protocol,
    /// Where it is, such as `https://api.openai.com/v1`. Default: the vendor's own.
    pub(in crate::config) base_url: Option<Variables>,
    /// Our credential there. Left out for servers that ask for none.
    pub(in crate::config) api_key: Option<Variables>,
    /// Whether streams may be asked to end with their usage; `false` for servers that refuse it.
    #[serde(default = "yes")]
    pub(in crate::config) usage_in_stream: bool,
    /// Whether it is sent `traceparent` and `tracestate`, so that its own spans join a request's
    /// trace. Off, because a vendor has no business with them; for servers of one's own.
    #[serde(default)]
    pub(in crate::config) trace_context: bool,
}

fn yes() -> bool {
    true
}

/// A wire protocol.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Protocol {
    /// OpenAI's Chat Completions, embeddings and their sisters, as many vendors copy them.
    Openai,
    /// OpenAI's Responses.
    #[schemars(extend("x-served" = false))]
    OpenaiResponses,
    /// Anthropic's Messages.
    #[schemars(extend("x-served" = false))]
    Anthropic,
    /// Google's Gemini API.
    #[schemars(extend("x-served" = false))]
    Gemini,
    /// Cohere's API.
    #[schemars(extend("x-served" = false))]
    Cohere,
    /// Amazon Bedrock.
    #[schemars(extend("x-served" = false))]
    Bedrock,
    /// Azure OpenAI.
    #[schemars(extend("x-served" = false))]
    Azure,
    /// Google Vertex AI.
    #[schemars(extend("x-served" = false))]
    Vertex,
}

/// A provider and a model there: the unit of balancing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Target {
    /// The provider's name.
    pub(in crate::config) provider: String,
    /// The model asked for there. Left out: the client's is passed on.
    pub(in crate::config) model: Option<String>,
    /// Zone label.
    pub(in crate::config) zone: Option<String>,
    /// Region label; tenants may be restricted to some.
    pub(in crate::config) region: Option<String>,
    /// Its share of its tier; 0 serves only where nothing else is left.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(in crate::config) weight: u32,
    /// What it costs. Left out: budgets and limits of cost do not count its requests.
    pub(in crate::config) price: Option<Price>,
    /// Limits of this target.
    #[serde(default)]
    pub(in crate::config) limits: Vec<TargetLimit>,
}

fn one() -> u32 {
    1
}

/// USD per million tokens, with at most 6 decimals.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Price {
    /// Of the prompt.
    pub(in crate::config) input: f64,
    /// Of the answer.
    pub(in crate::config) output: f64,
}
