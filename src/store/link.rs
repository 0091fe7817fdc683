//! The seam: the commands of a tag, whoever executes them.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use super::local::Local;
use super::redis::Redis;
use crate::policy::limit::{
    Admit, Applied, Batch, Counts, Lapsed, Renew, Row, Rule, Standing, TopUp, Verdict,
};

/// The store gave no answer in time, or one that cannot be used. What was asked may still happen,
/// until its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limits' store does not answer")]
pub struct Away;

/// The commands of `policy::limit`, executed somewhere: each atomic on its tag. An implementation
/// belongs to one thread, sets the deadlines and lease ends itself, and answers within a bounded
/// time. Each method fails with `Away` where the store gave no answer in that time.
pub trait Commands {
    /// Takes all that is asked for, or nothing.
    fn admit(&self, admit: &Admit) -> impl Future<Output = Result<Verdict, Away>>;

    /// Takes more for a member, or nothing.
    fn top_up(&self, more: &TopUp) -> impl Future<Output = Result<Verdict, Away>>;

    /// Applies a batch once, however often it is sent.
    fn apply(&self, batch: &Batch) -> impl Future<Output = Result<Applied, Away>>;

    /// Moves lease ends to a lease from now.
    fn renew(&self, tag: &Arc<str>, leases: &[Renew]) -> impl Future<Output = Result<(), Away>>;

    /// Members whose lease has ended, the longest ended first.
    fn lapsed(
        &self,
        tag: &Arc<str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Lapsed>, Away>>;

    /// How limits stand, each named by its scope and rule, in the order asked.
    fn standing(
        &self,
        tag: &Arc<str>,
        asked: &[(Arc<str>, Rule)],
    ) -> impl Future<Output = Result<Vec<Standing>, Away>>;

    /// Usage of these hours.
    fn usage(
        &self,
        tag: &Arc<str>,
        hours: Range<u64>,
    ) -> impl Future<Output = Result<Vec<(u64, Row, Counts)>, Away>>;
}

/// One thread's way to the state. An enum, so that a limiter needs no type parameter.
#[derive(Debug)]
pub(super) enum Link {
    /// In this process.
    Local(Arc<Local>),
    /// In Redis.
    Redis(Box<Redis>),
}

impl Link {
    /// The time by which a tag decides, in milliseconds of Unix time, as far as it is known here.
    pub(super) fn now_ms(&self, tag: &str) -> Option<u64> {
        match self {
            Self::Local(local) => Some(local.now()),
            Self::Redis(redis) => redis.now_ms(tag),
        }
    }
}

impl Commands for Link {
    async fn admit(&self, admit: &Admit) -> Result<Verdict, Away> {
        match self {
            Self::Local(local) => Commands::admit(&**local, admit).await,
            Self::Redis(redis) => Commands::admit(&**redis, admit).await,
        }
    }

    async fn top_up(&self, more: &TopUp) -> Result<Verdict, Away> {
        match self {
            Self::Local(local) => Commands::top_up(&**local, more).await,
            Self::Redis(redis) => Commands::top_up(&**redis, more).await,
        }
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, Away> {
        match self {
            Self::Local(local) => Commands::apply(&**local, batch).await,
            Self::Redis(redis) => Commands::apply(&**redis, batch).await,
        }
    }

    async fn renew(&self, tag: &Arc<str>, leases: &[Renew]) -> Result<(), Away> {
        match self {
            Self::Local(local) => Commands::renew(&**local, tag, leases).await,
            Self::Redis(redis) => Commands::renew(&**redis, tag, leases).await,
        }
    }

    async fn lapsed(&self, tag: &Arc<str>, limit: usize) -> Result<Vec<Lapsed>, Away> {
        match self {
            Self::Local(local) => Commands::lapsed(&**local, tag, limit).await,
            Self::Redis(redis) => Commands::lapsed(&**redis, tag, limit).await,
        }
    }

    async fn standing(
        &self,
        tag: &Arc<str>,
        asked: &[(Arc<str>, Rule)],
    ) -> Result<Vec<Standing>, Away> {
        match self {
            Self::Local(local) => Commands::standing(&**local, tag, asked).await,
            Self::Redis(redis) => Commands::standing(&**redis, tag, asked).await,
        }
    }

    async fn usage(
        &self,
        tag: &Arc<str>,
        hours: Range<u64>,
    ) -> Result<Vec<(u64, Row, Counts)>, Away> {
        match self {
            Self::Local(local) => Commands::usage(&**local, tag, hours).await,
            Self::Redis(redis) => Commands::usage(&**redis, tag, hours).await,
        }
    }
}
