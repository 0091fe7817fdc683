//! The architecture as a test: who may import whom, what may be used only in one place, and how a
//! source file looks. `docs/ARCHITECTURE.md` shows the same table, and a test here compares them.
//!
//! The source is read as text (`architecture/source.rs`), so nothing of the library is needed and
//! a broken rule is named with its file, even where the tree does not compile.

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rules::{BANNED_CRATES, MODULES, broken_rules};
use source::Source;

/// Code lines of a file, its tests not counted: above the first it is talked about, above the
/// second it is refused.
const TALK_ABOUT: usize = 400;
const REFUSED: usize = 600;

/// Names that say nothing about what a file holds.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "common", "manager", "misc"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder, with its path from the root of the package.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the package") {
            let path = entry.expect("an entry of a folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                let inside = path.strip_prefix(root()).expect("below the root");
                found.push((inside.to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "nothing found below {folder}");
    found
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn dependencies_point_down_and_everything_stays_in_its_place() {
    let files = files("src");
    let broken: Vec<_> =
        files.iter().flat_map(|(path, text)| broken_rules(&Source::read(path, text))).collect();
    assert_none(&broken);
}

#[test]
fn every_module_has_a_line_in_the_table() {
    let files = files("src");
    let tops = files.iter().map(|(path, _)| Source::module(path));
    let unknown: Vec<_> = tops
        .filter_map(|module| module.first().cloned())
        .filter(|top| MODULES.iter().all(|module| module.name != top))
        .map(|top| format!("src/{top}.rs: no line in the table of tests/architecture/rules.rs"))
        .collect();
    assert_none(&unknown);
}

#[test]
fn the_document_shows_the_same_table() {
    let document = root().join("docs/ARCHITECTURE.md");
    let document = fs::read_to_string(document).expect("docs/ARCHITECTURE.md");
    let shown: Vec<(&str, &str)> = document
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            Some((cells.next()?.trim_end_matches('`'), cells.nth(1)?))
        })
        .filter(|(name, _)| MODULES.iter().any(|module| module.name == *name))
        .collect();
    let ruled: Vec<(&str, String)> =
        MODULES.iter().map(|module| (module.name, module.shown_imports())).collect();
    let ruled: Vec<_> = ruled.iter().map(|(name, imports)| (*name, imports.as_str())).collect();
    assert_eq!(shown, ruled);
}

#[test]
fn the_root_of_the_library_only_names_its_modules() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let others: Vec<_> = lib
        .lines()
        .filter(|line| !line.starts_with("//!") && !line.trim().is_empty())
        .filter(|line| !(line.starts_with("pub mod ") && line.ends_with(';')))
        .map(|line| format!("src/lib.rs: {line}"))
        .collect();
    assert_none(&others);
}

#[test]
fn every_file_opens_with_why_it_is() {
    let broken: Vec<_> =
        [files("src"), files("tests"), files("fuzz/fuzz_targets"), files("fuzz/properties")]
            .concat()
            .into_iter()
            // A file of tests is about the file that it lies below.
            .filter(|(path, text)| !text.starts_with("//! ") && !path.ends_with("tests.rs"))
            .map(|(path, _)| format!("{}: opens without `//!`", path.display()))
            .collect();
    assert_none(&broken);
}

#[test]
fn names_say_what_a_file_holds() {
    let broken: Vec<_> = files("src")
        .into_iter()
        .filter_map(|(path, _)| {
            let name = path.file_stem()?.to_str()?.to_owned();
            let empty = EMPTY_NAMES.contains(&name.as_str()) || name == "mod";
            empty.then(|| format!("{}: a file is not named {name}", path.display()))
        })
        .collect();
    assert_none(&broken);
}

#[test]
fn files_are_short_enough_to_proofread() {
    let mut broken = Vec::new();
    for (path, text) in files("src") {
        let lines = Source::read(&path, &text).code_lines();
        let line = format!("{}: {lines} lines of code", path.display());
        if lines > REFUSED {
            broken.push(format!("{line}, more than {REFUSED}"));
        } else if lines > TALK_ABOUT {
            writeln!(std::io::stderr(), "talk about {line}").expect("stderr is open");
        }
    }
    assert_none(&broken);
}

#[test]
fn banned_crates_are_not_locked() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let locked: Vec<_> =
        lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let banned: Vec<_> = BANNED_CRATES
        .iter()
        // The lock file names every option of every crate, switched on or not, and ring is one of
        // rustls-webpki's. The test below looks at what is really built.
        .filter(|name| **name != "ring" && locked.contains(name))
        .map(|name| format!("Cargo.lock: {name} is banned"))
        .collect();
    assert_none(&banned);
}

#[test]
fn banned_crates_are_not_built() {
    let tree = ["tree", "--offline", "--locked", "--edges", "normal,build,dev"];
    let output = Command::new(env!("CARGO"))
        .args(tree)
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let built = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(built.contains("actix-web v"), "the list is not what it should be: {built}");
    let banned: Vec<_> = built
        .lines()
        .filter(|line| line.split(' ').next().is_some_and(|name| BANNED_CRATES.contains(&name)))
        .map(|line| format!("{line} is banned"))
        .collect();
    assert_none(&banned);
}
