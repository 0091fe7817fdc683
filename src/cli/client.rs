//! The way of the client commands to the admin API of a node.

use std::sync::Arc;
use std::time::Duration;

use actix_http::Method;
use actix_http::header::{self, HeaderValue};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;

use super::{BAD_INPUT, REFUSED, UNREACHABLE};
use crate::config::{Env, Settings};
use crate::domain::{BaseUrl, Headers, Payload, Secret};
use crate::upstream::{self, Call, Upstream};

/// For one answer, from the name look-up to its last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer of the admin API comes near it.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// Why a command ends without an answer: its exit code, and what the operator is told.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) lines: Vec<String>,
}

/// One node's admin API.
#[derive(Debug)]
pub(super) struct Client {
    url: BaseUrl,
    token: Secret,
}

impl Client {
    /// The node that the settings name.
    ///
    /// # Errors
    /// The settings are wrong, or there is no token among them.
    pub(super) fn new(env: &Env) -> Result<Self, Failure> {
        let bad = |lines| Failure { code: BAD_INPUT, lines };
        let (settings, _) = Settings::load(env)
            .map_err(|faults| bad(faults.iter().map(ToString::to_string).collect()))?;
        let url = settings.admin_url.parse::<BaseUrl>();
        let url = url.map_err(|fault| bad(vec![format!("FLOTILLA_ADMIN_URL: {fault}")]))?;
        let token = settings.admin_token.ok_or_else(|| {
            let what = "FLOTILLA_ADMIN_TOKEN is not set; set it to the admin token of the node";
            bad(vec![what.to_owned()])
        })?;
        Ok(Self { url, token })
    }

    /// Posts a question and waits for its answer.
    ///
    /// # Errors
    /// The node cannot be reached, or refuses.
    pub(super) fn post(&self, path: &str, question: &Value) -> Result<Value, Failure> {
        let body = Bytes::from(question.to_string());
        let asked = actix_rt::System::new()
            .block_on(async { timeout(PATIENCE, self.send(path, body)).await });
        let away = |why: &str| {
            let line = format!("{}: {why}; see FLOTILLA_ADMIN_URL", self.url);
            Failure { code: UNREACHABLE, lines: vec![line] }
        };
        let (status, body) =
            asked.map_err(|_| away("no answer within 10 s"))?.map_err(|why| away(&why))?;
        let answer: Value = serde_json::from_slice(&body)
            .map_err(|_| away(&format!("answers {status}, and not as an admin API")))?;
        if status == 200 {
            return Ok(answer);
        }
        let message = answer.pointer("/error/message").and_then(Value::as_str);
        let line = format!("refused ({status}): {}", message.unwrap_or("no reason given"));
        Err(Failure { code: REFUSED, lines: vec![line] })
    }

    async fn send(&self, path: &str, body: Bytes) -> Result<(u16, Bytes), String> {
        let tls = upstream::tls_config(None).map_err(|error| error.to_string())?;
        let upstream = Upstream::new(upstream::Config::default(), Arc::clone(&tls));
        let mut headers = Headers::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        let bearer = HeaderValue::try_from(format!("Bearer {}", self.token.expose()));
        let mut bearer = bearer.map_err(|error| error.to_string())?;
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
        let call = Call {
            method: Method::POST,
            path: format!("{}{path}", self.url.prefix),
            headers,
            body: Payload::from(body),
            connect: PATIENCE,
        };
        let answer = upstream.send(&self.url.origin, call).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let (status, mut rest, mut body) = (answer.status.as_u16(), answer.body, BytesMut::new());
        while let Some(piece) = rest.next().await {
            let piece = piece.map_err(|error| error.to_string())?;
            if body.len() + piece.len() > LONGEST_ANSWER {
                return Err("the answer is too long".to_owned());
            }
            body.extend_from_slice(&piece);
        }
        Ok((status, body.freeze()))
    }
}
