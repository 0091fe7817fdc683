//! JSON with places: strict, by recursive descent of bounded depth.
//!
//! Finding the ends of tokens is done here; what a string or a number means is left to serde_json,
//! so escapes and surrogate pairs are its own.

use super::{Budget, Entry, Lines, Node, Problem, Value, check_depth};

pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let mut reader =
        Reader { text, at: 0, lines: Lines::new(text), budget: Budget::new(), depth: 0 };
    let node = reader.value().and_then(|node| {
        reader.blank();
        match reader.peek() {
            None => Ok(node),
            Some(_) => Err(reader.problem("something stands after the end of the document")),
        }
    });
    node.map_err(|problem| vec![problem])
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    lines: Lines<'a>,
    budget: Budget,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn problem(&self, what: &str) -> Problem {
        Problem::new(self.lines.place(self.at), what)
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Takes `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    fn value(&mut self) -> Result<Node, Problem> {
        self.blank();
        let at = self.lines.place(self.at);
        self.budget.spend(1, at)?;
        let value = match self.peek() {
            Some(b'{') => self.nested(Self::map)?,
            Some(b'[') => self.nested(Self::list)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => {
                let token = self.token();
                let number = serde_json::from_str(token);
                Value::Number(number.map_err(|_| Problem::new(at, "not a number"))?)
            }
            Some(_) => match self.token() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                _ => return Err(Problem::new(at, "not a JSON value").hint("put text in quotes")),
            },
            None => return Err(Problem::new(at, "the document ends where a value should stand")),
        };
        Ok(Node { at, value })
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Problem>) -> Result<Value, Problem> {
        self.depth += 1;
        check_depth(self.depth, self.lines.place(self.at))?;
        self.at += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn list(&mut self) -> Result<Value, Problem> {
        let mut items = Vec::new();
        self.blank();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value()?);
            self.blank();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            if !self.take(b',') {
                return Err(self.problem("expected `,` or `]`"));
            }
        }
    }

    fn map(&mut self) -> Result<Value, Problem> {
        let mut entries = Vec::new();
        self.blank();
        if self.take(b'}') {
            return Ok(Value::Map(entries));
        }
        loop {
            self.blank();
            let at = self.lines.place(self.at);
            if self.peek() != Some(b'"') {
                return Err(self.problem("expected a field name in quotes"));
            }
            let key = self.string()?;
            self.blank();
            if !self.take(b':') {
                return Err(self.problem("expected `:`"));
            }
            entries.push(Entry { key, at, value: self.value()? });
            self.blank();
            if self.take(b'}') {
                return Ok(Value::Map(entries));
            }
            if !self.take(b',') {
                return Err(self.problem("expected `,` or `}`"));
            }
        }
    }

    /// A string; the reader stands at its opening quote.
    fn string(&mut self) -> Result<String, Problem> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => {
                    self.at = start;
                    return Err(self.problem("the text is not closed with a quote"));
                }
            }
        }
        self.at += 1;
        let token = self.text.get(start..self.at).unwrap_or_default();
        serde_json::from_str(token).map_err(|_| {
            let what = "not a JSON text: a bad escape or a control character";
            Problem::new(self.lines.place(start), what)
        })
    }

    /// The run of characters that a word or a number is made of.
    fn token(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let ends = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        let token = rest.find(ends).and_then(|end| rest.get(..end)).unwrap_or(rest);
        self.at += token.len();
        token
    }
}
