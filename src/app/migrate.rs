//! `flotilla migrate`: brings the keys in Redis to the shape that this build writes, straight to
//! Redis. Nodes do so themselves when they start; this is for whoever wants it done, and said,
//! before the first of them does, and for migrations that wait until older nodes are gone.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::Failure;
use super::member::connection;
use crate::cli::{DONE, REFUSED};
use crate::config::{Env, Fault, Settings};
use crate::store::migrate::Migrated;
use crate::store::schema::MIGRATIONS;

/// How long a node that migrates is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Migrates, writes what it did, and answers the exit code.
///
/// # Errors
/// Why it did not.
pub fn migrate(env: &Env, as_json: bool, out: &mut impl Write) -> Result<u8, Failure> {
    let (settings, _) = Settings::load(env).map_err(Failure::Settings)?;
    let (Some(redis), Some(connection)) = (&settings.store.redis, connection(&settings)) else {
        return Err(Failure::Settings(vec![Fault {
            name: "FLOTILLA_REDIS_URL".to_owned(),
            what: "not set".to_owned(),
            hint: Some("name the Redis whose keys are to be migrated".to_owned()),
        }]));
    };
    let prefix = redis.prefix.as_str();
    let migrated = actix_rt::System::new().block_on(crate::store::migrate::migrate(
        &connection,
        prefix,
        MIGRATIONS,
        PATIENCE,
    ))?;
    let told = if as_json { machine(&migrated, prefix) } else { person(&migrated, prefix) };
    out.write_all(told.as_bytes())?;
    Ok(if migrated.held.is_some() { REFUSED } else { DONE })
}

fn person(migrated: &Migrated, prefix: &str) -> String {
    let Migrated { from, to, done, held } = migrated;
    let mut lines = String::new();
    for step in done {
        lines.push_str(&format!("done: {:04}_{}\n", step.version, step.name));
    }
    if let Some((step, nodes)) = held {
        lines.push_str(&format!(
            "waits: {:04}_{} until these older nodes are gone: {}\n",
            step.version,
            step.name,
            nodes.join(", ")
        ));
    }
    lines.push_str(&match (from, to) {
        _ if from == to => format!("the keys of {prefix} are at schema {to}\n"),
        _ => format!("the keys of {prefix} went from schema {from} to {to}\n"),
    });
    lines
}

fn machine(migrated: &Migrated, prefix: &str) -> String {
    let Migrated { from, to, done, held } = migrated;
    let name =
        |step: &crate::store::schema::Migration| format!("{:04}_{}", step.version, step.name);
    let report = json!({
        "prefix": prefix,
        "from": from,
        "to": to,
        "done": done.iter().map(|step| name(step)).collect::<Vec<_>>(),
        "waits": held.as_ref().map(|(step, nodes)| json!({ "migration": name(step), "nodes": nodes })),
    });
    format!("{report}\n")
}
