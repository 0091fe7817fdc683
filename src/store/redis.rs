//! The state in Redis: each command of `policy::limit` is one script, on the slot of its tag.
//!
//! What is answered with an error is decided by whoever asks, by the rule of each limit: nothing
//! here admits or refuses by itself.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::command::{Bytes, Status, admit, held, registry, renew, settle, standing};
use super::connection::{Config, Connection, EndpointError, Error, TestClock};
use super::keys::Keys;
use super::link::{Away, Commands};
use crate::policy::limit::{
    Admit, Applied, Batch, Counts, Lapsed, Renew, Row, Rule, Standing, TopUp, Verdict,
};

pub use super::command::registry::{Fleet, Tick};

/// What an admission came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The verdict.
    pub verdict: Verdict,
    /// Until when the leases last, in Redis time.
    pub lease_end_ms: u64,
}

/// One user's way to the state. Made where it is used, like its connection.
#[derive(Debug)]
pub struct Redis {
    connection: Connection,
    keys: Keys,
    lease_ttl_ms: u64,
    usage_ttl_ms: u64,
}

/// What differs between fleets.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Begins every key.
    pub prefix: String,
    /// How long leases last.
    pub lease_ttl: Duration,
    /// How long usage is kept.
    pub usage_ttl: Duration,
}

impl Redis {
    /// Begins to connect; see `Connection::open`.
    ///
    /// # Errors
    /// The URL or the TLS files cannot be read.
    pub fn open(config: &Config, shape: &Shape) -> Result<Self, EndpointError> {
        Ok(Self::with(Connection::open(config)?, shape))
    }

    /// The same, with a clock of the test's in all scripts.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with_clock(
        config: &Config,
        shape: &Shape,
        clock: TestClock,
    ) -> Result<Self, EndpointError> {
        Ok(Self::with(Connection::open_with(config, Some(clock))?, shape))
    }

    fn with(connection: Connection, shape: &Shape) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            connection,
            keys: Keys::new(&shape.prefix),
            lease_ttl_ms: ms(shape.lease_ttl),
            usage_ttl_ms: ms(shape.usage_ttl),
        }
    }

    /// Whether the master of a tag is connected, and asked freely.
    #[must_use]
    pub fn is_up(&self, tag: &str) -> bool {
        self.connection.is_up(&self.keys.tag(tag).open())
    }

    /// The time of a tag's master as far as it is known.
    #[must_use]
    pub fn now_ms(&self, tag: &str) -> Option<u64> {
        self.connection.now_ms(&self.keys.tag(tag).open())
    }

    /// Takes what an attempt needs of a tag's limits.
    ///
    /// # Errors
    /// There is no verdict; in doubt, it may still be given until then.
    pub async fn admit(&self, admit: &Admit) -> Result<Admission, Error> {
        let keys = self.keys.tag(&admit.tag);
        let now_ms = self.connection.learnt_ms(&keys.open()).await?;
        let lease_end_ms = now_ms + self.lease_ttl_ms;
        let mut call = admit::pack(&keys, admit, lease_end_ms)?;
        let verdict = admit::read(&self.connection.run(&mut call).await?)?;
        Ok(Admission { verdict, lease_end_ms })
    }

    /// An admission with a deadline of the caller's choice, in Redis time; for tests alone.
    ///
    /// # Errors
    /// As `admit`.
    pub async fn admit_by(&self, admit: &Admit, deadline_ms: u64) -> Result<Verdict, Error> {
        let keys = self.keys.tag(&admit.tag);
        let now_ms = self.connection.learnt_ms(&keys.open()).await?;
        let mut call = admit::pack(&keys, admit, now_ms + self.lease_ttl_ms)?;
        admit::read(&self.connection.run_by(&mut call, Some(deadline_ms)).await?)
    }

    /// Takes more for a member.
    ///
    /// # Errors
    /// There is no verdict; in doubt, it may still be given until then.
    pub async fn top_up(&self, more: &TopUp) -> Result<Verdict, Error> {
        let mut call = admit::pack_top_up(&self.keys.tag(&more.tag), more)?;
        admit::read(&self.connection.run(&mut call).await?)
    }

    /// Applies a batch, once, whole.
    ///
    /// # Errors
    /// Nobody knows whether it was applied: the same batch is sent again.
    pub async fn apply(&self, batch: &Batch) -> Result<Applied, Error> {
        let keys = self.keys.tag(&batch.tag);
        let mut hours = Vec::new();
        loop {
            let now_ms = self.connection.learnt_ms(&keys.open()).await?;
            let mut call = settle::pack(&keys, batch, now_ms, self.usage_ttl_ms, &hours)?;
            match settle::read(&self.connection.run(&mut call).await?)? {
                settle::Outcome::Applied(applied) => return Ok(applied),
                settle::Outcome::Late => return Err(Error::Away),
                // At most two days of hours can be asked for.
                settle::Outcome::Ask(more) if hours.len() < 64 && !more.is_empty() => {
                    hours.extend(more);
                }
                settle::Outcome::Ask(_) => return Err(Error::Reply),
            }
        }
    }

    /// Leases of a tag go on for another TTL; answers their new end in Redis time.
    ///
    /// # Errors
    /// They may end as they were.
    pub async fn renew(&self, tag: &str, leases: &[Renew]) -> Result<u64, Error> {
        let keys = self.keys.tag(tag);
        let now_ms = self.connection.learnt_ms(&keys.open()).await?;
        let lease_end_ms = now_ms + self.lease_ttl_ms;
        let mut call = renew::pack(&keys, leases, lease_end_ms)?;
        match self.connection.run(&mut call).await?.status {
            Status::Ok => Ok(lease_end_ms),
            Status::Late => Err(Error::Away),
            _ => Err(Error::Reply),
        }
    }

    /// Members of a tag whose lease has ended, at most so many, and never more than 1,000.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn lapsed(&self, tag: &str, limit: usize) -> Result<Vec<Lapsed>, Error> {
        let mut call = renew::pack_lapsed(&self.keys.tag(tag), limit);
        renew::read_lapsed(&self.connection.run(&mut call).await?)
    }

    /// How limits stand, each named by its scope and rule.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn standing(
        &self,
        tag: &str,
        asked: &[(Arc<str>, Rule)],
    ) -> Result<Vec<Standing>, Error> {
        let mut call = standing::pack(&self.keys.tag(tag), asked)?;
        standing::read(&self.connection.run(&mut call).await?)
    }

    /// The usage of an hour, in no order. At most 10,000 rows, so one plain command.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn usage(&self, tag: &str, hour: u64) -> Result<Vec<(Row, Counts)>, Error> {
        let key = self.keys.tag(tag).usage(hour);
        let mut command = redis::cmd("HGETALL");
        command.arg(&key);
        let Value::Array(fields) = self.connection.read(&key, &command).await? else {
            return Err(Error::Reply);
        };
        let read = |pair: &[Value]| match pair {
            [Value::BulkString(row), Value::BulkString(counts)] => {
                let row = held::row_from(std::str::from_utf8(row).ok()?)?;
                Some((row, held::take_counts(&mut Bytes(counts))?))
            }
            _ => None,
        };
        fields.chunks_exact(2).map(|pair| read(pair).ok_or(Error::Reply)).collect()
    }

    /// A node's heartbeat.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn tick(&self, tick: &Tick) -> Result<Fleet, Error> {
        let reply = self.connection.run(&mut registry::pack_tick(&self.keys, tick)).await?;
        match reply.status {
            Status::Ok => registry::read_tick(&reply),
            Status::Late => Err(Error::Away),
            _ => Err(Error::Reply),
        }
    }

    /// The tags that a node used; to be swept when it is lost.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn tags(&self, incarnation: u64) -> Result<Vec<Arc<str>>, Error> {
        let key = self.keys.tags(incarnation);
        let mut command = redis::cmd("SMEMBERS");
        command.arg(&key);
        let (Value::Array(tags) | Value::Set(tags)) = self.connection.read(&key, &command).await?
        else {
            return Err(Error::Reply);
        };
        let read = |tag: &Value| match tag {
            Value::BulkString(tag) => std::str::from_utf8(tag).map(Arc::from).ok(),
            _ => None,
        };
        tags.iter().map(|tag| read(tag).ok_or(Error::Reply)).collect()
    }

    /// Takes a node off the registry: one that leaves (`itself`), or one whose tags are swept. False
    /// where it ticked again in between.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn forget(&self, incarnation: u64, itself: bool) -> Result<bool, Error> {
        let mut call = registry::pack_forget(&self.keys, incarnation, itself);
        match self.connection.run(&mut call).await?.status {
            Status::Ok => Ok(true),
            Status::Refused => Ok(false),
            Status::Late => Err(Error::Away),
            _ => Err(Error::Reply),
        }
    }
}

/// What went wrong is logged where it is seen; whoever asks needs to know only that it has no answer.
fn away(error: Error) -> Away {
    tracing::debug!(%error, "no answer from redis");
    Away
}

impl Commands for Redis {
    async fn admit(&self, admit: &Admit) -> Result<Verdict, Away> {
        Self::admit(self, admit).await.map(|admission| admission.verdict).map_err(away)
    }

    async fn top_up(&self, more: &TopUp) -> Result<Verdict, Away> {
        Self::top_up(self, more).await.map_err(away)
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, Away> {
        Self::apply(self, batch).await.map_err(away)
    }

    async fn renew(&self, tag: &Arc<str>, leases: &[Renew]) -> Result<(), Away> {
        Self::renew(self, tag, leases).await.map(drop).map_err(away)
    }

    async fn lapsed(&self, tag: &Arc<str>, limit: usize) -> Result<Vec<Lapsed>, Away> {
        Self::lapsed(self, tag, limit).await.map_err(away)
    }

    async fn standing(
        &self,
        tag: &Arc<str>,
        asked: &[(Arc<str>, Rule)],
    ) -> Result<Vec<Standing>, Away> {
        Self::standing(self, tag, asked).await.map_err(away)
    }

    async fn usage(
        &self,
        tag: &Arc<str>,
        hours: Range<u64>,
    ) -> Result<Vec<(u64, Row, Counts)>, Away> {
        let mut all = Vec::new();
        for hour in hours {
            let rows = Self::usage(self, tag, hour).await.map_err(away)?;
            all.extend(rows.into_iter().map(|(row, counts)| (hour, row, counts)));
        }
        Ok(all)
    }
}
