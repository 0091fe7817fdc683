//! Reading a fleet document: bytes of a bounded size, the format by the file's ending, a checksum.

use std::fs::File;
use std::io::Read;
use std::path::Path as FilePath;

use aws_lc_rs::digest;

use super::check::check;
use super::compile::compile;
use super::document::Document;
use super::env::Env;
use super::fault::{DocumentFault, Faults, Warning};
use super::schema::schema;
use super::tree::{self, Path, Place};
use super::walk::walk;
use crate::snapshot::Snapshot;

/// The largest document: well over a hundred thousand keys.
const LARGEST: u64 = 32 << 20;

/// What a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2.
    Yaml,
    /// JSON.
    Json,
    /// TOML.
    Toml,
}

impl Format {
    /// The format that a file's ending names.
    #[must_use]
    pub fn of(file: &FilePath) -> Option<Self> {
        match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// A configuration that a node can serve from.
#[derive(Debug)]
pub struct Loaded {
    /// The compiled configuration.
    pub snapshot: Snapshot,
    /// What must be seen.
    pub warnings: Vec<Warning>,
}

/// Reads, checks and compiles a fleet document. Blocks on the file.
///
/// # Errors
/// Every fault of the document; a file that cannot be read is one, too.
pub fn load(file: &FilePath, env: &Env, revision: u64) -> Result<Loaded, Vec<DocumentFault>> {
    let document = Document::load(file)?;
    let (snapshot, warnings) = compile(&document, env, revision)?;
    Ok(Loaded { snapshot, warnings })
}

impl Document {
    /// Reads and checks a document, the format by the file's ending. Blocks on the file.
    ///
    /// # Errors
    /// Every fault of the document; a file that cannot be read is one, too.
    pub fn load(file: &FilePath) -> Result<Self, Vec<DocumentFault>> {
        let name = file.display().to_string();
        let bytes = read(file).map_err(|what| whole(&name, what, None))?;
        Self::of_file(file, &bytes)
    }

    /// Checks the bytes of a file, the format by its ending.
    pub(super) fn of_file(file: &FilePath, bytes: &[u8]) -> Result<Self, Vec<DocumentFault>> {
        let name = file.display().to_string();
        let format = Format::of(file).ok_or_else(|| {
            let hint = "a fleet document ends in .yaml, .yml, .json or .toml".to_owned();
            whole(&name, "not a format we know".to_owned(), Some(hint))
        })?;
        Self::parse(&name, format, bytes)
    }

    /// Checks the bytes of a document that is shown as `file`.
    ///
    /// # Errors
    /// Every fault of the document. While its fields do not fit the schema, only those faults are
    /// known; references are checked once they do.
    pub fn parse(file: &str, format: Format, bytes: &[u8]) -> Result<Self, Vec<DocumentFault>> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let hint = Some("save it as UTF-8".to_owned());
            whole(file, format!("not UTF-8 after byte {}", error.valid_up_to()), hint)
        })?;
        let root = tree::parse(format, text).map_err(|problems| {
            let mut faults = Faults::new(file);
            for problem in problems {
                faults.push(problem.at, &Path::default(), problem.what, problem.hint);
            }
            faults.into_list()
        })?;
        let mut walked = walk(file, schema(), &root);
        let Some(json) = walked.json else { return Err(walked.faults.into_list()) };
        let Ok(fleet) = serde_json::from_value(json) else {
            // Serde's own words could repeat a secret.
            let what = "does not fit, though no fault was found; please report this";
            walked.faults.push(root.at, &Path::default(), what, None);
            return Err(walked.faults.into_list());
        };
        let document = Self { file: file.to_owned(), checksum: checksum(bytes), root, fleet };
        let faults = check(&document, walked.faults);
        if faults.is_empty() { Ok(document) } else { Err(faults) }
    }
}

/// A fault of the whole file.
pub(super) fn whole(file: &str, what: String, hint: Option<String>) -> Vec<DocumentFault> {
    let mut faults = Faults::new(file);
    faults.push(Place::default(), &Path::default(), what, hint);
    faults.into_list()
}

/// The bytes of a regular file within the bound.
pub(super) fn read(file: &FilePath) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    // Looked at before it is opened, because opening a pipe would wait for its writer.
    if !std::fs::metadata(file).map_err(cannot)?.is_file() {
        return Err("not a file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(file).and_then(|f| f.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("larger than {} MiB", LARGEST >> 20));
    }
    Ok(bytes)
}

/// The first 16 hexadecimal digits of the SHA-256.
pub(super) fn checksum(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
