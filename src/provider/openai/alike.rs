//! Knows an event that differs from one before it only in a text.
//!
//! A stream is hundreds of events that are alike but for a few letters. Where the inside of one
//! string in a JSON text is replaced by other letters, nothing else in it reads differently: so such
//! an event brings what the other one brought, but for the length of that text, and is not read.

use std::ops::Range;

use crate::provider::json::end_of_plain;
use crate::provider::openai::chunk::{self, Chunk, Kind, NotJson};

/// The longest event that is remembered.
const LONGEST: usize = 4 << 10;

/// The last event that was read, and what the one at hand brings.
#[derive(Debug, Default)]
pub(super) struct Alike {
    data: Vec<u8>,
    /// Where in it the text stands that others may differ in; empty where there is none.
    text_at: Range<usize>,
    usage_at: Option<Range<usize>>,
    chunk: Chunk,
}

impl Alike {
    /// As `chunk::read`.
    pub(super) fn read(&mut self, kind: Kind, data: &[u8]) -> Result<&Chunk, NotJson> {
        if let Some(len) = self.differs_in_text(data) {
            self.differ(len);
            return Ok(&self.chunk);
        }
        self.chunk = chunk::read(kind, data)?;
        self.text_at =
            self.chunk.text_at.clone().filter(|_| data.len() <= LONGEST).unwrap_or_default();
        if !self.text_at.is_empty() {
            self.usage_at.clone_from(&self.chunk.usage_at);
            self.data.clear();
            self.data.extend_from_slice(data);
        }
        Ok(&self.chunk)
    }

    /// The length of the text of `data`, if nothing else in it differs from what was read.
    fn differs_in_text(&self, data: &[u8]) -> Option<usize> {
        let before = self.data.get(..self.text_at.start)?;
        let after = self.data.get(self.text_at.end..)?;
        let text = data.strip_prefix(before)?.strip_suffix(after)?;
        let plain = end_of_plain(text, 0) == text.len() && std::str::from_utf8(text).is_ok();
        (plain && !text.is_empty() && !self.text_at.is_empty()).then_some(text.len())
    }

    /// Makes the chunk that of an event whose text has this length.
    fn differ(&mut self, len: usize) {
        let at = &self.text_at;
        let moved = |place: usize| if place < at.end { place } else { place - at.len() + len };
        let before = self.chunk.text_at.as_ref().map_or(0, |text| text.len());
        self.chunk.text_bytes = self.chunk.text_bytes - before as u64 + len as u64;
        self.chunk.text_at = Some(at.start..at.start + len);
        self.chunk.usage_at =
            self.usage_at.clone().map(|usage| moved(usage.start)..moved(usage.end));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [&str; 8] = [
        r#"{"id":"a","choices":[{"index":0,"delta":{"content":"@"},"finish_reason":null}],"usage":null}"#,
        r#"{"usage":null,"choices":[{"delta":{"role":"assistant","content":"@","refusal":null}}]}"#,
        r#"{"choices":[{"delta":{"content":"@"}},{"index":1,"delta":{"content":"b"},"finish_reason":"x"}]}"#,
        r#"{"choices":[{"text":"@"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"@"}}]}}]}"#,
        r#"{"choices":[{"delta":{"reasoning":"@","reasoning_content":"x","content":"y"}}]}"#,
        r#"{"type":"error","choices":[{"delta":{"content":"@"}}]}"#,
        r#"{"id":"@","choices":[{"delta":{"content":"@"}}]}"#,
    ];

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[a-z \u{e4}]{0,8}", 1 => "[a-z\\\\\"{},:\u{1}u]{0,8}", 1 => Just("\\n".to_owned())]
    }

    proptest! {
        #[test]
        fn what_is_not_read_is_known_all_the_same(
            events in prop::collection::vec((0..EVENTS.len() / 2, text()), 1..12), shift in 0..5usize,
        ) {
            let mut alike = Alike::default();
            for (index, text) in events {
                let data = EVENTS[(index + shift) % EVENTS.len()].replace('@', &text);
                let known = alike.read(Kind::Choices, data.as_bytes()).cloned();
                prop_assert_eq!(known, chunk::read(Kind::Choices, data.as_bytes()), "{}", data);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_event() {
        let mut alike = Alike::default();
        let good = br#"{"choices":[{"delta":{"content":"a"}}]}"#;
        let bad = good.map(|byte| if byte == b'a' { 0xff } else { byte });
        assert!(alike.read(Kind::Choices, good).is_ok());
        assert!(alike.differs_in_text(good).is_some());
        assert_eq!(alike.read(Kind::Choices, bad.as_slice()), Err(NotJson));
    }
}
