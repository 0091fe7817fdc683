//! Checks a document against the schema and collects every fault, instead of stopping at the first
//! as deserialization does.
//!
//! Understands just the words that schemas of our own types use. What it returns deserializes into
//! those types; a test over random documents holds the two together.

use serde_json::{Map, Value as Json};

use super::document::scalar_check;
use super::fault::{Faults, shown};
use super::tree::{Entry, Node, Path, Place, Value};

/// What a walk found.
pub(super) struct Walked {
    /// The document without its unknown fields, if the rest of it fits the types.
    pub(super) json: Option<Json>,
    pub(super) faults: Faults,
}

/// Walks over the whole document.
pub(super) fn walk(file: &str, schema: &Json, root: &Node) -> Walked {
    let mut walker = Walker { schema, faults: Faults::new(file) };
    let json = walker.value(schema, root, &Path::default());
    Walked { json, faults: walker.faults }
}

struct Walker<'a> {
    schema: &'a Json,
    faults: Faults,
}

impl<'a> Walker<'a> {
    /// The value as JSON; none where it, or something in it, does not fit.
    fn value(&mut self, schema: &'a Json, node: &Node, path: &Path) -> Option<Json> {
        let schema = self.resolve(schema);
        if let Some(choices) = consts(schema) {
            return self.choice(&choices, node, path);
        }
        if let Some(Json::Array(branches)) = schema.get("anyOf") {
            return self.any(branches, node, path);
        }
        match (schema.get("type").and_then(Json::as_str), &node.value) {
            (_, Value::Null) => {
                let hint = "give it a value or leave the field out";
                self.fault(node.at, path, "empty", Some(hint))
            }
            (Some("object"), Value::Map(entries)) => self.map(schema, node.at, entries, path),
            (Some("array"), Value::List(items)) => self.list(schema, node.at, items, path),
            (Some("string"), Value::Text(text)) => self.text(schema, node.at, text, path),
            (Some("boolean"), Value::Bool(truth)) => Some((*truth).into()),
            (Some("number"), Value::Number(number)) => self.number(schema, node.at, number, path),
            (Some("integer"), Value::Number(number)) if !number.is_f64() => {
                self.number(schema, node.at, number, path)
            }
            // A field whose shape is not fixed yet; it is refused as not served.
            (None, _) => Some(Json::Bool(true)),
            (Some(expected), found) => {
                let check = schema.get("x-check").and_then(Json::as_str);
                let unit = match (check, found) {
                    (Some("duration"), Value::Number(_)) => {
                        Some(("a duration needs a unit", "write for instance 10s or 250ms"))
                    }
                    (Some("money"), Value::Number(_)) => Some((
                        "an amount of money needs its currency",
                        "write for instance \"100 USD\"",
                    )),
                    _ => None,
                };
                if let Some((what, hint)) = unit {
                    return self.fault(node.at, path, what, Some(hint));
                }
                let what = format!("expected {}, found {}", word(expected), kind(found).1);
                let hint = match (expected, found) {
                    ("string", Value::Bool(_) | Value::Number(_)) => Some("put it in quotes"),
                    ("integer" | "number", Value::Text(_)) => Some("write a number"),
                    ("array", Value::Text(_)) => Some("put it in brackets: [...]"),
                    ("boolean", Value::Text(_)) => Some("write true or false, without quotes"),
                    _ => None,
                };
                self.fault(node.at, path, what, hint)
            }
        }
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let name = schema.get("$ref").and_then(Json::as_str);
        let target = name.and_then(|name| self.schema.pointer(name.trim_start_matches('#')));
        target.unwrap_or(schema)
    }

    fn fault(
        &mut self,
        at: Place,
        path: &Path,
        what: impl Into<String>,
        hint: Option<&str>,
    ) -> Option<Json> {
        self.faults.push(at, path, what, hint.map(str::to_owned));
        None
    }

    fn map(&mut self, schema: &'a Json, at: Place, entries: &[Entry], path: &Path) -> Option<Json> {
        let fields = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").filter(|others| !others.is_boolean());
        let mut json = Some(Map::new());
        for Entry { key, at, value } in entries {
            let here = path.field(key);
            let field = fields.and_then(|fields| fields.get(key));
            let Some(inner) = field.or(others) else {
                self.unknown(key, *at, fields, &here);
                // The others can still be checked against each other, unless a whole section of
                // the document is what is missing now.
                if path.is_root() {
                    json = None;
                }
                continue;
            };
            let walked = self.value(inner, value, &here);
            if inner.get("x-served") == Some(&Json::Bool(false)) && !value.is_empty() {
                self.fault(*at, &here, "not served yet", Some("leave it out for now"));
            }
            json = match (json, walked) {
                (Some(mut json), Some(walked)) => {
                    json.insert(key.clone(), walked);
                    Some(json)
                }
                _ => None,
            };
        }
        let required = schema.get("required").and_then(Json::as_array);
        for name in required.into_iter().flatten().filter_map(Json::as_str) {
            if !entries.iter().any(|entry| entry.key == name) {
                let what = fields.and_then(|fields| fields.get(name)).and_then(description);
                let what = what.map(|what| format!(", {what}")).unwrap_or_default();
                self.fault(at, path, format!("missing field `{name}`{what}"), None);
                json = None;
            }
        }
        json.map(Json::Object)
    }

    fn unknown(
        &mut self,
        key: &str,
        at: Place,
        fields: Option<&'a Map<String, Json>>,
        path: &Path,
    ) {
        let known = || fields.into_iter().flat_map(Map::keys).map(String::as_str);
        let hint = if key == "<<" {
            Some("merge keys are not supported; repeat the fields or use an alias".to_owned())
        } else {
            let all = || Some(format!("known here: {}", list(known())));
            self.faults.suggest(key, known()).or_else(all)
        };
        let what = format!("unknown field `{}`", shown(key));
        self.faults.push(at, path, what, hint);
    }

    fn list(&mut self, schema: &'a Json, at: Place, items: &[Node], path: &Path) -> Option<Json> {
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            self.fault(at, path, "empty, so nothing could serve", Some("name at least one"));
            return None;
        }
        let inner = schema.get("items").unwrap_or(&Json::Bool(true));
        let walked: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.value(inner, item, &path.item(index)))
            .collect();
        walked.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
    }

    fn text(&mut self, schema: &Json, at: Place, text: &str, path: &Path) -> Option<Json> {
        let check = schema.get("x-check").and_then(Json::as_str).unwrap_or_default();
        match scalar_check(check, text) {
            Ok(()) => Some(text.into()),
            Err(what) => self.fault(at, path, what, None),
        }
    }

    fn number(
        &mut self,
        schema: &Json,
        at: Place,
        number: &serde_json::Number,
        path: &Path,
    ) -> Option<Json> {
        let bound = |name| schema.get(name).and_then(Json::as_f64);
        let format = schema.get("format").and_then(Json::as_str);
        let most = bound("maximum").or((format == Some("uint32")).then_some(f64::from(u32::MAX)));
        let value = number.as_f64()?;
        if bound("minimum").is_some_and(|least| value < least) {
            let least = bound("minimum").unwrap_or_default();
            return self.fault(at, path, format!("{number} is below {least}"), None);
        }
        if let Some(most) = most.filter(|most| value > *most) {
            return self.fault(at, path, format!("{number} is above {most}"), None);
        }
        if format == Some("uint64") && !number.is_u64() {
            return self.fault(at, path, "a number beyond 64 bits", None);
        }
        Some(Json::Number(number.clone()))
    }

    /// One of several words.
    fn choice(&mut self, choices: &[(&'a str, bool)], node: &Node, path: &Path) -> Option<Json> {
        let names = || choices.iter().map(|(name, _)| *name);
        let Value::Text(text) = &node.value else {
            let what = format!("expected one of {}, found {}", list(names()), kind(&node.value).1);
            return self.fault(node.at, path, what, None);
        };
        match choices.iter().find(|(name, _)| name == text) {
            Some((name, served)) => {
                if !served {
                    let now = list(choices.iter().filter(|choice| choice.1).map(|(name, _)| *name));
                    let hint = format!("served now: {now}");
                    self.fault(node.at, path, format!("`{name}` is not served yet"), Some(&hint));
                }
                Some(text.as_str().into())
            }
            None => {
                let hint = self
                    .faults
                    .suggest(text, names())
                    .unwrap_or_else(|| format!("one of {}", list(names())));
                self.fault(node.at, path, format!("there is no `{}`", shown(text)), Some(&hint))
            }
        }
    }

    /// The branch whose kind the value has.
    fn any(&mut self, branches: &'a [Json], node: &Node, path: &Path) -> Option<Json> {
        let kind_of = |branch: &'a Json| {
            let branch = self.resolve(branch);
            let consts = consts(branch).map(|_| "string");
            consts.or_else(|| branch.get("type").and_then(Json::as_str)).unwrap_or_default()
        };
        let (found, found_word) = kind(&node.value);
        let fits = |branch: &&'a Json| kind_of(branch) == found;
        if let Some(branch) = branches.iter().find(fits) {
            return self.value(branch, node, path);
        }
        let words: Vec<_> = branches.iter().map(|branch| word(kind_of(branch))).collect();
        let what = format!("expected {}, found {found_word}", words.join(" or "));
        self.fault(node.at, path, what, None)
    }
}

/// The words of an enumeration and whether each is served.
fn consts(schema: &Json) -> Option<Vec<(&str, bool)>> {
    let branches = schema.get("oneOf")?.as_array()?;
    branches
        .iter()
        .map(|branch| {
            let served = branch.get("x-served") != Some(&Json::Bool(false));
            branch.get("const").and_then(Json::as_str).map(|name| (name, served))
        })
        .collect()
}

/// What a field is, in a few words that go on a sentence.
fn description(schema: &Json) -> Option<String> {
    let text = schema.get("description").and_then(Json::as_str)?;
    let words = text.split(['.', ';', ':']).next()?;
    let mut letters = words.chars();
    Some(letters.next()?.to_lowercase().chain(letters).collect())
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" ")
}

fn word(schema_type: &str) -> &'static str {
    match schema_type {
        "object" => "fields",
        "array" => "a list",
        "string" => "text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        _ => "something else",
    }
}

/// The kind of a value in the schema's word and in ours.
fn kind(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", "nothing"),
        Value::Bool(_) => ("boolean", "true or false"),
        Value::Number(number) if number.is_f64() => ("number", "a fraction"),
        Value::Number(_) => ("integer", "a number"),
        Value::Text(_) => ("string", "text"),
        Value::List(_) => ("array", "a list"),
        Value::Map(_) => ("object", "fields"),
    }
}
