//! `flotilla check FILE`: everything that is wrong with a fleet document, before it is served.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::{BAD_INPUT, DONE};
use crate::config::{Document, DocumentFault, Env, Warning, compile};

/// Checks the document and returns the exit code. The variables that it names are looked up in
/// `env`, and those missing are warned of.
///
/// # Errors
/// Where its findings cannot be written.
pub fn check(
    file: &Path,
    as_json: bool,
    env: &Env,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let checked = Document::load(file).and_then(|document| {
        let (_, warnings) = compile(&document, env, 1)?;
        Ok((document, warnings))
    });
    match checked {
        Ok((document, warnings)) if as_json => {
            writeln!(out, "{}", good(file, &document, &warnings))
        }
        Ok((document, warnings)) => {
            for warning in &warnings {
                writeln!(err, "warning: {warning}")?;
            }
            writeln!(out, "ok: {}: {}", file.display(), summary(&document))
        }
        Err(faults) => {
            if as_json {
                writeln!(out, "{}", bad(file, &faults))?;
            } else {
                faults.iter().try_for_each(|fault| writeln!(err, "{fault}"))?;
            }
            return Ok(BAD_INPUT);
        }
    }?;
    Ok(DONE)
}

fn summary(document: &Document) -> String {
    let counts = document.counts().map(|(words, count)| match words.strip_suffix('s') {
        Some(word) if count == 1 => format!("1 {word}"),
        _ => format!("{count} {words}"),
    });
    format!("{}; checksum {}", counts.join(", "), document.checksum())
}

fn good(file: &Path, document: &Document, warnings: &[Warning]) -> Value {
    let warnings: Vec<_> =
        warnings.iter().map(|w| json!({"name": w.name, "what": w.what, "hint": w.hint})).collect();
    let mut report = json!({
        "ok": true,
        "file": file.display().to_string(),
        "checksum": document.checksum(),
        "warnings": warnings,
    });
    if let Some(report) = report.as_object_mut() {
        for (words, count) in document.counts() {
            report.insert(words.to_owned(), count.into());
        }
    }
    report
}

fn bad(file: &Path, faults: &[DocumentFault]) -> Value {
    let faults: Vec<_> = faults
        .iter()
        .map(|fault| {
            json!({
                "file": fault.file,
                "line": fault.line,
                "column": fault.column,
                "path": fault.path,
                "what": fault.what,
                "hint": fault.hint,
            })
        })
        .collect();
    json!({"ok": false, "file": file.display().to_string(), "faults": faults})
}
