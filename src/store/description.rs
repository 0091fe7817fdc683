//! What a node says about itself in the registry.

use serde::{Deserialize, Serialize};

/// As JSON in the registry. Fields may be added, and are then absent in what older nodes write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Description {
    /// The node's id.
    pub id: String,
    /// The version of its program.
    pub version: String,
    /// The version of the keyspace that it knows.
    pub schema: u32,
    /// Labels of where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Labels of where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Where its data listener is.
    pub address: String,
    /// `starting`, `serving`, `draining` or `ending`.
    pub state: String,
    /// Requests in flight.
    pub in_flight: u64,
}

impl Description {
    /// As the registry holds it.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can always be written")
    }

    /// Reads what a node wrote.
    #[must_use]
    pub fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}
