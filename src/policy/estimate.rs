//! What a request will use, before anybody knows: reserved first, settled to the truth later.
//!
//! No client has to say how long its answer may be, and nobody's tokenizer runs here: a model's
//! tokens for each byte of prompt, and the length of its answers, are learnt from what providers
//! report. An estimate that is too low costs a top-up, one that is too high keeps others out for as
//! long as the request runs; so prompts are estimated at their mean and answers well above theirs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::Usage;

/// How much of a limit an estimate may claim: more tokens than any model takes, and at the dearest
/// price still an amount that limits can count.
const MOST: u64 = 1 << 30;

/// Tokens for each byte of a prompt: of a model that nothing is known of, and of any model. A byte
/// is never more than a token, and an image in base64 is thousands of bytes for each.
const RATIO: f64 = 0.25;
const RATIOS: (f64, f64) = (1.0 / 4096.0, 1.0);

/// Tokens of an answer: of a model that nothing is known of, and of any model.
const ANSWER: f64 = 1024.0;
const ANSWERS: (f64, f64) = (16.0, 65_536.0);

/// What one observation weighs: in the mean of a ratio or a length, and in a deviation, which must
/// follow faster than its mean. The latter two are those of TCP's round-trip times (RFC 6298).
const RATIO_WEIGHT: f64 = 1.0 / 16.0;
const MEAN_WEIGHT: f64 = 1.0 / 8.0;
const DEVIATION_WEIGHT: f64 = 1.0 / 4.0;

/// So many mean deviations above the mean an answer is rarely longer.
const DEVIATIONS: f64 = 2.0;

/// A top-up is half of what was reserved: few round trips for a long answer, little in vain for a
/// short one. The bounds keep it worth a round trip, and the excess over a limit small.
const STEPS: (u64, u64) = (256, 8192);

/// What is known of a request before it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The model asked for upstream.
    pub model: &'a str,
    /// The length of what becomes the prompt, as the client wrote it. What matters is that it is
    /// measured in the same way each time.
    pub prompt_bytes: u64,
    /// The most tokens that the client allows for each choice of the answer.
    pub max_tokens: Option<u64>,
    /// How many choices the answer has.
    pub choices: u32,
    /// Whether the endpoint answers with text; embeddings, images and their like cost no output
    /// tokens that could be foreseen.
    pub text: bool,
}

/// Tokens that a request is thought to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer, all choices together.
    pub output: u64,
}

/// What has been learnt of models: a bounded number of them, those observed last.
#[derive(Debug)]
pub struct Estimator {
    models: HashMap<Arc<str>, Learnt>,
    most: usize,
    observed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Learnt {
    /// Tokens for each byte of prompt.
    ratio: f64,
    /// Tokens of an answer of which the client did not say how long it may be.
    mean: f64,
    deviation: f64,
    /// Which observation was its last.
    last: u64,
}

/// By how much a reservation of so many tokens is topped up when a stream has used them.
#[must_use]
pub fn top_up(reserved: u64) -> u64 {
    (reserved / 2).clamp(STEPS.0, STEPS.1)
}

// === impl Estimator ===

impl Estimator {
    /// One that knows nothing yet and remembers `most` models, at least 1.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { models: HashMap::new(), most: most.max(1), observed: 0 }
    }

    /// What a request will use. At least one token of prompt, where there is any.
    #[must_use]
    pub fn estimate(&self, ask: &Ask<'_>) -> Tokens {
        let learnt = self.models.get(ask.model).copied().unwrap_or_default();
        let output = if ask.text {
            let each = ask.max_tokens.unwrap_or_else(|| whole(learnt.answer()));
            each.saturating_mul(u64::from(ask.choices.max(1))).min(MOST)
        } else {
            0
        };
        let bytes = ask.prompt_bytes.min(u64::from(u32::MAX));
        Tokens { input: whole(float(bytes) * learnt.ratio).min(MOST), output }
    }

    /// Learns from what a complete answer to `ask` really used. Figures that are estimates
    /// themselves teach nothing, and lengths that the client bounded nothing about those that
    /// nobody did.
    pub fn observe(&mut self, ask: &Ask<'_>, usage: &Usage) {
        if usage.estimated {
            return;
        }
        self.observed += 1;
        let last = self.observed;
        let learnt = self.entry(ask.model);
        learnt.last = last;
        if ask.prompt_bytes > 0 && usage.input_tokens > 0 {
            let ratio = float(usage.input_tokens) / float(ask.prompt_bytes);
            let ratio = ratio.clamp(RATIOS.0, RATIOS.1);
            learnt.ratio += (ratio - learnt.ratio) * RATIO_WEIGHT;
        }
        if ask.text && ask.max_tokens.is_none() {
            let length = float(usage.output_tokens) / f64::from(ask.choices.max(1));
            let off = length.min(ANSWERS.1) - learnt.mean;
            learnt.deviation += (off.abs() - learnt.deviation) * DEVIATION_WEIGHT;
            learnt.mean += off * MEAN_WEIGHT;
        }
    }

    /// What is known of `model`; where it is new and there is no room, the one that was observed
    /// longest ago is forgotten.
    fn entry(&mut self, model: &str) -> &mut Learnt {
        if self.models.len() >= self.most && !self.models.contains_key(model) {
            let oldest = self.models.iter().min_by_key(|(_, learnt)| learnt.last);
            if let Some(oldest) = oldest.map(|(name, _)| Arc::clone(name)) {
                self.models.remove(&oldest);
            }
        }
        if !self.models.contains_key(model) {
            self.models.insert(model.into(), Learnt::default());
        }
        self.models.get_mut(model).expect("it was put in where it was missing")
    }
}

// === impl Learnt ===

impl Learnt {
    /// A length that answers rarely pass.
    fn answer(&self) -> f64 {
        (self.mean + DEVIATIONS * self.deviation).clamp(ANSWERS.0, ANSWERS.1)
    }
}

impl Default for Learnt {
    /// A model that nothing is known of.
    fn default() -> Self {
        Self { ratio: RATIO, mean: ANSWER, deviation: 0.0, last: 0 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate needs no 53 bits")]
fn float(number: u64) -> f64 {
    number as f64
}

/// The next whole number; a float beyond 64 bits becomes the largest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "lengths are not negative, and `as` saturates"
)]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

#[cfg(test)]
mod tests;
