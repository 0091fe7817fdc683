//! What is wrong, where, and what to write instead: the shape of every message of this module.

use std::fmt;

use super::tree::{Path, Place};

/// A setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {what}{}", hinted(.hint.as_deref()))]
pub struct Fault {
    /// The variable, or the key and the file it stands in.
    pub name: String,
    /// What is wrong with it.
    pub what: String,
    /// What to set.
    pub hint: Option<String>,
}

/// A place in a fleet document that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}{}: {}{what}{}", placed(*.line, *.column), prefixed(.path), hinted(.hint.as_deref()))]
pub struct DocumentFault {
    /// The file as it was named.
    pub file: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub line: u32,
    /// Column in characters, from 1; 0 where the whole file is meant.
    pub column: u32,
    /// The field, such as `pools.fast.tiers[0][1]`; empty where the text itself is meant.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// Something that is not wrong but must be seen: a disabled provider, an unknown variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The variable, or the field of the document.
    pub name: String,
    /// What is the matter.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.name, self.what, hinted(self.hint.as_deref()))
    }
}

fn hinted(hint: Option<&str>) -> String {
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

fn placed(line: u32, column: u32) -> String {
    if line == 0 { String::new() } else { format!(":{line}:{column}") }
}

fn prefixed(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

/// Faults of one document as they are found.
#[derive(Debug)]
pub(super) struct Faults {
    file: String,
    list: Vec<DocumentFault>,
}

/// Beyond so many faults no more suggestions are searched, which bounds the work on a document
/// whose every reference is wrong.
const SUGGESTIONS: usize = 100;

impl Faults {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), list: Vec::new() }
    }

    pub(super) fn push(
        &mut self,
        at: Place,
        path: &Path,
        what: impl Into<String>,
        hint: Option<String>,
    ) {
        let (file, path) = (self.file.clone(), path.to_string());
        let Place { line, column } = at;
        self.list.push(DocumentFault { file, line, column, path, what: what.into(), hint });
    }

    /// The sentence that offers the nearest of `known`, if one is near enough.
    pub(super) fn suggest<'a>(
        &self,
        wrong: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Option<String> {
        if self.list.len() >= SUGGESTIONS {
            return None;
        }
        nearest(wrong, known).map(|name| format!("did you mean `{name}`?"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All faults in the order of the document, each once.
    pub(super) fn into_list(mut self) -> Vec<DocumentFault> {
        self.list.sort_by(|a, b| (a.line, a.column, &a.path).cmp(&(b.line, b.column, &b.path)));
        self.list.dedup();
        self.list
    }
}

/// The one of `known` that is most like `wrong`: at most one edit in three letters away, a swap of
/// neighbours counted as one; upper and lower case are the same.
pub(super) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A name is short; a text that is not cannot be a misspelt one.
    if wrong.len() > 200 {
        return None;
    }
    let wrong = wrong.to_lowercase();
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(wrong.len()) <= wrong.len() / 3 + 1)
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wrong.len()) / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// Short text for a message: control characters escaped, and cut where it is long.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let known = ["api_key", "base_url", "protocol", "usage_in_stream"];
        assert_eq!(nearest("api_kye", known), Some("api_key"));
        assert_eq!(nearest("API_KEY", known), Some("api_key"));
        assert_eq!(nearest("baseurl", known), Some("base_url"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn a_fault_reads_as_one_line() {
        let fault = DocumentFault {
            file: "a.yaml".into(),
            line: 3,
            column: 7,
            path: "pools.fast".into(),
            what: "missing field `tiers`".into(),
            hint: Some("write tiers: [[...]]".into()),
        };
        let text = "a.yaml:3:7: pools.fast: missing field `tiers`; write tiers: [[...]]";
        assert_eq!(fault.to_string(), text);
    }
}
