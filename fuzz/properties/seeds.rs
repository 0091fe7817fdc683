//! The committed seeds: what fuzzing begins with, and what tests try on every run.

use std::fs;
use std::path::Path;

/// The contents of all files in these folders of the package.
pub(crate) fn seeds(folders: &[&str]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(root.join(folder)).expect("there"));
    let files = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let seeds: Vec<_> = files.map(|path| fs::read(path).expect("a file")).collect();
    assert!(seeds.len() > 2, "hardly anything in {folders:?}");
    seeds
}
