//! Reads typed settings out of the layers and collects what is wrong with them.

use std::time::Duration;

use ::config::{Config, Value, ValueKind};

use super::layers::variable;
use super::parse::Parsed;
use crate::config::fault::{Fault, Warning, shown};
use crate::domain::{Secret, parse_duration, parse_size};

/// actix-server knows no more.
const MAX_WORKERS: usize = 512;

/// The settings as they were given.
pub(super) struct Reader {
    pub(super) merged: Config,
    pub(super) defaults: Config,
    /// The file, where there is one.
    pub(super) file: Option<String>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Warning>,
}

impl Reader {
    pub(super) fn push(&mut self, name: String, what: String, hint: Option<String>) {
        self.faults.push(Fault { name, what, hint });
    }

    pub(super) fn warn(&mut self, name: &str, what: &str, hint: Option<String>) {
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
            Ok(ValueKind::Float(number)) => number.to_string(),
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

    pub(super) fn is_set(&mut self, key: &str) -> bool {
        !self.text(key).is_empty()
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
            let least = match least.as_millis() {
                1 => "above 0s".to_owned(),
                least => format!("at least {least}ms"),
            };
            self.fault(key, &format!("must be {least}"), None);
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
            Ok(workers) if workers <= MAX_WORKERS => Ok(workers),
            _ => Err(format!("\"{}\" is not a number from 0 to {MAX_WORKERS}", shown(text))),
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
