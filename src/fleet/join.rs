//! Before a node touches shared state: are the keys of a shape that it knows? Older ones are
//! migrated, by whichever node comes first; newer ones are left alone.

use std::time::Duration;

use crate::store::connection;
use crate::store::migrate::{MigrateError, Migrated, migrate};
use crate::store::schema::{Migration, TooNew};

/// How long another one that migrates is waited for, at a time.
const PATIENCE: Duration = Duration::from_secs(5);

/// How it stands.
#[derive(Clone, Debug)]
pub enum Joined {
    /// Redis answers; the rest follows.
    Answers,
    /// The keys are of a shape that this build knows.
    Fits,
    /// They are not, and must not be touched.
    TooNew(TooNew),
    /// Redis does not say.
    Away,
}

/// Looks, and migrates what is older.
pub(super) async fn join(
    connection: &connection::Config,
    prefix: &str,
    migrations: &'static [Migration],
) -> Joined {
    match migrate(connection, prefix, migrations, PATIENCE).await {
        Ok(migrated) => {
            tell(&migrated);
            Joined::Fits
        }
        Err(MigrateError::TooNew(too_new)) => Joined::TooNew(too_new),
        Err(error) => {
            tracing::debug!(%error, "the shape of the keys in Redis is not known yet");
            Joined::Away
        }
    }
}

fn tell(migrated: &Migrated) {
    for step in &migrated.done {
        let (version, name) = (step.version, step.name);
        tracing::info!(version, name, "the keys in Redis are migrated");
    }
    if let Some((held, nodes)) = &migrated.held {
        tracing::info!(
            version = held.version,
            name = held.name,
            ?nodes,
            "a migration waits until these older nodes are gone; then run `flotilla migrate`"
        );
    }
}
