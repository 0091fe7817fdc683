//! OpenAI as a simulated provider: which path is answered by which file, and the faults that all
//! of its endpoints share.

mod ask;
mod audio;
mod chat;
mod embeddings;
mod error;
mod images;
mod moderations;
mod say;
mod script;

use std::time::Duration;

use actix_http::{Method, StatusCode};

use self::ask::Ask;
use super::config::Config;
use super::fault::{FAULTS, Fault};
use super::json::{push, push_escaped};
use super::reply::{Outcome, Reply};
use super::server::{Call, Stage};

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chat,
    Completions,
    Embeddings,
    Moderations,
    ImagesGenerations,
    ImagesEdits,
    ImagesVariations,
    Speech,
    Transcriptions,
    Translations,
}

/// Everything an endpoint needs to answer.
struct Scene<'a> {
    stage: &'a Stage,
    ask: &'a Ask<'a>,
    config: Config,
    fault: Option<Fault>,
}

/// Answers one request.
pub(super) fn answer(stage: &Stage, call: &Call<'_>) -> Outcome {
    match perform(stage, call) {
        Ok(outcome) => outcome,
        Err(refusal) => Outcome::Reply(refusal),
    }
}

/// An error of this protocol that has nothing to do with its endpoints.
pub(super) fn refuse(status: StatusCode, message: &str) -> Reply {
    error::invalid(status, message, None, None)
}

fn perform(stage: &Stage, call: &Call<'_>) -> Result<Outcome, Reply> {
    let path = call.path.strip_prefix("/v1").unwrap_or(call.path);
    let Some(kind) = Kind::of_path(path) else { return models(call, path).map(Outcome::Reply) };
    if *call.method != Method::POST {
        return Err(error::wrong_method(call));
    }
    let ask = Ask::read(kind, call).map_err(|why| error::bad_request(&why))?;
    let fault = call.fault.or_else(|| Fault::of_model(&ask.model));
    match fault {
        Some(Fault::Reset) => return Ok(Outcome::Reset),
        Some(Fault::Silent) => return Ok(Outcome::Silence),
        Some(fault) => error::of_fault(fault, &call.config).map_or(Ok(()), Err)?,
        None => {}
    }
    if stage.chance.hits(call.config.error_rate) {
        return Err(error::unavailable(&call.config));
    }
    let mut config = call.config;
    if fault == Some(Fault::SlowFirstToken) {
        config.first_token = config.slow_first_token;
    }
    config.check_size(ask.n).map_err(|why| refuse(StatusCode::BAD_REQUEST, &why))?;
    let scene = Scene { stage, ask: &ask, config, fault };
    if fault == Some(Fault::ErrorEvent) && !scene.streams(kind) {
        return Err(error::server_error());
    }
    Ok(Outcome::Reply(match kind {
        Kind::Chat | Kind::Completions => chat::answer(&scene, kind == Kind::Chat),
        Kind::Embeddings => embeddings::answer(&scene),
        Kind::Moderations => moderations::answer(&scene),
        Kind::ImagesGenerations => images::answer(&scene, "image_generation"),
        Kind::ImagesEdits | Kind::ImagesVariations => images::answer(&scene, "image_edit"),
        Kind::Speech => audio::speech(&scene),
        Kind::Transcriptions => audio::transcript(&scene, true),
        Kind::Translations => audio::transcript(&scene, false),
    }))
}

impl Kind {
    fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/chat/completions" => Self::Chat,
            "/completions" => Self::Completions,
            "/embeddings" => Self::Embeddings,
            "/moderations" => Self::Moderations,
            "/images/generations" => Self::ImagesGenerations,
            "/images/edits" => Self::ImagesEdits,
            "/images/variations" => Self::ImagesVariations,
            "/audio/speech" => Self::Speech,
            "/audio/transcriptions" => Self::Transcriptions,
            "/audio/translations" => Self::Translations,
            _ => return None,
        })
    }

    /// The field without which there is nothing to answer.
    const fn required(self) -> &'static str {
        match self {
            Self::Chat => "messages",
            Self::Embeddings | Self::Moderations | Self::Speech => "input",
            Self::Completions | Self::ImagesGenerations => "prompt",
            Self::ImagesEdits | Self::ImagesVariations => "image",
            Self::Transcriptions | Self::Translations => "file",
        }
    }

    /// Whether the required field may be a list, with an answer for each.
    const fn takes_several(self) -> bool {
        matches!(self, Self::Completions | Self::Embeddings | Self::Moderations)
    }

    /// The model where the request may leave it out.
    const fn usual_model(self) -> Option<&'static str> {
        match self {
            Self::Moderations => Some("omni-moderation-latest"),
            Self::ImagesGenerations | Self::ImagesEdits | Self::ImagesVariations => {
                Some("gpt-image-1")
            }
            _ => None,
        }
    }
}

impl Scene<'_> {
    /// Whether the answer is a stream of events.
    fn streams(&self, kind: Kind) -> bool {
        match kind {
            Kind::Embeddings | Kind::Moderations | Kind::Translations => false,
            Kind::Speech => self.ask.stream_format == Some("sse"),
            _ => self.ask.stream,
        }
    }

    /// How long a plain answer takes whose stream would have so many tokens.
    fn duration(&self, tokens: u32) -> Duration {
        let Config { first_token, token_interval, jitter, .. } = self.config;
        let rest = token_interval.saturating_mul(tokens.saturating_sub(1));
        self.stage.chance.around(first_token.saturating_add(rest), jitter)
    }

    /// A plain JSON answer that takes as long as one token.
    fn json(&self, text: String) -> Reply {
        Reply::json(text, self.duration(1), self.fault)
    }
}

/// Tokens as a rough count of this text: nobody bills by them.
fn tokens_in(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

/// `/models` and `/models/{id}`, and the end for every other path.
fn models(call: &Call<'_>, path: &str) -> Result<Reply, Reply> {
    let one = path.strip_prefix("/models/").filter(|id| !id.is_empty());
    if one.is_none() && path != "/models" {
        return Err(error::unknown_path(call));
    }
    if *call.method != Method::GET {
        return Err(error::wrong_method(call));
    }
    let mut out = String::with_capacity(2048);
    let model = |out: &mut String, id: &str| {
        out.push_str(r#"{"id":""#);
        push_escaped(out, id);
        push(out, format_args!(r#"","object":"model","created":{MODELS_SINCE},"#));
        out.push_str(r#""owned_by":"flotilla-sim"}"#);
    };
    if let Some(id) = one {
        model(&mut out, id);
    } else {
        out.push_str(r#"{"object":"list","data":["#);
        model(&mut out, "sim");
        for fault in FAULTS {
            out.push(',');
            model(&mut out, fault.model);
        }
        out.push_str("]}");
    }
    Ok(Reply::json(out, Duration::ZERO, None))
}

/// When the simulated models say they were made: any fixed instant.
const MODELS_SINCE: u64 = 1_735_689_600;
