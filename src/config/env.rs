//! The process environment as a value, so that nothing else ever reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Environment variables by name; a clone shares them. `Debug` shows no values, for they may be
/// secret.
#[derive(Clone, Default)]
pub struct Env(Arc<BTreeMap<String, String>>);

impl Env {
    /// The environment of this process; the one place that reads it. A name that is not UTF-8
    /// cannot be one of ours and is left out; a value that is not keeps a replacement character,
    /// so that whoever reads it says what is wrong with it.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect()
    }

    /// The value of a variable; an empty one counts as not set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(Arc::new(pairs.collect()))
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Env({} variables)", self.0.len())
    }
}

/// Why a text with `${NAME}` in it has no value here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// The document itself is wrong: a `${` without a name and a closing brace.
    Malformed,
    /// These variables are not set on this node.
    Missing(Vec<String>),
}

/// Puts the values of variables in place of each `${NAME}`. A `$` elsewhere stands for itself,
/// and values are not looked into again.
pub(super) fn expand(text: &str, env: &Env) -> Result<String, ExpandError> {
    let (mut out, mut rest, mut missing) = (String::new(), text, Vec::new());
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after.split_once('}').ok_or(ExpandError::Malformed)?;
        if !is_name(name) {
            return Err(ExpandError::Malformed);
        }
        out.push_str(before);
        match env.get(name) {
            Some(value) => out.push_str(value),
            None => missing.push(name.to_owned()),
        }
        rest = behind;
    }
    out.push_str(rest);
    if missing.is_empty() { Ok(out) } else { Err(ExpandError::Missing(missing)) }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_place_once() {
        let env: Env = [("A", "1"), ("B", "${A}"), ("EMPTY", "")].into_iter().collect();
        assert_eq!(expand("plain $ text", &env), Ok("plain $ text".into()));
        assert_eq!(expand("x${A}y${B}", &env), Ok("x1y${A}".into()));
        assert_eq!(
            expand("${A}${NO}${EMPTY}", &env),
            Err(ExpandError::Missing(vec!["NO".into(), "EMPTY".into()]))
        );
        for text in ["${", "${}", "${1A}", "${a b}", "${A"] {
            assert_eq!(expand(text, &env), Err(ExpandError::Malformed), "{text}");
        }
    }

    #[test]
    fn an_environment_does_not_show_its_values() {
        let env: Env = [("A", "canary")].into_iter().collect();
        assert_eq!(format!("{env:?}"), "Env(1 variables)");
    }
}
