//! What a request used, as its provider counted it or as we estimated it.

/// Tokens of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input_tokens: u64,
    /// Completion tokens, reasoning included.
    pub output_tokens: u64,
    /// Of the input: read from the provider's prompt cache.
    pub cached_tokens: u64,
    /// Of the output: spent on reasoning.
    pub reasoning_tokens: u64,
    /// True where the provider gave no figures and these come from the bytes seen.
    pub estimated: bool,
}

impl Usage {
    /// An estimate from bytes of text: four bytes make a token, rounded up, which is the usual
    /// figure for English prose and too many rather than too few for code.
    #[must_use]
    pub fn estimate(input_bytes: u64, output_bytes: u64) -> Self {
        Self {
            input_tokens: input_bytes.div_ceil(4),
            output_tokens: output_bytes.div_ceil(4),
            estimated: true,
            ..Self::default()
        }
    }
}
