//! A family of metrics whose series can be forgotten again.
//!
//! The family of `prometheus-client` cannot list its series, so a target that left the
//! configuration would be reported for ever. This one can drop them, and is bounded.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, MetricEncoder,
};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// No family grows beyond this: what a configuration of any sane size needs is far below it, and
/// a mistake in a label then costs a missing series rather than the node's memory.
const MAX_SERIES: usize = 50_000;

/// A family of metrics of type `M`, one for each set of labels `S`. Clones share the series.
pub(super) struct Series<S, M> {
    map: Arc<RwLock<HashMap<S, M, RandomState>>>,
    make: fn() -> M,
}

impl<S: Clone + Eq + Hash, M: Clone> Series<S, M> {
    pub(super) fn new(make: fn() -> M) -> Self {
        Self { map: Arc::default(), make }
    }

    /// Calls `use_it` with the metric for these labels.
    pub(super) fn with(&self, labels: &S, use_it: impl FnOnce(&M)) {
        {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(metric) = map.get(labels) {
                return use_it(metric);
            }
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if map.len() < MAX_SERIES || map.contains_key(labels) {
            use_it(map.entry(labels.clone()).or_insert_with(self.make));
        }
    }

    /// Forgets every series whose labels `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(&S) -> bool) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.retain(|labels, _| keep(labels));
    }
}

impl<S, M> Clone for Series<S, M> {
    fn clone(&self) -> Self {
        Self { map: Arc::clone(&self.map), make: self.make }
    }
}

impl<S: Debug, M: Debug> Debug for Series<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Series").field(&self.map).finish()
    }
}

impl<S, M: TypedMetric> TypedMetric for Series<S, M> {
    const TYPE: MetricType = M::TYPE;
}

impl<S: EncodeLabelSet, M: EncodeMetric + TypedMetric> EncodeMetric for Series<S, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        for (labels, metric) in map.iter() {
            metric.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// A name from the configuration as a label. Cloning it allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name(Arc<str>);

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        (&*self.0).encode(encoder)
    }
}

/// The names seen so far, so that a request can put one into its labels without allocating.
#[derive(Debug, Default)]
pub(super) struct Names(RwLock<HashSet<Arc<str>, RandomState>>);

impl Names {
    /// The shared copy of this name.
    pub(super) fn get(&self, name: &str) -> Name {
        {
            let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(shared) = names.get(name) {
                return Name(Arc::clone(shared));
            }
        }
        let shared: Arc<str> = name.into();
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MAX_SERIES {
            names.insert(Arc::clone(&shared));
        }
        Name(shared)
    }

    /// Forgets every name that `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.retain(|name| keep(name));
    }
}
