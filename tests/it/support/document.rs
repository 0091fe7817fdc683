//! Fleet documents for tests, written piece by piece.

use super::node::Node;
use super::wall::Wall;

/// A document in the making.
#[derive(Default)]
pub(crate) struct Document {
    providers: String,
    targets: String,
    pools: String,
}

impl Document {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A pool `p` whose tiers are these walls, one each: targets `t0`, `t1`, ...
    pub(crate) fn of(walls: &[&Wall], settings: &str) -> Self {
        let (mut document, mut tiers) = (Self::new(), Vec::new());
        for (number, wall) in walls.iter().enumerate() {
            document = document.target(&format!("t{number}"), &wall.base_url("/v1"), "");
            tiers.push(format!("[t{number}]"));
        }
        document.pool("p", &tiers.join(", "), settings)
    }

    /// A target of this name with a provider of its own; `settings` are more of the provider's.
    pub(crate) fn target(mut self, name: &str, base_url: &str, settings: &str) -> Self {
        let more = if settings.is_empty() { String::new() } else { format!(", {settings}") };
        self.providers.push_str(&format!(
            "  {name}: {{ protocol: openai, base_url: \"{base_url}\", api_key: sk-wall{more} }}\n"
        ));
        self.targets.push_str(&format!("  {name}: {{ provider: {name} }}\n"));
        self
    }

    /// A pool; `tiers` as `[a, b], [c]`, `settings` as `heartbeat: 1s, retry: { attempts: 1 }`.
    pub(crate) fn pool(mut self, name: &str, tiers: &str, settings: &str) -> Self {
        let more = if settings.is_empty() { String::new() } else { format!(", {settings}") };
        self.pools.push_str(&format!("  {name}: {{ tiers: [{tiers}]{more} }}\n"));
        self
    }

    /// A node that serves it.
    pub(crate) fn serve(&self) -> Node {
        let Self { providers, targets, pools } = self;
        Node::serving(&format!("providers:\n{providers}targets:\n{targets}pools:\n{pools}"))
    }
}
