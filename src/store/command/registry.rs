//! `tick` and `forget`: the registry of nodes.

use std::sync::Arc;

use redis::Value;

use super::super::keys::{Keys, incarnation_text};
use super::super::schema::Schema;
use super::super::script::Name;
use super::{Call, DEADLINE_BYTES, Error, Reply};

/// What a tick says.
#[derive(Clone, Debug, Default)]
pub struct Tick {
    /// Whose.
    pub incarnation: u64,
    /// Without a tick for so long, the node is lost.
    pub node_ttl_ms: u64,
    /// Whether it asks for its rank.
    pub ranked: bool,
    /// What it says about itself, as JSON; empty: as before.
    pub description: String,
    /// Tags that it uses no more.
    pub gone: Vec<Arc<str>>,
    /// Tags that it begins to use. One that is also `gone` stays.
    pub begun: Vec<Arc<str>>,
}

/// What a tick learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Redis time in ms.
    pub now_ms: u64,
    /// Nodes that tick, this one included.
    pub live: u64,
    /// This one's place among them, from 0, where it was asked for.
    pub rank: Option<u32>,
    /// Whether this node was not listed before: its tags are not either.
    pub fresh: bool,
    /// Ticks of all nodes so far. It goes back only where Redis lost what it had acknowledged.
    pub ticks: u64,
    /// What shape the keys have, where it is recorded.
    pub schema: Option<Schema>,
    /// Nodes that tick no more and whose tags are not swept, the longest lost first; at most 16.
    pub lost: Vec<Lost>,
}

/// A node that ticks no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which run of it.
    pub incarnation: u64,
    /// Since when it counts as lost, in Redis time.
    pub since_ms: u64,
}

/// A node's tick.
pub(crate) fn pack_tick(keys: &Keys, tick: &Tick) -> Call {
    let mut head = vec![0; DEADLINE_BYTES];
    head.push(u8::from(tick.ranked));
    let mut args = vec![
        head,
        incarnation_text(tick.incarnation).into_bytes(),
        tick.node_ttl_ms.to_string().into_bytes(),
        tick.description.clone().into_bytes(),
    ];
    let signed = |sign: &str, tag: &Arc<str>| [sign, tag].concat().into_bytes();
    args.extend(tick.gone.iter().map(|tag| signed("-", tag)));
    args.extend(tick.begun.iter().map(|tag| signed("+", tag)));
    let tags = keys.tags(tick.incarnation);
    let names = vec![keys.nodes(), keys.descriptions(), tags, keys.ticks(), keys.schema()];
    Call { script: Name::Tick, keys: names, args }
}

/// What it learns.
pub(crate) fn read_tick(reply: &Reply) -> Result<Fleet, Error> {
    let [live, rank, fresh, ticks, version, readers, lost @ ..] = reply.rest.as_slice() else {
        return Err(Error::Reply);
    };
    let schema = match (small(version), small(readers)) {
        (Some(version), Some(readers)) => Some(Schema { version, readers }),
        _ => None,
    };
    let lost = lost.chunks(2).map(|pair| match pair {
        [incarnation, since] => {
            Ok(Lost { incarnation: incarnation_of(incarnation)?, since_ms: number(since)? })
        }
        _ => Err(Error::Reply),
    });
    Ok(Fleet {
        now_ms: u64::try_from(reply.now_ms).map_err(|_| Error::Reply)?,
        live: number(live)?,
        rank: small(rank),
        fresh: number(fresh)? == 1,
        ticks: number(ticks)?,
        schema,
        lost: lost.collect::<Result<_, _>>()?,
    })
}

/// A lost node's tags that are swept; or, `itself`, a node that leaves for good.
pub(crate) fn pack_forget(keys: &Keys, incarnation: u64, itself: bool, swept: &[Arc<str>]) -> Call {
    let mut head = vec![0; DEADLINE_BYTES];
    head.push(u8::from(itself));
    let mut args = vec![head, incarnation_text(incarnation).into_bytes()];
    args.extend(swept.iter().map(|tag| tag.as_bytes().to_vec()));
    Call {
        script: Name::Forget,
        keys: vec![keys.nodes(), keys.descriptions(), keys.tags(incarnation)],
        args,
    }
}

fn number(value: &Value) -> Result<u64, Error> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| Error::Reply),
        _ => Err(Error::Reply),
    }
}

fn small(value: &Value) -> Option<u32> {
    u32::try_from(number(value).ok()?).ok()
}

fn incarnation_of(value: &Value) -> Result<u64, Error> {
    let Value::BulkString(text) = value else { return Err(Error::Reply) };
    let text = std::str::from_utf8(text).map_err(|_| Error::Reply)?;
    u64::from_str_radix(text, 16).map_err(|_| Error::Reply)
}
