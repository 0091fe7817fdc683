//! Finds the parts of a `multipart/form-data` body without copying any of them.
//!
//! Strict on purpose. Wherever two parsers could see different parts (bare line feeds, folded or
//! doubled headers, quotes escaped by a backslash, text before the first boundary), the body is
//! refused, so that the provider reads the fields that this node has read.

use std::ops::Range;

use memchr::memmem;

/// The most parts of a body; real ones have a few fields and up to 16 images.
const MAX_PARTS: usize = 256;

/// The most bytes of the headers of one part.
const MAX_HEADERS: usize = 8 << 10;

/// The longest boundary; RFC 2046 allows 70, some clients make longer ones.
const MAX_BOUNDARY: usize = 200;

/// One part of a form.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// The name of the field.
    pub(super) name: &'a str,
    /// Whether it is a file, that is: it has a file's name.
    pub(super) file: bool,
    /// Whether its bytes are written in a transfer encoding such as base64.
    pub(super) encoded: bool,
    /// Where its bytes stand.
    pub(super) value: Range<usize>,
}

/// What is wrong, and at which byte of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) what: &'static str,
    pub(super) at: usize,
}

/// The boundary that a content type names.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let (_, rest) = content_type.split_once(';')?;
    let mut found = None;
    for pair in params(rest) {
        let (name, value) = pair?;
        if name.eq_ignore_ascii_case("boundary") && found.replace(value).is_some() {
            return None;
        }
    }
    found.filter(|text| {
        let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        (1..=MAX_BOUNDARY).contains(&text.len()) && printable && !text.ends_with(' ')
    })
}

/// Hands each part of `body` to `visit`, in order.
///
/// # Errors
/// Where the body is not well-formed to its end.
pub(super) fn parts<'a>(
    body: &'a [u8],
    boundary: &str,
    mut visit: impl FnMut(Part<'a>),
) -> Result<(), Malformed> {
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let finder = memmem::Finder::new(&delimiter);
    let first = delimiter.get(2..).unwrap_or_default();
    let mut at = if body.starts_with(first) {
        first.len()
    } else if body.starts_with(&delimiter) {
        delimiter.len()
    } else {
        return Err(Malformed { what: "does not begin with its boundary", at: 0 });
    };
    for _ in 0..MAX_PARTS {
        let rest = tail(body, at);
        if let Some(epilogue) = rest.strip_prefix(b"--") {
            let blank = epilogue.iter().all(|byte| b" \t\r\n".contains(byte));
            let end = Malformed { what: "goes on after its last boundary", at: at + 2 };
            return if blank { Ok(()) } else { Err(end) };
        }
        let padding = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
        let line_end = Malformed { what: "has no line end after a boundary", at };
        if !tail(rest, padding).starts_with(b"\r\n") {
            return Err(line_end);
        }
        let headers_at = at + padding + 2;
        let window = tail(body, headers_at);
        let window = window.get(..MAX_HEADERS).unwrap_or(window);
        let headers_len = memmem::find(window, b"\r\n\r\n").ok_or(Malformed {
            what: "has a part without an end of its headers",
            at: headers_at,
        })?;
        let headers = window.get(..headers_len).unwrap_or_default();
        let (name, file, encoded) =
            part_headers(headers).map_err(|what| Malformed { what, at: headers_at })?;
        let value_at = headers_at + headers_len + 4;
        let len = finder
            .find(tail(body, value_at))
            .ok_or(Malformed { what: "ends without its last boundary", at: body.len() })?;
        visit(Part { name, file, encoded, value: value_at..value_at + len });
        at = value_at + len + delimiter.len();
    }
    Err(Malformed { what: "has too many parts", at })
}

fn tail(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// The name of a part, whether it is a file and whether it is encoded.
fn part_headers(headers: &[u8]) -> Result<(&str, bool, bool), &'static str> {
    let headers =
        std::str::from_utf8(headers).map_err(|_| "has headers of a part that are not UTF-8")?;
    let (mut disposition, mut encoded) = (None, false);
    for line in headers.split("\r\n") {
        if line.starts_with([' ', '\t']) || line.contains(['\r', '\n', '\0']) {
            return Err("has a folded or broken header in a part");
        }
        let (name, value) = line.split_once(':').ok_or("has a header without a colon in a part")?;
        if name.trim().eq_ignore_ascii_case("content-disposition")
            && disposition.replace(value).is_some()
        {
            return Err("has a part with two content-disposition headers");
        }
        if name.trim().eq_ignore_ascii_case("content-transfer-encoding") {
            let plain = ["7bit", "8bit", "binary"];
            encoded |= !plain.iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
        }
    }
    let disposition = disposition.ok_or("has a part without a content-disposition")?;
    let (kind, rest) = disposition.split_once(';').unwrap_or((disposition, ""));
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return Err("has a part that is not form-data");
    }
    let (mut field, mut file) = (None, false);
    for pair in params(rest) {
        let (name, value) = pair.ok_or("has a content-disposition that is not well-formed")?;
        if name.eq_ignore_ascii_case("name*")
            || name.eq_ignore_ascii_case("name") && field.replace(value).is_some()
        {
            return Err("has a part with two names");
        }
        file |= name.eq_ignore_ascii_case("filename") || name.eq_ignore_ascii_case("filename*");
    }
    Ok((field.ok_or("has a part without a name")?, file, encoded))
}

/// The parameters after the first semicolon of a header; `None` once where they are not
/// well-formed. A backslash before a quote counts as that, and a quote within a value that does not
/// begin with one, because readers differ on them.
fn params(text: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    let mut rest = Some(text.trim_matches([' ', '\t', ';']));
    std::iter::from_fn(move || {
        let text = rest.take().filter(|text| !text.is_empty())?;
        let Some((name, value)) = text.split_once('=') else { return Some(None) };
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => match quoted.split_once('"') {
                Some((value, after)) if !value.ends_with('\\') => (value, after.trim_start()),
                _ => return Some(None),
            },
            None => {
                let end = value.find(';').unwrap_or(value.len());
                let (value, after) = value.split_at(end);
                if value.contains('"') {
                    return Some(None);
                }
                (value.trim(), after)
            }
        };
        let name = name.trim();
        if name.is_empty()
            || name.contains(['"', ';', ' '])
            || !after.is_empty() && !after.starts_with(';')
        {
            return Some(None);
        }
        rest = Some(after.trim_start_matches([' ', '\t', ';']));
        Some(Some((name, value)))
    })
}

#[cfg(test)]
mod tests;
