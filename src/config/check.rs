//! What a schema cannot say about a document: names, references between its parts, routes that
//! nothing reaches, cycles, values that make no sense.
//!
//! Everything here is the same on every node; what depends on a node's variables is for `compile`.

mod limits;
mod routing;

use std::collections::HashMap;

use super::document::{Document, Fleet, Key};
use super::fault::{DocumentFault, Faults, shown};
use super::tree::Path;
use crate::domain::{BaseUrl, KeyHash};

/// The tenant that always exists.
pub(super) const DEFAULT_TENANT: &str = "default";

/// All that is wrong, in any order.
pub(super) fn check(document: &Document, faults: Faults) -> Vec<DocumentFault> {
    let mut check = Check { document, fleet: &document.fleet, faults };
    check.names();
    check.providers();
    check.targets();
    check.pools();
    check.routes();
    check.tenants();
    check.keys();
    check.limits();
    check.faults.into_list()
}

struct Check<'a> {
    document: &'a Document,
    fleet: &'a Fleet,
    faults: Faults,
}

fn root(field: &str) -> Path {
    Path::default().field(field)
}

impl Check<'_> {
    fn fault(&mut self, path: &Path, what: impl Into<String>, hint: Option<&str>) {
        self.faults.push(self.document.place(path), path, what, hint.map(str::to_owned));
    }

    /// A reference to something that is not there.
    fn dangling<'n>(
        &mut self,
        path: &Path,
        kind: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) {
        let hint = self.faults.suggest(name, known);
        let at = self.document.place(path);
        self.faults.push(at, path, format!("there is no {kind} `{}`", shown(name)), hint);
    }

    fn names(&mut self) {
        let fleet = self.fleet;
        let maps: [(&str, Vec<&String>); 4] = [
            ("providers", fleet.providers.keys().collect()),
            ("targets", fleet.targets.keys().collect()),
            ("pools", fleet.pools.keys().collect()),
            ("tenants", fleet.tenants.keys().collect()),
        ];
        for (field, names) in maps {
            names.into_iter().for_each(|name| self.name(&root(field).field(name), name));
        }
        self.unique("routes", fleet.routes.iter().map(|route| route.name.as_str()));
        self.unique("keys", fleet.keys.iter().map(|key| key.name.as_str()));
    }

    /// Names of a list: well-formed, and each given once.
    fn unique<'n>(&mut self, field: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = HashMap::new();
        for (index, name) in names.enumerate() {
            let path = root(field).item(index).field("name");
            self.name(&path, name);
            if let Some(first) = seen.insert(name, index) {
                let what = format!("`{}` is already the name of {field}[{first}]", shown(name));
                self.fault(&path, what, Some("give it another name"));
            }
        }
    }

    /// Names stand in headers, metrics and keys of the store, and pools' names are models too.
    fn name(&mut self, path: &Path, name: &str) {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@+".contains(&byte);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(good) {
            let hint = "use 1 to 128 letters, digits or . _ - : / @ +";
            self.fault(path, "not a name", Some(hint));
        }
    }

    /// A text that is sent, matched or shown and must be one.
    fn plain(&mut self, path: &Path, text: &str) {
        if text.is_empty() || text.len() > 512 || text.chars().any(char::is_control) {
            let what = "must have 1 to 512 characters, none of them a control character";
            self.fault(path, what, None);
        }
    }

    fn providers(&mut self) {
        for (name, provider) in &self.fleet.providers {
            let path = root("providers").field(name);
            if let Some(base) = &provider.base_url {
                let text = base.0.expose();
                // One with variables is read on the node that has them.
                if let (false, Err(error)) = (text.contains("${"), text.parse::<BaseUrl>()) {
                    self.fault(&path.field("base_url"), error.to_string(), None);
                }
            }
            if let Some(secret) = &provider.api_key
                && !secret.0.expose().contains("${")
                && !is_sendable(secret.0.expose())
            {
                let what = "holds a character that no header can carry";
                self.fault(&path.field("api_key"), what, Some("look for spaces and line ends"));
            }
        }
    }

    fn targets(&mut self) {
        for (name, target) in &self.fleet.targets {
            let path = root("targets").field(name);
            if !self.fleet.providers.contains_key(&target.provider) {
                let known = self.fleet.providers.keys().map(String::as_str);
                self.dangling(&path.field("provider"), "provider", &target.provider, known);
            }
            let texts =
                [("model", &target.model), ("zone", &target.zone), ("region", &target.region)];
            for (field, text) in texts {
                if let Some(text) = text {
                    self.plain(&path.field(field), text);
                }
            }
        }
    }

    fn tenants(&mut self) {
        for (name, tenant) in &self.fleet.tenants {
            let path = root("tenants").field(name);
            if let Some(tier) = &tenant.tier {
                self.name(&path.field("tier"), tier);
            }
            let path = path.field("providers");
            for (index, provider) in tenant.providers.iter().flatten().enumerate() {
                if !self.fleet.providers.contains_key(provider) {
                    let known = self.fleet.providers.keys().map(String::as_str);
                    self.dangling(&path.item(index), "provider", provider, known);
                }
            }
        }
    }

    fn keys(&mut self) {
        let mut hashes: HashMap<KeyHash, usize> = HashMap::new();
        for (index, key) in self.fleet.keys.iter().enumerate() {
            let path = root("keys").item(index);
            if let Some(tenant) = &key.tenant
                && tenant != DEFAULT_TENANT
                && !self.fleet.tenants.contains_key(tenant)
            {
                let known = self.fleet.tenants.keys().map(String::as_str);
                let known = known.chain([DEFAULT_TENANT]);
                self.dangling(&path.field("tenant"), "tenant", tenant, known);
            }
            for (field, globs) in
                [("models", &key.models), ("upstream_models", &key.upstream_models)]
            {
                for (at, glob) in globs.iter().flatten().enumerate() {
                    self.plain(&path.field(field).item(at), glob);
                }
            }
            if let Some(hash) = self.key_hash(key, &path)
                && let first = *hashes.entry(hash).or_insert(index)
                && let Some(first) = self.fleet.keys.get(first).filter(|_| first != index)
            {
                let what = format!("the same key as `{}`", shown(&first.name));
                self.fault(&path, what, Some("each key has one name"));
            }
        }
    }

    /// The hash of a key that does not depend on a variable.
    fn key_hash(&mut self, key: &Key, path: &Path) -> Option<KeyHash> {
        match (&key.key, &key.hash) {
            (Some(_), Some(_)) => {
                self.fault(path, "has both `key` and `hash`", Some("keep one of them"));
                None
            }
            (None, None) => {
                self.fault(path, "has neither `key` nor `hash`", Some("give one of them"));
                None
            }
            (None, Some(hash)) => Some(hash.0),
            (Some(text), None) => {
                let text = text.0.expose();
                if text.contains("${") {
                    return None;
                }
                if !is_key(text) {
                    let what = "a key has visible ASCII characters only, no spaces";
                    self.fault(&path.field("key"), what, None);
                }
                Some(KeyHash::of(text.as_bytes()))
            }
        }
    }
}

/// Whether a header can carry the text as it is.
pub(super) fn is_sendable(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && text.trim() == text && !text.is_empty()
}

/// Whether a client can present the text as its key in every way that keys are taken.
pub(super) fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
