//! What the spans of a request and of its attempts say, in the words of tracing.

use std::sync::Arc;

use crate::domain::Usage;
use crate::provider::{Endpoint, Protocol};
use crate::snapshot::Target;
use crate::telemetry::{AttemptFacts, AttemptSpan, RequestFacts, RequestSpan};

/// The names that a request came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub(super) tenant: Option<&'a Arc<str>>,
    pub(super) pool: Option<&'a Arc<str>>,
    pub(super) target: Option<&'a Arc<str>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) attempts: u32,
    pub(super) status: u16,
    pub(super) outcome: &'static str,
    pub(super) usage: Usage,
}

/// Ends the span of a request.
pub(super) fn end_request(span: RequestSpan, endpoint: Endpoint, names: Names<'_>, ended: Ended) {
    let Names { tenant, pool, target } = names;
    let Ended { attempts, status, outcome, usage } = ended;
    let (operation, endpoint) = (operation(endpoint), endpoint.path());
    span.end(RequestFacts {
        operation,
        endpoint,
        tenant,
        pool,
        target,
        attempts,
        status,
        outcome,
        usage,
    });
}

/// Ends the span of an attempt.
pub(super) fn end_attempt(
    span: AttemptSpan,
    endpoint: Endpoint,
    target: &Target,
    outcome: &'static str,
    usage: Usage,
) {
    let protocol = match target.provider.protocol {
        Protocol::OpenAi => "openai",
    };
    span.end(AttemptFacts {
        operation: operation(endpoint),
        protocol,
        provider: &target.provider.name,
        target: &target.name,
        model: target.model.as_ref(),
        origin: &target.provider.base.origin,
        outcome,
        usage,
    });
}

/// What the GenAI conventions call it; they have no words for the last ones.
fn operation(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::ChatCompletions => "chat",
        Endpoint::Completions => "text_completion",
        Endpoint::Embeddings => "embeddings",
        Endpoint::Moderations => "moderation",
        Endpoint::ImagesGenerations | Endpoint::ImagesEdits | Endpoint::ImagesVariations => {
            "image_generation"
        }
        Endpoint::AudioSpeech => "speech",
        Endpoint::AudioTranscriptions => "transcription",
        Endpoint::AudioTranslations => "translation",
    }
}
