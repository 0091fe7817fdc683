//! How the simulator behaves, and how one request may change that for itself.
//!
//! The defaults answer at once. A request that reaches the simulator directly may override each
//! setting with a header (`x-sim-tokens: 64`, `x-sim-first-token: 200ms`); whatever proxy stands
//! between is not expected to pass such headers on.

use std::time::Duration;

use actix_http::header::HeaderMap;

use super::fault::Fault;
use crate::domain::parse_duration;

/// No delay and no silence lasts longer than this, so a client without deadlines is let go.
pub(super) const LONGEST: Duration = Duration::from_secs(600);

/// More text than this in one answer is refused: it is built in memory where it is not streamed.
const MOST_TEXT_BYTES: u64 = 64 << 20;

/// Where an override header begins.
const PREFIX: &str = "x-sim-";

/// The simulator's settings. The defaults answer at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Until the first token of a stream, or before all the rest of a plain answer's time.
    pub first_token: Duration,
    /// From each token to the next. A plain answer takes as long as its stream would.
    pub token_interval: Duration,
    /// Tokens in an answer, where the request does not ask for fewer (`max_tokens`).
    pub tokens: u32,
    /// Bytes of text in each token; none means words of natural length.
    pub token_bytes: Option<u32>,
    /// The share by which each delay varies, both ways: 0 is none, 1 is from nothing to double.
    pub jitter: f64,
    /// The share of requests that is answered 503 with `Retry-After`, whatever the model.
    pub error_rate: f64,
    /// What `Retry-After` says, on a 429 and on a 503.
    pub retry_after: Duration,
    /// Until the first token of the model `sim-slow-first-token`.
    pub slow_first_token: Duration,
    /// The tokens that `sim-cut`, `sim-stall` and the like send first; none means half of them.
    pub fault_after: Option<u32>,
    /// Where the dice start; none means somewhere else in each run.
    pub seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first_token: Duration::ZERO,
            token_interval: Duration::ZERO,
            tokens: 16,
            token_bytes: None,
            jitter: 0.0,
            error_rate: 0.0,
            retry_after: Duration::from_secs(1),
            slow_first_token: Duration::from_secs(20),
            fault_after: None,
            seed: None,
        }
    }
}

impl Config {
    /// These settings as the headers of one request change them, and the fault they ask for.
    ///
    /// # Errors
    /// Which header is not understood, and why.
    pub(super) fn overridden(
        mut self,
        headers: &HeaderMap,
    ) -> Result<(Self, Option<Fault>), String> {
        let mut fault = None;
        for (name, value) in headers {
            let Some(setting) = name.as_str().strip_prefix(PREFIX) else { continue };
            let value = value.to_str().unwrap_or_default().trim();
            if setting == "fault" {
                fault = Fault::of_model(value);
                if fault.is_none() {
                    return Err(format!("{PREFIX}{setting}: no fault is named {value:?}"));
                }
            } else {
                self.set(setting, value).map_err(|why| format!("{PREFIX}{setting}: {why}"))?;
            }
        }
        Ok((self, fault))
    }

    /// Changes one setting.
    fn set(&mut self, setting: &str, value: &str) -> Result<(), String> {
        match setting {
            "first-token" => self.first_token = duration(value)?,
            "token-interval" => self.token_interval = duration(value)?,
            "tokens" => self.tokens = number(value)?,
            "token-bytes" => self.token_bytes = Some(number(value)?),
            "jitter" => self.jitter = share(value)?,
            "error-rate" => self.error_rate = share(value)?,
            "retry-after" => self.retry_after = duration(value)?,
            "slow-first-token" => self.slow_first_token = duration(value)?,
            "fault-after" => self.fault_after = Some(number(value)?),
            _ => return Err("no such setting".to_owned()),
        }
        Ok(())
    }

    /// Whether an answer of this size may be made.
    ///
    /// # Errors
    /// What to lower.
    pub(super) fn check_size(&self, choices: u32) -> Result<(), String> {
        let each = u64::from(self.token_bytes.unwrap_or(8));
        let text = u64::from(self.tokens).saturating_mul(each).saturating_mul(choices.into());
        if text > MOST_TEXT_BYTES {
            return Err(format!(
                "{text} bytes of text are more than {MOST_TEXT_BYTES}: lower tokens"
            ));
        }
        Ok(())
    }
}

/// Reads a duration with its unit, up to the longest one.
fn duration(value: &str) -> Result<Duration, String> {
    let duration = parse_duration(value).map_err(|error| error.to_string())?;
    Ok(duration.min(LONGEST))
}

/// Reads a whole number.
fn number(value: &str) -> Result<u32, String> {
    value.parse().map_err(|_| format!("{value:?} is not a whole number"))
}

/// Reads a share between 0 and 1.
fn share(value: &str) -> Result<f64, String> {
    let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{value:?} is not between 0 and 1"))
}

#[cfg(test)]
mod tests {
    use actix_http::header::{HeaderName, HeaderValue};

    use super::*;

    fn overridden(
        headers: &[(&'static str, &'static str)],
    ) -> Result<(Config, Option<Fault>), String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Config::default().overridden(&map)
    }

    #[test]
    fn a_request_overrides_single_settings() {
        let (config, fault) = overridden(&[
            ("host", "sim"),
            ("x-sim-tokens", "64"),
            ("x-sim-first-token", "200ms"),
            ("x-sim-jitter", "0.5"),
            ("x-sim-fault", "sim-cut"),
        ])
        .unwrap();
        assert_eq!(config.tokens, 64);
        assert_eq!(config.first_token, Duration::from_millis(200));
        assert_eq!(config.jitter, 0.5);
        assert_eq!(fault, Some(Fault::Cut));
        assert_eq!(config.retry_after, Config::default().retry_after);
    }

    #[test]
    fn a_header_that_makes_no_sense_is_named() {
        for (name, value) in [
            ("x-sim-tokens", "many"),
            ("x-sim-first-token", "200"),
            ("x-sim-jitter", "2"),
            ("x-sim-fault", "sim-nothing"),
            ("x-sim-colour", "red"),
        ] {
            let error = overridden(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn a_delay_is_bounded() {
        let (config, _) = overridden(&[("x-sim-first-token", "24h")]).unwrap();
        assert_eq!(config.first_token, LONGEST);
    }
}
