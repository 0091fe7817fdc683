//! Just enough JSON: the members of an object and the elements of a list as slices of the text,
//! and strings written with their escapes.
//!
//! A request of megabytes is searched for a handful of fields; a tree of it would cost more than
//! the whole answer. Nested values are skipped by counting brackets, so nonsense deep inside of
//! them goes unnoticed: that is the business of whoever tests a strict reader.

use memchr::memchr2;

/// The text is not JSON, or not of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotJson;

/// Shows `visit` each member of an object: its name as it stands between its quotes, and the text
/// of its value.
pub(super) fn members<'a>(
    text: &'a str,
    mut visit: impl FnMut(&'a str, &'a str),
) -> Result<(), NotJson> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.list(b'{', b'}', |cursor| {
        let name = inner(cursor.value()?).ok_or(NotJson)?;
        cursor.expect(b':')?;
        visit(name, cursor.value()?);
        Ok(())
    })?;
    cursor.end()
}

/// Shows `visit` the text of each element of a list.
pub(super) fn elements<'a>(text: &'a str, mut visit: impl FnMut(&'a str)) -> Result<(), NotJson> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.list(b'[', b']', |cursor| {
        visit(cursor.value()?);
        Ok(())
    })?;
    cursor.end()
}

/// What stands between the quotes of a string, still escaped; none for any other value.
pub(super) fn inner(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

/// Appends `text` as it stands between the quotes of a JSON string.
pub(super) fn push_escaped(out: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => push(out, format_args!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
}

/// Appends what `format!` would make.
pub(super) fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    std::fmt::Write::write_fmt(out, arguments).expect("a String takes whatever is written");
}

/// Appends a number, without the machinery of `format!`: several stand in every answer.
pub(super) fn push_number(out: &mut String, number: u64) {
    let mut rest = number;
    let digits: [u8; 20] = std::array::from_fn(|_| {
        let digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        digit
    });
    let leading = digits.iter().rev().take(19).take_while(|digit| **digit == b'0').count();
    out.extend(digits.iter().rev().skip(leading).map(|digit| char::from(*digit)));
}

/// A place in the text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The bytes from here on.
    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// The next byte that is not white space, which is not taken.
    fn peek(&mut self) -> Option<u8> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.rest().iter().take_while(|byte| blank(byte)).count();
        self.rest().first().copied()
    }

    /// Takes this byte.
    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.peek() != Some(byte) {
            return Err(NotJson);
        }
        self.at += 1;
        Ok(())
    }

    /// Takes what stands between two brackets, piece by piece.
    fn list(
        &mut self,
        open: u8,
        close: u8,
        mut piece: impl FnMut(&mut Self) -> Result<(), NotJson>,
    ) -> Result<(), NotJson> {
        self.expect(open)?;
        if self.peek() == Some(close) {
            return self.expect(close);
        }
        loop {
            piece(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                _ => return self.expect(close),
            }
        }
    }

    /// Takes a whole value, and gives its text.
    fn value(&mut self) -> Result<&'a str, NotJson> {
        let first = self.peek().ok_or(NotJson)?;
        let from = self.at;
        match first {
            b'"' => self.string()?,
            b'{' | b'[' => self.nested()?,
            _ => {
                let scalar = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                self.at += self.rest().iter().take_while(|byte| scalar(byte)).count();
            }
        }
        self.text.get(from..self.at).filter(|text| !text.is_empty()).ok_or(NotJson)
    }

    /// Steps over a string.
    fn string(&mut self) -> Result<(), NotJson> {
        self.at += 1;
        loop {
            let found = memchr2(b'"', b'\\', self.rest()).ok_or(NotJson)?;
            let escape = self.rest().get(found) == Some(&b'\\');
            // An escape is longer than two bytes at most by hexadecimal digits, which end nothing.
            self.at += found + if escape { 2 } else { 1 };
            if !escape {
                return Ok(());
            }
        }
    }

    /// Steps over an object or a list with all that it holds.
    fn nested(&mut self) -> Result<(), NotJson> {
        let mut depth = 0_usize;
        loop {
            match *self.rest().first().ok_or(NotJson)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Nothing but white space may be left.
    fn end(&mut self) -> Result<(), NotJson> {
        self.peek().map_or(Ok(()), |_| Err(NotJson))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<(&str, &str)>, NotJson> {
        let mut found = Vec::new();
        members(text, |name, value| found.push((name, value)))?;
        Ok(found)
    }

    #[test]
    fn members_are_slices_of_the_text() {
        let text = r#" {"model" : "a\"b", "n":2,"deep":{"x":["}",{"y":"\\"}]}, "t":true} "#;
        let expected = [
            ("model", r#""a\"b""#),
            ("n", "2"),
            ("deep", r#"{"x":["}",{"y":"\\"}]}"#),
            ("t", "true"),
        ];
        assert_eq!(all(text).unwrap(), expected);
        assert_eq!(all("{}").unwrap(), []);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in
            ["", "[]", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1", "{\"a\":\"", "{\"a\":1,}", "{} x"]
        {
            assert_eq!(all(text), Err(NotJson), "{text:?}");
        }
    }

    #[test]
    fn elements_are_counted_without_looking_into_them() {
        let mut found = Vec::new();
        elements(r#"["a,b", [1, 2], 3]"#, |element| found.push(element)).unwrap();
        assert_eq!(found, [r#""a,b""#, "[1, 2]", "3"]);
    }

    #[test]
    fn numbers_are_written_as_format_writes_them() {
        for number in [0, 7, 10, 1_795_276_829, u64::MAX] {
            let mut out = String::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string());
        }
    }

    #[test]
    fn escapes_can_be_read_back() {
        let mut out = String::from("\"");
        push_escaped(&mut out, "a\"b\\c\nd\u{1}é");
        out.push('"');
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), "a\"b\\c\nd\u{1}é");
    }
}
