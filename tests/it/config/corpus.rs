//! Every document in `examples` and `tests/configs` is loaded; what is wrong with the invalid ones
//! stands beside them. `UPDATE=1` writes those files anew, for the difference to be read.

use std::path::{Path, PathBuf};

use flotilla::config::{Env, load};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut files: Vec<_> = paths.filter(|path| ending(path) != Some("faults")).collect();
    files.sort();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

fn ending(path: &Path) -> Option<&str> {
    path.extension()?.to_str()
}

#[test]
fn every_example_and_every_valid_document_loads() {
    let env: Env = [("OPENAI_API_KEY", "sk"), ("ACME_KEY", "acme-1")].into_iter().collect();
    let examples = files("examples").into_iter();
    let examples = examples.filter(|path| matches!(ending(path), Some("yaml" | "json")));
    for file in examples.chain(files("tests/configs/valid")) {
        if let Err(faults) = load(&file, &env, 1) {
            let faults: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
            unreachable!("{faults}");
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "UPDATE is for the person who runs the test")]
fn every_invalid_document_has_the_faults_that_stand_beside_it() {
    let mut wrong = String::new();
    for file in files("tests/configs/invalid") {
        let name = file.file_name().expect("it has a name").to_string_lossy().into_owned();
        let faults = load(&file, &Env::default(), 1).err().unwrap_or_default();
        assert!(!faults.is_empty(), "{name} is valid");
        let shown = |fault: &flotilla::config::DocumentFault| {
            format!("{fault}\n").replace(&file.display().to_string(), &name)
        };
        let found: String = faults.iter().map(shown).collect();
        let beside = file.with_file_name(format!("{name}.faults"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&beside, &found).expect("it can be written");
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        if found != expected {
            wrong.push_str(&format!("--- expected\n{expected}--- found\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_reference_is_the_same_in_every_format() {
    let env: Env = [("OPENAI_API_KEY", "sk"), ("ACME_KEY", "acme-1")].into_iter().collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = [
        "examples/flotilla.yaml",
        "tests/configs/valid/reference.json",
        "tests/configs/valid/reference.toml",
    ];
    let [yaml, json, toml] = names.map(|name| {
        let mut snapshot = load(&root.join(name), &env, 1).expect(name).snapshot;
        snapshot.checksum = "".into();
        // The order of a map differs from one to the next.
        let mut keys: Vec<_> = std::mem::take(&mut snapshot.keys).into_iter().collect();
        keys.sort_by_key(|(hash, _)| hash.to_string());
        format!("{snapshot:#?}{keys:#?}")
    });
    assert_eq!(yaml, json);
    assert_eq!(yaml, toml);
}
