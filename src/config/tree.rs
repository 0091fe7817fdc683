//! A document as values that know their places, whichever format it was written in.
//!
//! What no format may do to us is bounded here: size, depth, the number of values, and the work
//! that aliases can ask for. A field that stands twice is a fault, never a silent choice.

mod json;
mod toml;
mod yaml;

use std::collections::HashMap;
use std::fmt;

use serde_json::Number;

use super::load::Format;

/// No document of ours is deeper than eight; this many levels keep every recursion shallow.
const DEPTH: usize = 32;
/// Values and names in one document, aliases spelt out: over 50,000 keys with all of their fields.
const VALUES: usize = 1_000_000;

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// What a document can hold. No `Debug`: a text may be a secret.
#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A field of a map.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Place,
    pub(super) value: Node,
}

/// What is wrong with the text itself.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: Place,
    pub(super) what: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    fn new(at: Place, what: impl Into<String>) -> Self {
        Self { at, what: what.into(), hint: None }
    }

    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

/// Reads a text of the given format.
pub(super) fn parse(format: Format, text: &str) -> Result<Node, Vec<Problem>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let node = match format {
        Format::Yaml => yaml::parse(text),
        Format::Json => json::parse(text),
        Format::Toml => toml::parse(text),
    }?;
    let mut problems = Vec::new();
    duplicates(&node, &mut problems);
    if problems.is_empty() { Ok(node) } else { Err(problems) }
}

impl Node {
    /// True for an empty list and an empty map, which ask for nothing.
    pub(super) fn is_empty(&self) -> bool {
        match &self.value {
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }

    /// The place of what `path` leads to, or of the deepest that is there on the way.
    pub(super) fn place(&self, path: &Path) -> Place {
        let mut node = self;
        let mut at = self.at;
        for step in &path.0 {
            match (step, &node.value) {
                (Step::Field(name), Value::Map(entries)) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *name) else {
                        return at;
                    };
                    // A map written below its name is best found by that name.
                    at = if matches!(entry.value.value, Value::Map(_)) {
                        entry.at
                    } else {
                        entry.value.at
                    };
                    node = &entry.value;
                }
                (Step::Item(index), Value::List(items)) => {
                    let Some(item) = items.get(*index) else { return at };
                    at = item.at;
                    node = item;
                }
                _ => return at,
            }
        }
        at
    }
}

fn duplicates(node: &Node, problems: &mut Vec<Problem>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| duplicates(item, problems)),
        Value::Map(entries) => {
            let mut seen: HashMap<&str, Place> = HashMap::with_capacity(entries.len());
            for entry in entries {
                if let Some(first) = seen.insert(&entry.key, entry.at) {
                    let what = format!("`{}` stands twice", super::fault::shown(&entry.key));
                    let mut problem = Problem::new(entry.at, what);
                    problem.hint =
                        Some(format!("it was first given at {}:{}", first.line, first.column));
                    problems.push(problem);
                }
                duplicates(&entry.value, problems);
            }
        }
        _ => {}
    }
}

/// Counts values against the bound.
struct Budget(usize);

impl Budget {
    fn new() -> Self {
        Self(VALUES)
    }

    fn spend(&mut self, values: usize, at: Place) -> Result<(), Problem> {
        self.0 = self.0.checked_sub(values).ok_or_else(|| {
            Problem::new(at, format!("the document has more than {VALUES} values"))
        })?;
        Ok(())
    }
}

fn check_depth(depth: usize, at: Place) -> Result<(), Problem> {
    if depth < DEPTH {
        return Ok(());
    }
    Err(Problem::new(at, format!("nested deeper than {DEPTH} levels")))
}

/// The way to a value: `pools.fast.tiers[0][1]`.
#[derive(Clone, Default)]
pub(super) struct Path(Vec<Step>);

#[derive(Clone)]
enum Step {
    Field(String),
    Item(usize),
}

impl Path {
    pub(super) fn field(&self, name: &str) -> Self {
        self.with(Step::Field(name.to_owned()))
    }

    pub(super) fn item(&self, index: usize) -> Self {
        self.with(Step::Item(index))
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Item(item) => write!(f, "[{item}]")?,
                Step::Field(name) => {
                    let dot = if index == 0 { "" } else { "." };
                    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
                    if !name.is_empty() && name.bytes().all(plain) {
                        write!(f, "{dot}{name}")?;
                    } else {
                        write!(f, "{dot}\"{}\"", super::fault::shown(name))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Finds line and column of a byte in a text.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let ends = memchr::memchr_iter(b'\n', text.as_bytes());
        Self { text, starts: std::iter::once(0).chain(ends.map(|end| end + 1)).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|line| self.starts.get(line)).copied();
        let before = self.text.get(start.unwrap_or(0)..offset).unwrap_or_default();
        place(line, before.chars().count() + 1)
    }
}

fn place(line: usize, column: usize) -> Place {
    let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: narrow(line), column: narrow(column) }
}

#[cfg(test)]
mod tests;
