//! Carries migrations out: by `flotilla migrate`, and by the first node that starts on keys which
//! are older than it.
//!
//! One at a time: whoever does it holds a lock with a TTL. The lock keeps others waiting; it does not
//! protect the keys. That does each script, which looks whether its caller still holds the lock and
//! whether it is its turn, and changes and records everything or nothing. So a holder that was
//! stopped for a minute in the middle does no harm, and whoever comes next goes on where it was.

use std::cell::Cell;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::{Instant, sleep};

use super::cold::Cold;
use super::connection::{Config, EndpointError, Error};
use super::description::Description;
use super::keys::Keys;
use super::schema::{Migration, Next, Schema, Step, TooNew, next};
use crate::domain::Random;

/// How long the lock lasts without a step done.
const LOCK: Duration = Duration::from_secs(30);
/// How often a lock that another one holds is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Why it was not done, or not to the end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MigrateError {
    /// This build is too old.
    #[error(transparent)]
    TooNew(#[from] TooNew),
    /// The URL or the TLS files cannot be read.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Redis gives no answer.
    #[error("{0}")]
    Redis(#[from] Error),
    /// Another one holds the lock and does not come to an end.
    #[error("another process has been migrating the keys for {waited_s} s; try again later")]
    Busy {
        /// How long it was waited for.
        waited_s: u64,
    },
    /// A fault of this build.
    #[error("the script of migration {0:04} answered what it cannot answer")]
    Script(u32),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; 0: none was recorded.
    pub from: u32,
    /// The version now.
    pub to: u32,
    /// What this call did.
    pub done: Vec<&'static Migration>,
    /// What is not done while nodes are alive that know less than its readers.
    pub held: Option<(&'static Migration, Vec<String>)>,
}

/// Whether Redis answers at all. A port that is closed says so at once.
pub async fn answers(config: &Config) -> bool {
    match Cold::open(config) {
        Ok(cold) => cold.ask(&redis::cmd("PING")).await.is_ok(),
        Err(_) => false,
    }
}

/// Carries out all of these migrations that are not done yet, in order. Waits for another one that
/// does so, at most for `patience`.
///
/// # Errors
/// What was done so far stays done and recorded; calling again goes on from there.
pub async fn migrate(
    config: &Config,
    prefix: &str,
    migrations: &'static [Migration],
    patience: Duration,
) -> Result<Migrated, MigrateError> {
    let way =
        Way { cold: Cold::open(config)?, keys: Keys::new(prefix), has_lock: Cell::new(false) };
    let token = format!("{:016x}", Random::new().next_u64());
    let done = way.run(&token, migrations, Instant::now() + patience, patience).await;
    if way.has_lock.get() {
        way.unlock(&token).await;
    }
    done
}

struct Way {
    cold: Cold,
    keys: Keys,
    /// Whether there may be something to give back.
    has_lock: Cell<bool>,
}

impl Way {
    async fn run(
        &self,
        token: &str,
        migrations: &'static [Migration],
        until: Instant,
        patience: Duration,
    ) -> Result<Migrated, MigrateError> {
        let mut found = self.schema().await?;
        let version = |found: Option<Schema>| found.map_or(0, |found| found.version);
        let mut migrated =
            Migrated { from: version(found), to: version(found), done: Vec::new(), held: None };
        loop {
            let nodes = self.nodes().await?;
            let oldest = nodes.iter().map(|(_, node)| node.schema).min();
            migrated.to = version(found);
            match next(found, migrations, oldest)? {
                Next::Nothing => return Ok(migrated),
                Next::Held(held) => {
                    let below = nodes.into_iter().filter(|(_, node)| node.schema < held.readers);
                    let name = |(incarnation, node): (Vec<u8>, Description)| {
                        // One that has not said its name yet has said what its key is.
                        let key = String::from_utf8_lossy(&incarnation).into_owned();
                        if node.id.is_empty() { key } else { node.id }
                    };
                    migrated.held = Some((held, below.map(name).collect()));
                    return Ok(migrated);
                }
                Next::Do(step) => {
                    if !self.lock(token).await? {
                        if Instant::now() >= until {
                            let waited_s = patience.as_secs();
                            return Err(MigrateError::Busy { waited_s });
                        }
                        sleep(GLANCE).await;
                    } else if self.step(token, step, &nodes).await? {
                        migrated.done.push(step);
                    }
                }
            }
            found = self.schema().await?;
        }
    }

    /// What is recorded; none where nothing is.
    async fn schema(&self) -> Result<Option<Schema>, Error> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.schema()).arg("version").arg("readers");
        let Value::Array(fields) = self.cold.ask(&command).await? else { return Err(Error::Reply) };
        match fields.as_slice() {
            [Value::Nil, _] => Ok(None),
            [Value::BulkString(version), Value::BulkString(readers)] => {
                let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
                let (version, readers) =
                    number(version).zip(number(readers)).ok_or(Error::Reply)?;
                Ok(Some(Schema { version, readers }))
            }
            _ => Err(Error::Reply),
        }
    }

    /// Living nodes, by incarnation, with what they say about themselves. One that says nothing
    /// knows nothing.
    async fn nodes(&self) -> Result<Vec<(Vec<u8>, Description)>, Error> {
        let now_ms = self.now_ms().await?;
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(self.keys.nodes()).arg(format!("({now_ms}")).arg("+inf");
        let Value::Array(nodes) = self.cold.ask(&command).await? else { return Err(Error::Reply) };
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = |value: Value| match value {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(Error::Reply),
        };
        let nodes = nodes.into_iter().map(bytes).collect::<Result<Vec<_>, _>>()?;
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.descriptions()).arg(&nodes);
        let Value::Array(texts) = self.cold.ask(&command).await? else { return Err(Error::Reply) };
        let described = texts.into_iter().map(|text| match text {
            Value::BulkString(text) => Description::from_json(&text).unwrap_or_default(),
            _ => Description::default(),
        });
        Ok(nodes.into_iter().zip(described).collect())
    }

    async fn now_ms(&self) -> Result<u64, Error> {
        let Value::Array(parts) = self.cold.ask(&redis::cmd("TIME")).await? else {
            return Err(Error::Reply);
        };
        let number = |value: Option<&Value>| match value {
            Some(Value::BulkString(text)) => std::str::from_utf8(text).ok()?.parse::<u64>().ok(),
            _ => None,
        };
        let (seconds, micros) = (number(parts.first()), number(parts.get(1)));
        let (seconds, micros) = seconds.zip(micros).ok_or(Error::Reply)?;
        Ok(seconds.saturating_mul(1000) + micros / 1000)
    }

    /// Takes the lock, or has it already.
    async fn lock(&self, token: &str) -> Result<bool, Error> {
        let key = self.keys.migrating();
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(token).arg("NX").arg("PX").arg(milliseconds(LOCK));
        self.has_lock.set(true);
        if self.cold.ask(&command).await? != Value::Nil {
            return Ok(true);
        }
        let holder = self.cold.ask(redis::cmd("GET").arg(&key)).await?;
        Ok(holder == Value::BulkString(token.as_bytes().to_vec()))
    }

    /// Does one; false where it is not ours to do any more, or a node came that was not seen.
    async fn step(
        &self,
        token: &str,
        step: &'static Migration,
        nodes: &[(Vec<u8>, Description)],
    ) -> Result<bool, MigrateError> {
        let mut command = eval(
            &step.script(),
            &[self.keys.schema(), self.keys.migrating(), self.keys.nodes()],
            &[
                token,
                &step.version.to_string(),
                &step.readers.to_string(),
                env!("CARGO_PKG_VERSION"),
                &milliseconds(LOCK).to_string(),
                if step.step == Step::Contract { "1" } else { "0" },
            ],
        );
        for (incarnation, _) in nodes {
            command.arg(incarnation);
        }
        let Value::Array(reply) = self.cold.ask(&command).await? else {
            return Err(MigrateError::Script(step.version));
        };
        match reply.first() {
            Some(Value::Int(0)) => Ok(true),
            Some(Value::Int(2 | 4)) => Ok(false),
            _ => Err(MigrateError::Script(step.version)),
        }
    }

    /// Gives the lock back. Where that fails it ends by itself.
    async fn unlock(&self, token: &str) {
        let script = include_str!("../../migrations/frame/unlock.lua");
        let command = eval(script, &[self.keys.migrating()], &[token]);
        drop(self.cold.ask(&command).await);
    }
}

/// A script that runs once in its life, so no server is asked to keep it.
fn eval(script: &str, keys: &[String], arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
    command
}

const fn milliseconds(duration: Duration) -> u64 {
    duration.as_secs() * 1000
}
