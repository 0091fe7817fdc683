//! Metrics of a node's place in its fleet.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::series::Series;

/// What keeps a node in its fleet. Clones are the same metrics; the default ones are reported
/// nowhere.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    live: Gauge,
    tags: Gauge,
    schema: Gauge,
    schema_too_new: Gauge,
    ticks: Series<OutcomeLabels, Counter>,
    clock_steps: Series<DirectionLabels, Counter>,
    lost_writes: Counter,
    swept: Series<WhoseLabels, Counter>,
    forgotten: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhoseLabels {
    whose: &'static str,
}

impl Default for FleetMetrics {
    fn default() -> Self {
        Self {
            live: Gauge::default(),
            tags: Gauge::default(),
            schema: Gauge::default(),
            schema_too_new: Gauge::default(),
            ticks: Series::new(Counter::default),
            clock_steps: Series::new(Counter::default),
            lost_writes: Counter::default(),
            swept: Series::new(Counter::default),
            forgotten: Counter::default(),
        }
    }
}

impl FleetMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let live = "Nodes of the fleet that are alive, as this one last knew";
        registry.register("fleet_nodes", live, self.live.clone());
        let tags = "Tags that this node uses, listed so that others can sweep after it";
        registry.register("fleet_tags", tags, self.tags.clone());
        let schema = "The version that the keys in Redis have";
        registry.register("schema_version", schema, self.schema.clone());
        let too_new =
            "1 while the keys in Redis are newer than this build, so that it touches none";
        registry.register("schema_too_new", too_new, self.schema_too_new.clone());
        let ticks = "Heartbeats, by outcome";
        registry.register("ticks", ticks, self.ticks.clone());
        let steps = "Steps of Redis's clock of over a second; one forward may admit a limit again";
        registry.register("redis_clock_steps", steps, self.clock_steps.clone());
        let lost = "Times that Redis had lost writes which it had acknowledged";
        registry.register("redis_lost_writes", lost, self.lost_writes.clone());
        let swept = "Reservations settled as they were because their lease had ended, by whose \
                     they were: those of a lost node, or of a living one";
        registry.register("swept_reservations", swept, self.swept.clone());
        let forgotten = "Lost nodes that this one has swept after";
        registry.register("forgotten_nodes", forgotten, self.forgotten.clone());
    }

    /// A heartbeat was answered.
    pub fn ticked(&self, live: u32, tags: usize) {
        self.live.set(i64::from(live));
        self.tags.set(i64::try_from(tags).unwrap_or(i64::MAX));
        self.tick("ok");
    }

    /// A heartbeat was not answered.
    pub fn not_ticked(&self) {
        self.tick("failed");
    }

    /// Which shape the keys have, and whether this build may touch them.
    pub fn schema(&self, version: u32, fits: bool) {
        self.schema.set(i64::from(version));
        self.schema_too_new.set(i64::from(!fits));
    }

    /// Redis's clock stepped.
    pub fn clock_stepped(&self, forward: bool) {
        let direction = if forward { "forward" } else { "back" };
        self.clock_steps.with(&DirectionLabels { direction }, |steps| {
            steps.inc();
        });
    }

    /// Redis had lost writes.
    pub fn writes_lost(&self) {
        self.lost_writes.inc();
    }

    /// So many reservations were swept; `lost`: of a lost node.
    pub fn swept(&self, reservations: usize, lost: bool) {
        let whose = if lost { "lost_node" } else { "living_node" };
        self.swept.with(&WhoseLabels { whose }, |swept| {
            swept.inc_by(u64::try_from(reservations).unwrap_or(u64::MAX));
        });
    }

    /// A lost node is swept after.
    pub fn forgotten(&self) {
        self.forgotten.inc();
    }

    fn tick(&self, outcome: &'static str) {
        self.ticks.with(&OutcomeLabels { outcome }, |ticks| {
            ticks.inc();
        });
    }
}
