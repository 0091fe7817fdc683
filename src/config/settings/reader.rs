//! Reads typed settings out of the layers and collects what is wrong with them.

use std::collections::BTreeSet;
use std::time::Duration;

use ::config::{Config, Environment, File, FileFormat, Value, ValueKind};

use super::SETTINGS_REFERENCE;
use super::parse::Parsed;
use crate::config::env::Env;
use crate::config::fault::{Fault, Warning, nearest, shown};
use crate::config::load::{Format, read};
use crate::config::tree::{self, Node, Value as Tree};
use crate::domain::{Secret, parse_duration, parse_size};

const PREFIX: &str = "FLOTILLA_";
/// Names the file; itself no setting.
const FILE: &str = "FLOTILLA_SETTINGS";
/// Kubernetes sets these for a service that is called flotilla.
const INJECTED: [&str; 2] = ["FLOTILLA_PORT", "FLOTILLA_SERVICE_"];

/// The settings as they were given.
pub(super) struct Reader {
    merged: Config,
    defaults: Config,
    /// The file, where there is one.
    file: Option<String>,
    faults: Vec<Fault>,
    warnings: Vec<Warning>,
}

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
                if name.starts_with("OTEL_EXPORTER_") && name.ends_with("_ENDPOINT") {
                    self.warn(name, "is set, but tracing is not served yet", None);
                }
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

    fn push(&mut self, name: String, what: String, hint: Option<String>) {
        self.faults.push(Fault { name, what, hint });
    }

    fn warn(&mut self, name: &str, what: &str, hint: Option<String>) {
        self.warnings.push(Warning { name: name.to_owned(), what: what.to_owned(), hint });
    }

    /// A fault of the setting `key`, named as it was given.
    pub(super) fn fault(&mut self, key: &str, what: &str, hint: Option<&str>) {
        let in_file = |value: Value| value.origin() != Some("the environment");
        let from_file = self.merged.get::<Value>(key).is_ok_and(in_file);
        let differs = !self.is_default(key);
        let name = match &self.file {
            Some(file) if from_file && differs => format!("{key} in {file}"),
            _ => variable(key),
        };
        self.push(name, what.to_owned(), hint.map(str::to_owned));
    }

    /// The value as text; lists as in the environment.
    fn text(&mut self, key: &str) -> String {
        match self.merged.get::<Value>(key).map(|value| value.kind) {
            Ok(ValueKind::String(text)) => text,
            Ok(ValueKind::Boolean(truth)) => truth.to_string(),
            Ok(ValueKind::I64(number)) => number.to_string(),
            Ok(ValueKind::Array(items)) => {
                let items = items.into_iter().map(Value::into_string);
                items.collect::<Result<Vec<_>, _>>().unwrap_or_default().join(",")
            }
            _ => {
                self.fault(key, "not of the right kind", Some("write it as the defaults do"));
                self.defaults.get_string(key).unwrap_or_default()
            }
        }
    }

    fn is_default(&self, key: &str) -> bool {
        let kind = |layers: &Config| layers.get::<Value>(key).map(|value| value.kind.to_string());
        matches!((kind(&self.merged), kind(&self.defaults)), (Ok(a), Ok(b)) if a == b)
    }

    /// A setting that always has a value. Where it is wrong, the default stands in, so that
    /// reading can go on.
    pub(super) fn with<T>(&mut self, key: &str, parse: fn(&str) -> Parsed<T>) -> T {
        let text = self.text(key);
        match parse(text.trim()) {
            Ok(value) => value,
            Err(what) => {
                let default = self.defaults.get_string(key).unwrap_or_default();
                let hint = format!("the default is {default}");
                self.fault(key, &what, Some(&hint));
                parse(&default).expect("the embedded defaults are valid, as a test shows")
            }
        }
    }

    /// A setting that may be empty: not set.
    pub(super) fn optional(&mut self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    pub(super) fn optional_with<T>(
        &mut self,
        key: &str,
        parse: fn(&str) -> Parsed<T>,
    ) -> Option<T> {
        let text = self.optional(key)?;
        parse(&text).map_err(|what| self.fault(key, &what, None)).ok()
    }

    pub(super) fn secret(
        &mut self,
        key: &str,
        parse: fn(&str) -> Parsed<String>,
    ) -> Option<Secret> {
        self.optional_with(key, parse).map(Secret::new)
    }

    pub(super) fn duration(&mut self, key: &str, least: Duration, most: Duration) -> Duration {
        let parse = |text: &str| parse_duration(text).map_err(|error| error.to_string());
        let duration = self.with(key, parse);
        if duration < least {
            self.fault(key, "must be above 0s", None);
        } else if duration > most {
            self.fault(key, &format!("must be at most {}s", most.as_secs()), None);
        }
        duration
    }

    pub(super) fn size(&mut self, key: &str) -> usize {
        let parse = |text: &str| parse_size(text).map_err(|error| error.to_string());
        let size = self.with(key, parse);
        if size == 0 {
            self.fault(key, "must be above 0B", None);
        }
        usize::try_from(size).unwrap_or(usize::MAX)
    }

    pub(super) fn workers(&mut self, key: &str) -> usize {
        let parse = |text: &str| match text.parse() {
            Ok(workers) if workers <= 1024 => Ok(workers),
            _ => Err(format!("\"{}\" is not a number from 0 to 1024", shown(text))),
        };
        match self.with(key, parse) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    pub(super) fn truth(&mut self, key: &str) -> bool {
        let parse = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("\"{}\" is neither true nor false", shown(text))),
        };
        self.with(key, parse)
    }

    pub(super) fn list<T>(&mut self, key: &str, parse: fn(&str) -> Parsed<T>) -> Vec<T> {
        let text = self.text(key);
        let mut values = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match parse(item) {
                Ok(value) => values.push(value),
                Err(what) => self.fault(key, &what, Some("separate several with commas")),
            }
        }
        values
    }

    /// Refuses a setting that asks for what does not exist yet.
    pub(super) fn refuse(&mut self, key: &str) {
        if !self.is_default(key) {
            self.fault(key, "not served yet", Some("leave it unset for now"));
        }
    }

    pub(super) fn finish<T>(self, settings: T) -> Result<(T, Vec<Warning>), Vec<Fault>> {
        if self.faults.is_empty() { Ok((settings, self.warnings)) } else { Err(self.faults) }
    }
}

fn build(
    layers: ::config::ConfigBuilder<::config::builder::DefaultState>,
) -> Result<Config, ::config::ConfigError> {
    layers.build()
}

/// The variable of a key.
fn variable(key: &str) -> String {
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
