//! Noticing that the fleet document has changed, by its content.
//!
//! The content is read anew each time, because times of change lie: a Kubernetes volume swaps a
//! symlink, an editor renames, a restored file may be older. A document that vanished or does not
//! compile leaves the one in force as it is, and is reported once, not at every look.
//!
//! A file that is being written is as often a good document as not: half a list of keys is one. So
//! a change counts only when two looks in a row find the same.

use std::path::PathBuf;

use super::compile::compile;
use super::document::Document;
use super::env::Env;
use super::fault::DocumentFault;
use super::load::{Loaded, checksum, read, whole};
use crate::snapshot::Snapshot;

/// What a look at the document brought.
#[derive(Debug)]
pub enum Seen {
    /// Nothing new.
    Unchanged,
    /// A good new document, compiled under the next revision. It counts as in force from now on.
    Changed(Box<Loaded>),
    /// What is there now cannot be served; the configuration in force stays.
    Invalid(Vec<DocumentFault>),
}

/// A fleet document under watch.
#[derive(Clone, Debug)]
pub struct Watch {
    file: PathBuf,
    env: Env,
    keys_required: bool,
    checksum: String,
    revision: u64,
    /// What the look before found: a checksum, or why there is none.
    found: String,
    reported: Option<Vec<DocumentFault>>,
}

impl Watch {
    /// Watches the file that `in_force` was loaded from. `keys_required` is true where the data
    /// listener can be reached from elsewhere, so that a document without keys must not take over.
    #[must_use]
    pub fn new(file: PathBuf, env: Env, in_force: &Snapshot, keys_required: bool) -> Self {
        let (checksum, revision) = (in_force.checksum.to_string(), in_force.revision);
        let found = checksum.clone();
        Self { file, env, keys_required, checksum, revision, found, reported: None }
    }

    /// Looks at the file. Blocks on it. A change is `Unchanged` at first, and what it is once it
    /// stands still from one look to the next.
    pub fn look(&mut self) -> Seen {
        let name = self.file.display().to_string();
        let read = read(&self.file);
        let found = read.as_deref().map_or_else(Clone::clone, checksum);
        let moves = std::mem::replace(&mut self.found, found) != self.found;
        let loaded = match read {
            Ok(_) if self.found == self.checksum => {
                self.reported = None;
                return Seen::Unchanged;
            }
            _ if moves => return Seen::Unchanged,
            Ok(bytes) => self.load(&name, &bytes),
            Err(what) => Err(whole(&name, what, None)),
        };
        match loaded {
            Ok(loaded) => {
                self.checksum = loaded.snapshot.checksum.to_string();
                self.revision = loaded.snapshot.revision;
                self.reported = None;
                Seen::Changed(Box::new(loaded))
            }
            Err(faults) if self.reported.as_ref() == Some(&faults) => Seen::Unchanged,
            Err(faults) => {
                self.reported = Some(faults.clone());
                Seen::Invalid(faults)
            }
        }
    }

    fn load(&self, name: &str, bytes: &[u8]) -> Result<Loaded, Vec<DocumentFault>> {
        let document = Document::of_file(&self.file, bytes)?;
        let (snapshot, warnings) = compile(&document, &self.env, self.revision + 1)?;
        if self.keys_required && !snapshot.has_keys() {
            let what =
                "has no keys, but the data listener can be reached from elsewhere".to_owned();
            let hint = Some("add keys, or let FLOTILLA_LISTEN be a loopback address".to_owned());
            return Err(whole(name, what, hint));
        }
        Ok(Loaded { snapshot, warnings })
    }
}
