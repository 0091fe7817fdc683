//! Reads JSON in one pass without building a tree, and knows where its parts stand.
//!
//! Every event of every stream and every request goes through here, so nothing is allocated and no
//! byte is read twice: whoever looks for a member looks into it while it passes by. What is not
//! looked for is skipped, which is iterative, so that nesting costs no stack. All of it is judged
//! as strictly as by any other reader; only half a character in a text is passed on as it came.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

/// Where a text stops to be JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    /// The first byte that cannot be; the text's length where it ends too early.
    pub(super) at: usize,
}

/// A place in a text.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// The key of a member.
#[derive(Debug)]
pub(super) struct Key<'a> {
    /// The key, unescaped.
    pub(super) name: Cow<'a, str>,
    /// Where it stands, quotes included.
    pub(super) start: usize,
}

/// Hands each member of the object `text` to `visit`, in order; duplicates are all handed over.
/// What `visit` does not read of a value is skipped.
///
/// # Errors
/// Where `text` is not exactly one JSON object.
pub(super) fn members<'a>(
    text: &'a str,
    visit: impl FnMut(Key<'a>, &mut Reader<'a>) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    one(text, |reader| if reader.members(visit)? { Ok(()) } else { Err(Invalid { at: 0 }) })
}

/// Hands each element of the array `text` to `visit`, in order.
///
/// # Errors
/// Where `text` is not exactly one JSON array.
pub(super) fn elements<'a>(
    text: &'a str,
    visit: impl FnMut(&mut Reader<'a>) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    one(text, |reader| if reader.elements(visit)? { Ok(()) } else { Err(Invalid { at: 0 }) })
}

/// Hands the value that `text` is to `read`, which reads it to its end.
///
/// # Errors
/// Where `text` is not exactly one value.
pub(super) fn one<'a>(
    text: &'a str,
    read: impl FnOnce(&mut Reader<'a>) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    let mut reader = Reader { text, at: 0 };
    reader.space();
    read(&mut reader)?;
    reader.end()
}

/// The value, unless it is `null`.
pub(super) fn given(value: &str) -> Option<&str> {
    Some(value).filter(|value| *value != "null")
}

/// Where `part`, a slice of `whole`, stands in it.
pub(super) fn span(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// The text of a JSON string; `None` for any other value and for one that holds half a character.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Where the next value begins, or what follows it once it was read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` to here.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The next value as it stands.
    pub(super) fn value(&mut self) -> Result<&'a str, Invalid> {
        self.space();
        let start = self.at;
        self.skip()?;
        Ok(self.since(start))
    }

    /// Hands each member of the object that comes next to `visit`. False, and the value skipped,
    /// where it is none.
    pub(super) fn members(
        &mut self,
        mut visit: impl FnMut(Key<'a>, &mut Self) -> Result<(), Invalid>,
    ) -> Result<bool, Invalid> {
        if !self.opens(b'{')? {
            return Ok(false);
        }
        let mut more = !self.closes(b'}');
        while more {
            let key = self.key()?;
            let start = self.at;
            visit(key, self)?;
            if self.at == start {
                self.skip()?;
            }
            more = self.goes_on(b'}')?;
        }
        Ok(true)
    }

    /// Hands each element of the array that comes next to `visit`. False, and the value skipped,
    /// where it is none.
    pub(super) fn elements(
        &mut self,
        mut visit: impl FnMut(&mut Self) -> Result<(), Invalid>,
    ) -> Result<bool, Invalid> {
        if !self.opens(b'[')? {
            return Ok(false);
        }
        let mut more = !self.closes(b']');
        while more {
            self.space();
            let start = self.at;
            visit(self)?;
            if self.at == start {
                self.skip()?;
            }
            more = self.goes_on(b']')?;
        }
        Ok(true)
    }

    /// Enters what begins with `bracket`; skips anything else.
    fn opens(&mut self, bracket: u8) -> Result<bool, Invalid> {
        self.space();
        let opens = self.peek() == Some(bracket);
        if opens {
            self.at += 1;
        } else {
            self.skip()?;
        }
        Ok(opens)
    }

    /// Leaves what ends here.
    fn closes(&mut self, bracket: u8) -> bool {
        self.space();
        let closes = self.peek() == Some(bracket);
        self.at += usize::from(closes);
        closes
    }

    /// Whether another member or element follows the one that was read.
    fn goes_on(&mut self, bracket: u8) -> Result<bool, Invalid> {
        self.space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == bracket => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.invalid()),
        }
    }

    fn key(&mut self) -> Result<Key<'a>, Invalid> {
        self.space();
        let start = self.at;
        let escaped = self.key_text()?;
        let end = self.at;
        self.colon()?;
        self.space();
        let name = if escaped {
            string(self.text.get(start..end).unwrap_or_default()).ok_or(Invalid { at: start })?
        } else {
            Cow::Borrowed(self.text.get(start + 1..end - 1).unwrap_or_default())
        };
        Ok(Key { name, start })
    }

    /// Skips a key; true where there is an escape in it.
    fn key_text(&mut self) -> Result<bool, Invalid> {
        if self.peek() != Some(b'"') {
            return Err(self.invalid());
        }
        self.skip_string()
    }

    fn colon(&mut self) -> Result<(), Invalid> {
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.invalid());
        }
        self.at += 1;
        Ok(())
    }

    /// Skips one value, whatever is in it.
    fn skip(&mut self) -> Result<(), Invalid> {
        // The brackets that close what is open.
        let mut open = SmallVec::<[u8; 32]>::new();
        loop {
            self.space();
            let bracket = match self.peek() {
                Some(b'{') => Some(b'}'),
                Some(b'[') => Some(b']'),
                _ => None,
            };
            if let Some(bracket) = bracket {
                self.at += 1;
                if !self.closes(bracket) {
                    open.push(bracket);
                    if bracket == b'}' {
                        self.skip_key()?;
                    }
                    continue;
                }
            } else {
                self.skip_scalar()?;
            }
            loop {
                let Some(&bracket) = open.last() else { return Ok(()) };
                if self.goes_on(bracket)? {
                    if bracket == b'}' {
                        self.skip_key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), Invalid> {
        self.space();
        self.key_text()?;
        self.colon()
    }

    fn skip_scalar(&mut self) -> Result<(), Invalid> {
        match self.peek() {
            Some(b'"') => self.skip_string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            Some(b't') => self.skip_word(b"true"),
            Some(b'f') => self.skip_word(b"false"),
            Some(b'n') => self.skip_word(b"null"),
            _ => Err(self.invalid()),
        }
    }

    /// Skips a string; true where there is an escape in it.
    fn skip_string(&mut self) -> Result<bool, Invalid> {
        self.at += 1;
        let mut escaped = false;
        loop {
            self.at = end_of_plain(self.text.as_bytes(), self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.skip_escape()?;
                    escaped = true;
                }
                _ => return Err(self.invalid()),
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), Invalid> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.invalid());
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.invalid()),
        }
        Ok(())
    }

    fn skip_number(&mut self) -> Result<(), Invalid> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), Invalid> {
        let first = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == first { Err(self.invalid()) } else { Ok(()) }
    }

    fn skip_word(&mut self, word: &[u8]) -> Result<(), Invalid> {
        for byte in word {
            if self.peek() != Some(*byte) {
                return Err(self.invalid());
            }
            self.at += 1;
        }
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), Invalid> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.invalid()) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn invalid(&self) -> Invalid {
        Invalid { at: self.at }
    }
}

/// The place of the first quote, backslash or control character from `at` on; the end where there
/// is none. Texts are most of what there is: eight bytes at a time, and long ones, such as images,
/// sixty-four at a time.
pub(super) fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const fn all(byte: u8) -> u64 {
        ONES * byte as u64
    }
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    let long = at + 64;
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*eight);
        // A byte below the one that is taken off it borrows, which sets its high bit, and maybe
        // that of bytes above it; the lowest is always a true one.
        let borrows = word.wrapping_sub(all(0x20))
            | (word ^ all(b'"')).wrapping_sub(ONES)
            | (word ^ all(b'\\')).wrapping_sub(ONES);
        let found = borrows & !word & all(0x80);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
        if at == long {
            while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<64>())
                // Without a branch for each byte, the compiler makes vectors of it.
                && !block.iter().fold(false, |any, byte| any | special(*byte))
            {
                at += 64;
            }
        }
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| special(*byte)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
