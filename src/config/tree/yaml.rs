//! YAML 1.2 with places, from the events of the parser.
//!
//! Built from events and not from a ready tree, so that a field that stands twice is seen, names
//! keep the letters they were written with (`on`, `1.10`, `007`), and the bounds hold while
//! reading. Only what JSON can say is a number: `0123`, `1_000` and `0x1F` mean different things to
//! different readers and stay text. Aliases work within the bound; merge keys are not YAML 1.2.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Budget, Entry, Node, Place, Problem, Value, check_depth, place};

/// Values that aliases may add to a document.
const ALIASED: usize = 10_000;
/// The usual reason why a document is not the YAML that was meant.
const VARIABLE: &str = "within braces, put ${NAME} in quotes";

pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    let mut builder = Builder {
        stack: Vec::new(),
        anchors: HashMap::new(),
        budget: Budget::new(),
        aliased: 0,
        document: None,
        documents: 0,
    };
    for event in Parser::new_from_str(text) {
        let step = event
            .map_err(|error| {
                let line = error.marker().line();
                let at = place(line, error.marker().col() + 1);
                let problem = Problem::new(at, format!("not YAML: {}", error.info()));
                let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
                if written.contains("${") { problem.hint(VARIABLE) } else { problem }
            })
            .and_then(|(event, span)| builder.event(event, span));
        step.map_err(|problem| vec![problem])?;
    }
    builder
        .document
        .ok_or_else(|| vec![Problem::new(Place { line: 1, column: 1 }, "the document is empty")])
}

/// A list or map that is still open.
struct Open {
    at: Place,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map(Vec<Entry>, Option<(String, Place)>),
}

struct Builder {
    stack: Vec<Open>,
    /// Anchored values and how many values each is.
    anchors: HashMap<usize, (Node, usize)>,
    budget: Budget,
    aliased: usize,
    document: Option<Node>,
    documents: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = place(span.start.line(), span.start.col() + 1);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Problem::new(at, "a second document begins")
                        .hint("a file holds one document; remove the ---"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.spend(1, at)?;
                if let Some(Open { kind: Kind::Map(_, key @ None), .. }) = self.stack.last_mut() {
                    if style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null") {
                        return Err(Problem::new(at, "a field without a name"));
                    }
                    *key = Some((text.into_owned(), at));
                    return Ok(());
                }
                let value = scalar(text, style, tag.as_deref(), at)?;
                self.value(Node { at, value }, anchor)
            }
            Event::Alias(id) => {
                let (node, values) =
                    self.anchors.get(&id).cloned().ok_or_else(|| {
                        Problem::new(at, "an alias stands inside of what it repeats")
                    })?;
                self.aliased += values;
                if self.aliased > ALIASED {
                    let what = format!("aliases repeat more than {ALIASED} values");
                    return Err(Problem::new(at, what));
                }
                self.budget.spend(values, at)?;
                self.value(Node { at, ..node }, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(at, anchor, tag.as_deref(), Kind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.open(at, anchor, tag.as_deref(), Kind::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open { at, anchor, kind }) => {
                    let value = match kind {
                        Kind::List(items) => Value::List(items),
                        Kind::Map(entries, _) => Value::Map(entries),
                    };
                    self.value(Node { at, value }, anchor)
                }
                None => Ok(()),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(
        &mut self,
        at: Place,
        anchor: usize,
        tag: Option<&Tag>,
        kind: Kind,
    ) -> Result<(), Problem> {
        self.budget.spend(1, at)?;
        check_depth(self.stack.len() + 1, at)?;
        if tag.is_some() {
            return Err(Problem::new(at, "tags are not supported").hint("remove it"));
        }
        if let Some(Open { kind: Kind::Map(_, None), .. }) = self.stack.last() {
            return Err(Problem::new(at, "a field's name must be text").hint(VARIABLE));
        }
        self.stack.push(Open { at, anchor, kind });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn value(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            // The copy that is kept counts too, so that anchors within anchors stay bounded.
            let values = count(&node);
            self.budget.spend(values, node.at)?;
            self.anchors.insert(anchor, (node.clone(), values));
        }
        match self.stack.last_mut().map(|open| &mut open.kind) {
            None => self.document = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map(entries, key)) => match key.take() {
                Some((key, at)) => entries.push(Entry { key, at, value: node }),
                None => return Err(Problem::new(node.at, "a field's name must be plain text")),
            },
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 1 + count(&entry.value)).sum(),
        _ => 0,
    }
}

fn scalar(
    text: Cow<'_, str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    at: Place,
) -> Result<Value, Problem> {
    let as_text = match tag {
        None => style != ScalarStyle::Plain,
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => true,
        Some(_) => {
            return Err(Problem::new(at, "tags are not supported").hint("remove it"));
        }
    };
    if as_text {
        return Ok(Value::Text(text.into_owned()));
    }
    Ok(match &*text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        plain => match number(plain) {
            Some(number) => Value::Number(number),
            None => Value::Text(text.into_owned()),
        },
    })
}

/// A JSON number, or one of the two spellings that only YAML has and nobody misreads: `.5`, `5.`.
fn number(text: &str) -> Option<serde_json::Number> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let whole = if digits.starts_with('.') { "0" } else { "" };
    let part = if digits.ends_with('.') { "0" } else { "" };
    if !digits.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    serde_json::from_str(&format!("{sign}{whole}{digits}{part}")).ok()
}
