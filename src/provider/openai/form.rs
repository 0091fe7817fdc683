//! Reads the envelope of a `multipart/form-data` request: audio and images that are uploaded.

use std::ops::Range;

use bytes::Bytes;

use crate::domain::Fault;
use crate::provider::envelope::{self, Envelope, Notation, duplicate, invalid, other_case};
use crate::provider::multipart::{self, Part};

/// The fields that are read.
const NAMES: [&str; 5] = ["model", "stream", "n", "user", "safety_identifier"];

pub(in crate::provider) fn read(content_type: &str, body: &Bytes) -> Result<Envelope, Fault> {
    let boundary = multipart::boundary(content_type)
        .ok_or_else(|| invalid("the content-type names no valid boundary"))?;
    let mut spans: [Option<Range<usize>>; NAMES.len()] = Default::default();
    let mut seen = [false; NAMES.len()];
    let mut fault = None;
    let mut note = |part: Part<'_>| {
        let Some(index) = NAMES.iter().position(|name| name.eq_ignore_ascii_case(part.name)) else {
            return Ok(());
        };
        let (Some(name), Some(seen), Some(span)) =
            (NAMES.get(index), seen.get_mut(index), spans.get_mut(index))
        else {
            return Ok(());
        };
        if std::mem::replace(seen, true) {
            return Err(duplicate(name));
        }
        if part.name != *name {
            return Err(other_case(name));
        }
        if part.file || part.encoded {
            return Err(invalid(format!(
                "`{name}` must be a plain field, no file and not encoded"
            )));
        }
        *span = Some(part.value);
        Ok(())
    };
    multipart::parts(body, boundary, |part| {
        if let Err(first) = note(part) {
            fault.get_or_insert(first);
        }
    })
    .map_err(|bad| invalid(format!("the multipart body {} (byte {})", bad.what, bad.at)))?;
    if let Some(fault) = fault {
        return Err(fault);
    }

    let [model_at, stream, n, user, safety] = spans;
    let model_at = model_at
        .ok_or_else(|| invalid("the field `model` is missing; this node always needs it"))?;
    let name = text("model", body, &model_at)?;
    let stream = stream.map(|at| text("stream", body, &at)).transpose()?.unwrap_or_default();
    let n = n.map(|at| text("n", body, &at)).transpose()?.unwrap_or_default();
    let user = match user_of("user", body, user)? {
        None => user_of("safety_identifier", body, safety)?,
        given => given,
    };
    Ok(Envelope {
        model: envelope::model(name)?,
        stream: match stream {
            "" => false,
            flag if flag.eq_ignore_ascii_case("true") => true,
            flag if flag.eq_ignore_ascii_case("false") => false,
            _ => return Err(invalid("`stream` must be true or false")),
        },
        max_tokens: None,
        user,
        choices: match n {
            "" => 1,
            n => n
                .parse()
                .ok()
                .filter(|&n| n > 0)
                .ok_or_else(|| invalid("`n` must be a whole number, at least 1"))?,
        },
        include_usage: false,
        model_at,
        notation: Notation::Plain,
        usage_question: None,
    })
}

fn text<'a>(name: &str, body: &'a Bytes, at: &Range<usize>) -> Result<&'a str, Fault> {
    std::str::from_utf8(body.get(at.clone()).unwrap_or_default())
        .map_err(|_| invalid(format!("`{name}` is not UTF-8")))
}

fn user_of(name: &str, body: &Bytes, at: Option<Range<usize>>) -> Result<Option<String>, Fault> {
    at.map_or(Ok(None), |at| envelope::user(name, text(name, body, &at)?))
}
