//! TOML with places, from the spanned tree of the toml crate.
//!
//! Only the message of its errors is used: their long form quotes the line, which may hold a
//! secret.

use ::toml::de::{DeTable, DeValue};

use super::super::fault::shown;
use super::{Budget, Entry, Lines, Node, Place, Problem, Value, check_depth};

pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let problem = |error: &::toml::de::Error| {
            let span = error.span().unwrap_or_default();
            let at = lines.place(span.start);
            match text.get(span) {
                Some(key) if error.message() == "duplicate key" => {
                    Problem::new(at, format!("`{}` stands twice", shown(key)))
                }
                _ => Problem::new(at, error.message()),
            }
        };
        let mut problems: Vec<_> = errors.iter().map(problem).collect();
        // What follows on the same line is mostly the same slip once more.
        problems.dedup_by_key(|problem| problem.at.line);
        return Err(problems);
    }
    let mut reader = Reader { lines, budget: Budget::new() };
    let value = reader.table(table.get_ref(), 0).map_err(|problem| vec![problem])?;
    Ok(Node { at: Place { line: 1, column: 1 }, value })
}

struct Reader<'a> {
    lines: Lines<'a>,
    budget: Budget,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Result<Value, Problem> {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let at = self.lines.place(key.span().start);
            let value_at = self.lines.place(value.span().start);
            let value = self.node(value.get_ref(), value_at, depth + 1)?;
            entries.push(Entry { key: key.get_ref().clone().into_owned(), at, value });
        }
        // The crate sorts by name; a reader expects the order of the file.
        entries.sort_by_key(|entry| entry.at);
        Ok(Value::Map(entries))
    }

    fn node(&mut self, value: &DeValue<'_>, at: Place, depth: usize) -> Result<Node, Problem> {
        self.budget.spend(1, at)?;
        check_depth(depth, at)?;
        let number = |text: &str| {
            let number = serde_json::from_str(text);
            number.map(Value::Number).map_err(|_| Problem::new(at, "not a number we can use"))
        };
        let value = match value {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Float(float) => number(float.as_str().trim_start_matches('+'))?,
            DeValue::Integer(integer) => {
                let parsed = i64::from_str_radix(integer.as_str(), integer.radix());
                let parsed = parsed.map_err(|_| Problem::new(at, "a number beyond 64 bits"))?;
                Value::Number(parsed.into())
            }
            DeValue::Table(table) => self.table(table, depth)?,
            DeValue::Array(array) => {
                let items = array.iter().map(|item| {
                    let at = self.lines.place(item.span().start);
                    self.node(item.get_ref(), at, depth + 1)
                });
                Value::List(items.collect::<Result<_, _>>()?)
            }
        };
        Ok(Node { at, value })
    }
}
