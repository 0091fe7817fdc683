//! Which shape the keys have, and how it changes: numbered migrations, each one script, decided here
//! and carried out by `migrate`. `migrations/README.md` is for whoever writes one.
//!
//! Two numbers stand in Redis. The *version* is the last migration that was done. *Readers* is the
//! oldest build that may still go on, by the version that it knows: a migration that expands leaves
//! it as it is, so that N-1 runs beside N; one that contracts raises it, and is not done while a
//! node below it is alive.

/// The shape of the keys, as recorded in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The last migration that was done; 0: none.
    pub version: u32,
    /// A build that knows less than this must not touch the keys.
    pub readers: u32,
}

/// Whether older nodes may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What is new stands beside what is old; both are right.
    Expand,
    /// What is old is gone.
    Contract,
}

/// One migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number, from 1 without a gap.
    pub version: u32,
    /// The rest of its file's name.
    pub name: &'static str,
    /// Whether older nodes may go on.
    pub step: Step,
    /// The oldest build that may go on after it.
    pub readers: u32,
    /// Its lines.
    pub source: &'static str,
}

/// All migrations of this build.
pub const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "create_schema",
    step: Step::Expand,
    readers: 1,
    source: include_str!("../../migrations/0001_create_schema.lua"),
}];

/// The keys have a shape that this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the keys in Redis are of schema {found}, which builds below schema {readers} must not touch, \
     and this one knows {known}: start a newer build, or another fleet under its own \
     FLOTILLA_REDIS_PREFIX"
)]
pub struct TooNew {
    /// The version in Redis.
    pub found: u32,
    /// The oldest build that may go on.
    pub readers: u32,
    /// What this build knows.
    pub known: u32,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Nothing,
    /// This one.
    Do(&'static Migration),
    /// This one, but not while nodes are alive that know less.
    Held(&'static Migration),
}

/// The version that a build with these migrations knows.
#[must_use]
pub fn known(migrations: &[Migration]) -> u32 {
    migrations.last().map_or(0, |last| last.version)
}

/// Whether a build that knows this version may go on.
///
/// # Errors
/// It may not.
pub fn fits(found: Option<Schema>, known: u32) -> Result<(), TooNew> {
    match found {
        Some(Schema { version, readers }) if readers > known => {
            Err(TooNew { found: version, readers, known })
        }
        _ => Ok(()),
    }
}

/// What is to be done next; `oldest` is the least that a living node knows.
///
/// # Errors
/// The keys are too new for this build.
pub fn next(
    found: Option<Schema>,
    migrations: &'static [Migration],
    oldest: Option<u32>,
) -> Result<Next, TooNew> {
    fits(found, known(migrations))?;
    let version = found.map_or(0, |found| found.version);
    let next = migrations.iter().find(|migration| migration.version > version);
    let Some(next) = next else { return Ok(Next::Nothing) };
    let is_missed = oldest.is_some_and(|oldest| oldest < next.readers);
    let held = next.step == Step::Contract && is_missed;
    Ok(if held { Next::Held(next) } else { Next::Do(next) })
}

impl Migration {
    /// The script: its lines between those of the frame.
    pub(super) fn script(&self) -> String {
        [
            include_str!("../../lua/include/status.lua"),
            include_str!("../../lua/include/clock.lua"),
            include_str!("../../migrations/frame/begin.lua"),
            self.source,
            include_str!("../../migrations/frame/end.lua"),
        ]
        .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn migration(version: u32, step: Step, readers: u32) -> Migration {
        Migration { version, name: "test", step, readers, source: "" }
    }

    const THREE: &[Migration] = &[
        migration(1, Step::Expand, 1),
        migration(2, Step::Expand, 1),
        migration(3, Step::Contract, 2),
    ];

    fn at(version: u32, readers: u32) -> Option<Schema> {
        Some(Schema { version, readers })
    }

    #[test]
    fn an_empty_redis_is_migrated_from_the_first_on() {
        assert_eq!(next(None, THREE, None), Ok(Next::Do(&THREE[0])));
        assert_eq!(next(at(1, 1), THREE, None), Ok(Next::Do(&THREE[1])));
        assert_eq!(next(at(3, 2), THREE, None), Ok(Next::Nothing));
    }

    // T13: N-1 runs beside N after the expansion, and not after the contraction.
    #[test]
    fn a_build_goes_on_beside_a_newer_one_until_the_keys_contract() {
        assert_eq!(next(at(2, 1), &THREE[..1], Some(1)), Ok(Next::Nothing));
        let too_new = TooNew { found: 3, readers: 2, known: 1 };
        assert_eq!(next(at(3, 2), &THREE[..1], None), Err(too_new));
        assert_eq!(fits(at(3, 2), 2), Ok(()));
    }

    #[test]
    fn a_contraction_waits_for_nodes_that_would_not_survive_it() {
        assert_eq!(next(at(2, 1), THREE, Some(1)), Ok(Next::Held(&THREE[2])));
        assert_eq!(next(at(2, 1), THREE, Some(2)), Ok(Next::Do(&THREE[2])));
        // An expansion waits for nobody, not even for a node that has not said what it knows.
        assert_eq!(next(at(1, 1), THREE, Some(0)), Ok(Next::Do(&THREE[1])));
        assert_eq!(next(None, THREE, Some(0)), Ok(Next::Do(&THREE[0])));
    }

    #[test]
    fn every_migration_is_numbered_named_and_says_what_it_is() {
        for (place, migration) in MIGRATIONS.iter().enumerate() {
            let Migration { version, name, step, readers, source } = migration;
            assert_eq!(usize::try_from(*version), Ok(place + 1), "without a gap");
            assert!(source.starts_with(&format!("--[[ {version:04}_{name}: ")), "{name}");
            let step = match step {
                Step::Expand => "expand",
                Step::Contract => "contract",
            };
            assert!(source.contains(&format!("\n  Step     {step}\n")), "{name}");
            assert!(source.contains(&format!("\n  Readers  {readers}\n")), "{name}");
            assert!(*readers <= *version && *readers > 0, "{name}");
        }
        for pair in MIGRATIONS.windows(2) {
            let raised = pair[1].readers > pair[0].readers;
            assert_eq!(raised, pair[1].step == Step::Contract, "only a contraction raises it");
        }
    }
}
