//! Finds the figures in a plain answer that passes by.
//!
//! Answers may be megabytes (embeddings, images) and are never kept; only the value of `usage` is,
//! up to a bound. The scanner follows strings and brackets and nothing more: it does not judge
//! whether the answer is valid, it only must never mistake what is inside a text for a key. Most
//! answers come in one piece, and are read like any other JSON, which takes a third of the time.

use memchr::memchr2;

use super::usage;
use crate::domain::Usage;
use crate::provider::json;

/// The largest `usage` that is kept; real ones have a few hundred bytes.
const MAX_USAGE: usize = 4 << 10;

/// The largest key of the top level that is looked at.
const MAX_KEY: usize = 16;

/// Finds `usage` in a plain JSON answer that passes by in pieces of any size, in bounded memory.
#[derive(Debug, Default)]
pub struct UsageScan {
    at: Place,
    /// The current key, or the current value where it is the one looked for.
    kept: Vec<u8>,
    usage: Option<Usage>,
}

/// Where in the answer the scanner stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the object.
    #[default]
    Start,
    /// Before a key of the top level, or its end.
    Key,
    /// Inside a key.
    InKey { escaped: bool },
    /// After a key.
    Colon,
    /// Inside a value, below `depth` brackets of its own.
    Value { depth: usize, text: Text, wanted: bool },
    /// Past the end of the object, or in something that is no object.
    Over,
}

/// Whether a value's string is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

impl UsageScan {
    /// Looks at the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        if self.at == Place::Start && self.whole(piece) {
            return;
        }
        let mut rest = piece;
        while let Some((&byte, after)) = rest.split_first() {
            match self.at {
                Place::Over => return,
                Place::Value { depth, text, wanted } => {
                    rest = self.value(rest, depth, text, wanted);
                }
                Place::InKey { escaped } => {
                    self.key(byte, escaped);
                    rest = after;
                }
                _ if byte.is_ascii_whitespace() => rest = after,
                Place::Start => {
                    self.at = if byte == b'{' { Place::Key } else { Place::Over };
                    rest = after;
                }
                Place::Key => {
                    self.at = match byte {
                        b'"' => Place::InKey { escaped: false },
                        b',' => Place::Key,
                        _ => Place::Over,
                    };
                    self.kept.clear();
                    rest = after;
                }
                Place::Colon => {
                    let wanted = self.kept == b"usage";
                    self.kept.clear();
                    self.at = match byte {
                        b':' => Place::Value { depth: 0, text: Text::Outside, wanted },
                        _ => Place::Over,
                    };
                    rest = after;
                }
            }
        }
    }

    /// The figures, once they passed by.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// True inside an object that has not ended: an answer that is over now is not whole.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.at, Place::Start | Place::Over)
    }

    /// Reads a piece that is the whole answer; false where it is none.
    fn whole(&mut self, piece: &[u8]) -> bool {
        if piece.trim_ascii_end().last() != Some(&b'}') {
            return false;
        }
        let Ok(text) = std::str::from_utf8(piece) else { return false };
        let mut found = None;
        let whole = json::members(text, |key, reader| {
            if key.name == "usage" {
                let start = reader.at();
                let figures = usage::read(reader)?;
                // As where it comes in pieces.
                found = figures.filter(|_| reader.at() - start <= MAX_USAGE).or(found);
            }
            Ok(())
        });
        if whole.is_ok() {
            (self.at, self.usage) = (Place::Over, found);
        }
        whole.is_ok()
    }

    fn key(&mut self, byte: u8, escaped: bool) {
        if byte == b'"' && !escaped {
            self.at = Place::Colon;
            return;
        }
        // One byte more than fits makes it another key than any that is looked for.
        if self.kept.len() <= MAX_KEY {
            self.kept.push(byte);
        }
        self.at = Place::InKey { escaped: byte == b'\\' && !escaped };
    }

    /// Goes on in a value up to its next bracket, quote or end; returns what is left.
    fn value<'a>(&mut self, rest: &'a [u8], depth: usize, text: Text, wanted: bool) -> &'a [u8] {
        let found = match text {
            Text::Outside => {
                rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b','))
            }
            Text::Inside => memchr2(b'"', b'\\', rest),
            Text::Escaped => Some(0),
        };
        let (mut len, byte) = match found {
            Some(at) => (at + 1, rest.get(at).copied()),
            None => (rest.len(), None),
        };
        let value = |depth, text| Place::Value { depth, text, wanted };
        self.at = match (text, byte) {
            (_, None) => value(depth, text),
            (Text::Outside, Some(b'"')) | (Text::Escaped, _) => value(depth, Text::Inside),
            (Text::Inside, Some(b'\\')) => value(depth, Text::Escaped),
            (Text::Inside, Some(_)) => value(depth, Text::Outside),
            (Text::Outside, Some(b'{' | b'[')) => value(depth.saturating_add(1), Text::Outside),
            (Text::Outside, Some(b'}' | b']')) if depth > 0 => value(depth - 1, Text::Outside),
            (Text::Outside, Some(b',')) if depth > 0 => value(depth, Text::Outside),
            (Text::Outside, Some(end)) => {
                len -= 1;
                if end == b',' { Place::Key } else { Place::Over }
            }
        };
        let (passed, left) = rest.split_at(len);
        let inside = matches!(self.at, Place::Value { .. });
        if wanted && self.kept.len() <= MAX_USAGE {
            let room = MAX_USAGE + 1 - self.kept.len();
            self.kept.extend_from_slice(passed.get(..room).unwrap_or(passed));
        }
        if wanted && !inside && self.kept.len() <= MAX_USAGE {
            let figures = std::str::from_utf8(&self.kept).ok().and_then(usage::parse);
            self.usage = figures.or(self.usage);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<(u64, u64)> {
        let mut scan = UsageScan::default();
        pieces.into_iter().for_each(|piece| scan.feed(piece));
        scan.usage().map(|usage| (usage.input_tokens, usage.output_tokens))
    }

    const ANSWER: &str = r#" { "id" : "x\"y\\", "choices":[{"message":{"content":
        "\"usage\":{\"prompt_tokens\":666}} ] {","usage":{"prompt_tokens":667}},"n":[1,2,[]]}],
        "usage" : { "prompt_tokens" : 9 , "completion_tokens":12, "x":"}," } , "z":true } trailing"#;

    #[test]
    fn usage_of_the_top_level_is_found_at_every_split() {
        let bytes = ANSWER.as_bytes();
        assert_eq!(scan([bytes]), Some((9, 12)));
        assert_eq!(scan(bytes.chunks(1)), Some((9, 12)));
        for at in 0..bytes.len() {
            assert_eq!(scan([&bytes[..at], &bytes[at..]]), Some((9, 12)), "split at {at}");
        }
    }

    #[test]
    fn usage_is_known_as_soon_as_it_has_passed() {
        assert_eq!(scan([&br#"{"usage":{"input_tokens":1,"output_tokens":2},"#[..]]), Some((1, 2)));
        assert_eq!(scan([&br#"{"usage":{"input_tokens":1,"output_tokens":2}}"#[..]]), Some((1, 2)));
    }

    #[test]
    fn what_holds_no_usage_gives_none() {
        let large = format!(r#"{{"usage":{{"prompt_tokens":1,"x":"{}"}}}}"#, "y".repeat(5000));
        for text in [
            "",
            "[]",
            "plain text",
            "1\n00:00:01 --> 00:00:02\nsubtitle",
            r#"{"usage":null}"#,
            r#"{"usage":7,"a":{"usage":{"prompt_tokens":1}}}"#,
            r#"[{"usage":{"prompt_tokens":1}}]"#,
            r#"{}{"usage":{"prompt_tokens":1}}"#,
            r#"{"a":1]"usage":{"prompt_tokens":1}}"#,
            &large,
        ] {
            assert_eq!(scan([text.as_bytes()]), None, "{text:.40}");
            assert_eq!(scan(text.as_bytes().chunks(1)), None, "{text:.40}");
        }
    }

    #[test]
    fn an_object_is_open_until_its_last_bracket() {
        let end = ANSWER.find("} , \"z\"").expect("the end of usage");
        let end = end + ANSWER[end..].find(":true }").expect("the end of all") + 7;
        let start = ANSWER.find('{').expect("its beginning") + 1;
        for at in 0..ANSWER.len() {
            let mut scan = UsageScan::default();
            scan.feed(&ANSWER.as_bytes()[..at]);
            assert_eq!(scan.is_open(), (start..end).contains(&at), "cut at {at}");
        }
        for text in ["", "[1,", "plain", "{}"] {
            let mut scan = UsageScan::default();
            scan.feed(text.as_bytes());
            assert!(!scan.is_open(), "{text}");
        }
    }

    #[test]
    fn memory_stays_bounded() {
        let mut scan = UsageScan::default();
        scan.feed(b"{\"");
        (0..100).for_each(|_| scan.feed(&[b'k'; 1000]));
        scan.feed(b"\":1,\"usage\":");
        (0..100).for_each(|_| scan.feed(&[b'['; 1000]));
        assert!(scan.kept.capacity() <= 4 * MAX_USAGE);
    }
}
