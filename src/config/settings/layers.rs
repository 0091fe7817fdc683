//! The layers of settings: embedded defaults, the file, the environment.

use std::collections::BTreeSet;

use ::config::builder::{ConfigBuilder, DefaultState};
use ::config::{Config, ConfigError, Environment, File, FileFormat};

use super::SETTINGS_REFERENCE;
use super::reader::Reader;
use crate::config::env::Env;
use crate::config::fault::{nearest, shown};
use crate::config::load::{Format, read};
use crate::config::tree::{self, Node, Value as Tree};

const PREFIX: &str = "FLOTILLA_";
/// Names the file; itself no setting.
const FILE: &str = "FLOTILLA_SETTINGS";
/// Kubernetes sets these for a service that is called flotilla.
const INJECTED: [&str; 2] = ["FLOTILLA_PORT", "FLOTILLA_SERVICE_"];

impl Reader {
    pub(super) fn new(env: &Env) -> Self {
        let embedded = || File::from_str(SETTINGS_REFERENCE, FileFormat::Toml);
        let defaults = build(Config::builder().add_source(embedded()))
            .expect("the embedded defaults are valid TOML, as a test shows");
        let mut reader = Self {
            merged: defaults.clone(),
            defaults,
            file: env.get(FILE).map(str::to_owned),
            faults: Vec::new(),
            warnings: Vec::new(),
        };
        let known = reader.known();
        let file = reader.file.clone().and_then(|file| reader.file_layer(&file, &known));
        let vars = reader.environment_layer(env, &known);
        let mut layers = Config::builder().add_source(embedded());
        if let Some(text) = file {
            layers = layers.add_source(File::from_str(&text, FileFormat::Toml));
        }
        let prefix = PREFIX.trim_end_matches('_');
        let vars = Environment::with_prefix(prefix)
            .prefix_separator("_")
            .separator("__")
            .source(Some(vars.into_iter().collect()));
        match build(layers.add_source(vars)) {
            Ok(merged) => reader.merged = merged,
            // Only what the layers' own checks let through; its words could repeat a value.
            Err(_) => reader.push(FILE.to_owned(), "cannot be combined".to_owned(), None),
        }
        reader
    }

    /// The names of all settings, as keys of the file.
    fn known(&self) -> BTreeSet<String> {
        let mut known = BTreeSet::new();
        if let Ok(root) = tree::parse(Format::Toml, SETTINGS_REFERENCE) {
            leaves(&root, "", &mut |name, _| {
                known.insert(name.to_owned());
            });
        }
        known
    }

    /// The text of the file, if all of its keys are known.
    fn file_layer(&mut self, file: &str, known: &BTreeSet<String>) -> Option<String> {
        let bytes = match read(std::path::Path::new(file)) {
            Ok(bytes) => bytes,
            Err(what) => {
                self.push(format!("{FILE} ({file})"), what, None);
                return None;
            }
        };
        let Ok(text) = String::from_utf8(bytes) else {
            self.push(file.to_owned(), "not UTF-8".to_owned(), None);
            return None;
        };
        match tree::parse(Format::Toml, &text) {
            Ok(root) => {
                let mut unknown = Vec::new();
                leaves(&root, "", &mut |name, at| {
                    if !known.contains(name) {
                        unknown.push((name.to_owned(), at));
                    }
                });
                for (name, at) in &unknown {
                    let bare = name.to_ascii_lowercase();
                    let bare = bare.strip_prefix("flotilla_").unwrap_or(&bare);
                    let hint = nearest(bare, known.iter().map(String::as_str));
                    let place = format!("{file}:{}:{}", at.line, at.column);
                    let what = format!("unknown setting `{}`", shown(name));
                    self.push(place, what, hint.map(|name| format!("did you mean `{name}`?")));
                }
                unknown.is_empty().then_some(text)
            }
            Err(problems) => {
                for problem in problems {
                    let place = format!("{file}:{}:{}", problem.at.line, problem.at.column);
                    self.push(place, problem.what, problem.hint);
                }
                None
            }
        }
    }

    /// The variables that are settings; others of our prefix are warned of.
    fn environment_layer(&mut self, env: &Env, known: &BTreeSet<String>) -> Vec<(String, String)> {
        let names: Vec<_> = known.iter().map(|key| variable(key)).collect();
        let mut vars = Vec::new();
        for (name, value) in env.iter() {
            let ours = name.starts_with(PREFIX) && name != FILE;
            if !ours || INJECTED.iter().any(|injected| name.starts_with(injected)) {
                continue;
            }
            if names.iter().any(|known| known == name) {
                vars.push((name.to_owned(), value.to_owned()));
            } else {
                let near = nearest(name, names.iter().map(String::as_str).chain([FILE]));
                let hint = near.map(|name| format!("did you mean {name}?"));
                self.warn(name, "is not a setting and is ignored", hint);
            }
        }
        vars
    }
}

fn build(layers: ConfigBuilder<DefaultState>) -> Result<Config, ConfigError> {
    layers.build()
}

/// The variable of a key.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Every value that is not a table, by its full name.
fn leaves(node: &Node, prefix: &str, found: &mut impl FnMut(&str, tree::Place)) {
    let Tree::Map(entries) = &node.value else { return };
    for entry in entries {
        let name =
            if prefix.is_empty() { entry.key.clone() } else { format!("{prefix}.{}", entry.key) };
        if matches!(entry.value.value, Tree::Map(_)) {
            leaves(&entry.value, &name, found);
        } else {
            found(&name, entry.at);
        }
    }
}
