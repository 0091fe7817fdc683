//! `flotilla explain --limits`: which limits apply to a request, how they stand, and what holds of
//! each while Redis is away.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::{DONE, Explain};
use crate::config::Env;

/// Asks a node and prints its answer. Returns the exit code.
///
/// # Errors
/// Where the answer cannot be written.
pub fn explain(
    asked: &Explain,
    env: &Env,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let question = json!({
        "key": asked.key, "model": asked.model, "user": asked.user, "target": asked.target,
    });
    let answer = Client::new(env).and_then(|client| client.post("/admin/v1/explain", &question));
    match answer {
        Ok(answer) if asked.json => writeln!(out, "{answer}")?,
        Ok(answer) => print(&answer, out)?,
        Err(Failure { code, lines }) => {
            lines.iter().try_for_each(|line| writeln!(err, "flotilla: {line}"))?;
            return Ok(code);
        }
    }
    Ok(DONE)
}

fn print(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    writeln!(out, "key {} of tenant {}", text(&answer["key"]), text(&answer["tenant"]))?;
    if answer["store_answers"] == false {
        writeln!(out, "the store of limits does not answer: how they stand is not known")?;
    }
    let none = Vec::new();
    let limits = answer["limits"].as_array().unwrap_or(&none);
    if limits.is_empty() {
        return writeln!(out, "no limit applies");
    }
    for limit in limits {
        writeln!(out, "\n{}: {}", text(&limit["name"]), rule(limit))?;
        if let Some(used) = limit["used"].as_u64() {
            writeln!(out, "  used  {used}, left {}", limit["left"])?;
        }
        let away = &limit["if_store_is_away"];
        match away["text"].as_str() {
            Some(text) => writeln!(out, "  if Redis is away ({}): {text}", policy(away))?,
            None => writeln!(out, "  no Redis: this node counts by itself")?,
        }
    }
    Ok(())
}

fn policy(away: &Value) -> &str {
    away["policy"].as_str().unwrap_or("-")
}

/// The limit in a few words: `100 requests in any 60 s, per key, at target t`.
fn rule(limit: &Value) -> String {
    let metric = limit["metric"].as_str().unwrap_or("-");
    let unit = match metric {
        "cost" => "micro-USD",
        "concurrency" => "requests at the same time",
        other => other,
    };
    let mut words = format!("{} {unit}", limit["limit"]);
    if let Some(window) = limit["window_ms"].as_u64() {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let seconds = window as f64 / 1_000.0;
        words += &format!(" in any {seconds} s");
    }
    if let Some(burst) = limit["burst"].as_u64() {
        words += &format!(", burst {burst}");
    }
    let per = limit["per"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let per: Vec<_> = per.collect();
    if !per.is_empty() {
        words += &format!(", per {}", per.join(" and "));
    }
    if let Some(target) = limit["target"].as_str() {
        words += &format!(", at target {target}");
    }
    if limit["hard"] == true {
        words += ", hard";
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_printed_limit_by_limit() {
        let answer = json!({
            "key": "one", "tenant": "acme", "store_answers": true,
            "limits": [{
                "name": "rpm", "metric": "requests", "limit": 100, "used": 3, "left": 97,
                "per": ["key"], "target": null, "hard": false, "window_ms": 60_000,
                "if_store_is_away": { "policy": "local_share", "text": "each of 3 nodes ..." },
            }],
        });
        let mut out = Vec::new();
        print(&answer, &mut out).expect("into memory");
        let expected = "key one of tenant acme

rpm: 100 requests in any 60 s, per key
  used  3, left 97
  if Redis is away (local_share): each of 3 nodes ...
";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
