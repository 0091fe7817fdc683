//! `tick` and `forget`: the registry of nodes.

use std::sync::Arc;

use redis::Value;

use super::super::keys::{Keys, incarnation_text};
use super::super::script::Name;
use super::{Call, DEADLINE_BYTES, Error, Reply};

/// What a tick says.
#[derive(Clone, Debug)]
pub struct Tick {
    /// Whose.
    pub incarnation: u64,
    /// Without a tick for so long, the node is lost.
    pub node_ttl_ms: u64,
    /// What it says about itself, as JSON; empty: as before.
    pub description: String,
    /// Tags that it begins to use.
    pub tags: Vec<Arc<str>>,
}

/// What a tick learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Redis time in ms.
    pub now_ms: u64,
    /// Nodes that tick, this one included.
    pub live: u64,
    /// Incarnations that do so no more and whose tags are not swept; at most 16 at a time.
    pub lost: Vec<u64>,
}

/// A node's tick.
pub(crate) fn pack_tick(keys: &Keys, tick: &Tick) -> Call {
    let mut args = vec![
        vec![0; DEADLINE_BYTES],
        incarnation_text(tick.incarnation).into_bytes(),
        tick.node_ttl_ms.to_string().into_bytes(),
        tick.description.clone().into_bytes(),
    ];
    args.extend(tick.tags.iter().map(|tag| tag.as_bytes().to_vec()));
    let names = vec![keys.nodes(), keys.descriptions(), keys.tags(tick.incarnation)];
    Call { script: Name::Tick, keys: names, args }
}

/// What it learns; none where it came late.
pub(crate) fn read_tick(reply: &Reply) -> Result<Fleet, Error> {
    let now_ms = u64::try_from(reply.now_ms).map_err(|_| Error::Reply)?;
    let [Value::Int(live), lost @ ..] = reply.rest.as_slice() else { return Err(Error::Reply) };
    let live = u64::try_from(*live).map_err(|_| Error::Reply)?;
    let incarnation = |value: &Value| match value {
        Value::BulkString(text) => std::str::from_utf8(text)
            .ok()
            .and_then(|text| u64::from_str_radix(text, 16).ok())
            .ok_or(Error::Reply),
        _ => Err(Error::Reply),
    };
    Ok(Fleet { now_ms, live, lost: lost.iter().map(incarnation).collect::<Result<_, _>>()? })
}

/// A node that is gone for good; `itself`: it says so.
pub(crate) fn pack_forget(keys: &Keys, incarnation: u64, itself: bool) -> Call {
    let mut head = vec![0; DEADLINE_BYTES];
    head.push(u8::from(itself));
    Call {
        script: Name::Forget,
        keys: vec![keys.nodes(), keys.descriptions(), keys.tags(incarnation)],
        args: vec![head, incarnation_text(incarnation).into_bytes()],
    }
}
