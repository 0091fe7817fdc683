//! The endpoints that take a request for a model, as the data listener serves them.

use super::Protocol;

/// What a client asks for, by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/moderations`
    Moderations,
    /// `/v1/images/generations`
    ImagesGenerations,
    /// `/v1/images/edits`
    ImagesEdits,
    /// `/v1/images/variations`
    ImagesVariations,
    /// `/v1/audio/speech`
    AudioSpeech,
    /// `/v1/audio/transcriptions`
    AudioTranscriptions,
    /// `/v1/audio/translations`
    AudioTranslations,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 10] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Embeddings,
        Self::Moderations,
        Self::ImagesGenerations,
        Self::ImagesEdits,
        Self::ImagesVariations,
        Self::AudioSpeech,
        Self::AudioTranscriptions,
        Self::AudioTranslations,
    ];

    /// The path below a base URL (which ends in `/v1`); also the label in metrics and logs.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Moderations => "/moderations",
            Self::ImagesGenerations => "/images/generations",
            Self::ImagesEdits => "/images/edits",
            Self::ImagesVariations => "/images/variations",
            Self::AudioSpeech => "/audio/speech",
            Self::AudioTranscriptions => "/audio/transcriptions",
            Self::AudioTranslations => "/audio/translations",
        }
    }

    /// The protocol its clients speak.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        Protocol::OpenAi
    }

    /// What its requests have for a body.
    #[must_use]
    pub const fn body_kind(self) -> BodyKind {
        match self {
            Self::ImagesVariations | Self::AudioTranscriptions | Self::AudioTranslations => {
                BodyKind::Form
            }
            Self::ImagesEdits => BodyKind::Either,
            _ => BodyKind::Json,
        }
    }

    /// Whether the bytes of a request are text, from which its tokens can be estimated.
    #[must_use]
    pub const fn asks_with_text(self) -> bool {
        matches!(self.body_kind(), BodyKind::Json)
    }

    /// Whether the bytes of an answer are generated text, from which its tokens can be estimated:
    /// vectors, verdicts, pictures and sound are not.
    #[must_use]
    pub const fn answers_with_text(self) -> bool {
        match self {
            Self::ChatCompletions
            | Self::Completions
            | Self::AudioTranscriptions
            | Self::AudioTranslations => true,
            Self::Embeddings
            | Self::Moderations
            | Self::ImagesGenerations
            | Self::ImagesEdits
            | Self::ImagesVariations
            | Self::AudioSpeech => false,
        }
    }

    /// Whether a stream of it tells its usage only where `stream_options` asks for it.
    #[must_use]
    pub const fn usage_is_optional(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }
}

/// How the body of a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// A JSON object.
    Json,
    /// `multipart/form-data`.
    Form,
    /// Either, as the content type says.
    Either,
}
