//! Building a node: everything is checked before the first port is bound.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_server::Server;
use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use super::collector::Collector;
use super::{Node, Running};
use crate::api::{self, AdminConfig, DataConfig};
use crate::config::{
    self, DocumentFault, Env, Fault, Loaded, Settings, StoreSettings, Warning, Watch,
};
use crate::domain::{Lifecycle, Phase, Random};
use crate::fleet::config_watch::{self, Report};
use crate::proxy::{self, Shared, Worker};
use crate::sim;
use crate::snapshot::Snapshot;
use crate::store::connection::Config as ConnectionConfig;
use crate::store::redis::Shape;
use crate::store::{self, Store, StoreError};
use crate::telemetry::{Metrics, TraceError, Traces};
use crate::upstream::{self, TlsError, Upstream};

/// How often the fleet document is looked at. A change is in force with the second look that sees
/// it, so within a second.
const WATCH_PERIOD: Duration = Duration::from_millis(500);

/// How long usage can be asked for.
const USAGE_TTL: Duration = Duration::from_secs(32 * 86_400);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The fleet document is wrong: every fault of it.
    #[error("the fleet document cannot be served")]
    Document(Vec<DocumentFault>),
    /// The settings do not go with the document.
    #[error("it would not be safe to serve with these settings")]
    Settings(Vec<Fault>),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// Traces cannot be exported.
    #[error(transparent)]
    Traces(#[from] TraceError),
    /// The store cannot be used as it is set.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread cannot be started.
    #[error("cannot start the thread that exports traces")]
    Thread(#[source] io::Error),
    /// A port cannot be bound.
    #[error("cannot listen on {addr}; is another process there? set {setting}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// The setting that says so.
        setting: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Node {
    /// Checks everything, binds the listeners and serves. Must be called inside an actix `System`.
    ///
    /// # Errors
    /// Nothing is bound where the settings or the document are wrong.
    pub fn start(settings: &Settings, env: &Env) -> Result<Self, StartError> {
        let mut loaded = configuration(settings, env, settings.sim_listen)?;
        let faults = config::exposure_faults(settings, &loaded.snapshot);
        if !faults.is_empty() {
            return Err(StartError::Settings(faults));
        }
        let tls = upstream::tls_config(None)?;
        let mut aside = Vec::new();
        let sim = if settings.config.is_none() && config::needs_simulator(env) {
            let (listener, addr) = listen(settings.sim_listen, "FLOTILLA_SIM_LISTEN")?;
            loaded = configuration(settings, env, addr)?;
            let server = sim::serve(listener, settings.sim, 1);
            aside.push(run(server, addr, "FLOTILLA_SIM_LISTEN")?);
            Some(addr)
        } else {
            None
        };
        let (data_listener, data) = listen(settings.listen, "FLOTILLA_LISTEN")?;
        let (admin_listener, admin) = listen(settings.admin_listen, "FLOTILLA_ADMIN_LISTEN")?;
        let metrics = Metrics::new();
        let store = store(settings, &metrics)?;
        let shared = share(settings, loaded, metrics, store, traces(settings, &tls)?);
        let worker = {
            let shared = Arc::clone(&shared);
            let born = Arc::new(AtomicUsize::new(0));
            let workers = settings.workers.max(1);
            move || {
                // A worker that is started anew takes a number that there is already, so that the
                // series stay as many as the workers.
                let number = born.fetch_add(1, Ordering::Relaxed) % workers;
                let levels = shared.metrics.upstream(number);
                let config = upstream::Config::default();
                let upstream = Upstream::with_levels(config, Arc::clone(&tls), levels);
                Rc::new(Worker::new(Arc::clone(&shared), upstream))
            }
        };
        let data_server = api::serve_data(data_config(settings), data_listener, worker);
        let data_server = run(data_server, data, "FLOTILLA_LISTEN")?;
        let admin_config = AdminConfig {
            token: settings.admin_token.clone(),
            head_timeout: settings.head_timeout,
            write_stall: settings.write_stall,
        };
        let admin_server = api::serve_admin(admin_config, admin_listener, Arc::clone(&shared));
        aside.push(run(admin_server, admin, "FLOTILLA_ADMIN_LISTEN")?);
        let stop_watch = CancellationToken::new();
        let watch = settings.config.clone().map(|file| {
            let in_force = shared.snapshot.load_full();
            let watch = Watch::new(file, env.clone(), &in_force, settings.is_exposed());
            actix_rt::spawn(watch_document(Arc::clone(&shared), watch, stop_watch.clone()))
        });
        shared.lifecycle.advance(Phase::Serving);
        let drain_limit = settings.drain_limit;
        Ok(Self { data, admin, sim, shared, drain_limit, data_server, aside, stop_watch, watch })
    }
}

/// The configuration to begin with; `sim` is where the simulator would be.
fn configuration(settings: &Settings, env: &Env, sim: SocketAddr) -> Result<Loaded, StartError> {
    let loaded = match &settings.config {
        Some(file) => config::load(file, env, 1),
        None => without_document(env, sim),
    };
    loaded.map_err(StartError::Document)
}

fn without_document(env: &Env, sim: SocketAddr) -> Result<Loaded, Vec<DocumentFault>> {
    let models: Vec<&str> = sim::FAULTS.iter().map(|fault| fault.model).collect();
    let (document, mut warnings) = config::default_document(env, sim, &models)?;
    let (snapshot, more) = config::compile(&document, env, 1)?;
    warnings.extend(more);
    Ok(Loaded { snapshot, warnings })
}

/// Starts the exporter of traces, where there is a collector.
fn traces(settings: &Settings, tls: &Arc<ClientConfig>) -> Result<Traces, StartError> {
    let Some(config) = &settings.traces else { return Ok(Traces::off()) };
    let collector = Collector::start(config, Arc::clone(tls)).map_err(StartError::Thread)?;
    Ok(Traces::start(config, Arc::new(collector))?)
}

/// The state of limits: in the Redis of the fleet, or in this process.
fn store(settings: &Settings, metrics: &Metrics) -> Result<Arc<Store>, StartError> {
    let StoreSettings { redis, lease_ttl, .. } = &settings.store;
    let Some(redis) = redis else { return Ok(Store::standalone(metrics.store())) };
    let identity = redis.tls_client.as_ref();
    let identity =
        identity.map(|client| (client.cert.clone(), client.key.expose().as_bytes().to_vec()));
    let tls = store::Tls { ca: redis.tls_ca.clone(), identity };
    let config = store::Config {
        connection: ConnectionConfig { url: redis.url.expose(), tls, deadline: redis.deadline },
        shape: Shape { prefix: redis.prefix.clone(), lease_ttl: *lease_ttl, usage_ttl: USAGE_TTL },
        incarnation: Random::new().next_u64(),
    };
    Ok(Store::redis(config, metrics.store())?)
}

fn share(
    settings: &Settings,
    loaded: Loaded,
    metrics: Metrics,
    store: Arc<Store>,
    traces: Traces,
) -> Arc<Shared> {
    let config = proxy::Config {
        body_limit: settings.body_limit as u64,
        body_budget: settings.body_budget as u64,
        body_stall: settings.body_stall,
    };
    let metrics = metrics.with_traces(&traces);
    warn(&loaded.warnings);
    metrics.revision(i64::try_from(loaded.snapshot.revision).unwrap_or(i64::MAX));
    let lifecycle = Arc::new(Lifecycle::new());
    let node = settings.node_id.as_str().into();
    let shared = Shared::new(config, Arc::new(loaded.snapshot), metrics, lifecycle, node);
    Arc::new(shared.with_store(store).with_traces(traces))
}

fn data_config(settings: &Settings) -> DataConfig {
    DataConfig {
        workers: settings.workers,
        head_timeout: settings.head_timeout,
        write_stall: settings.write_stall,
        keep_alive: api::KEEP_ALIVE,
        // The drain ends requests at its limit; the rest is the flushing of their last words.
        shutdown: settings.drain_limit + super::CLOSING,
        trusted_proxies: settings.trusted_proxies.clone(),
        cors_origins: settings.cors_origins.clone(),
    }
}

/// Binds a listener; the address tells the port where the system chose it.
fn listen(
    addr: SocketAddr,
    setting: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { addr, setting, source };
    let listener = TcpListener::bind(addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

fn run(
    server: io::Result<Server>,
    addr: SocketAddr,
    setting: &'static str,
) -> Result<Running, StartError> {
    let server = server.map_err(|source| StartError::Listen { addr, setting, source })?;
    Ok(Running { handle: server.handle(), task: actix_rt::spawn(server) })
}

async fn watch_document(shared: Arc<Shared>, watch: Watch, stop: CancellationToken) {
    let mut had_keys = shared.snapshot.load().has_keys();
    let report = |report| match report {
        Report::Changed { snapshot, warnings } => {
            if had_keys && !snapshot.has_keys() {
                tracing::warn!("the document has no keys any more: every request is accepted");
            }
            had_keys = snapshot.has_keys();
            tracing::info!(
                revision = snapshot.revision,
                checksum = &*snapshot.checksum,
                "the changed fleet document is in force"
            );
            warn(&warnings);
            shared.metrics.reload("ok");
            shared.metrics.revision(i64::try_from(snapshot.revision).unwrap_or(i64::MAX));
            forget_series(&shared.metrics, &snapshot);
        }
        Report::Invalid(faults) => {
            shared.metrics.reload("invalid");
            for fault in faults {
                tracing::error!(
                    "the changed fleet document is not served, the one before it stays: {fault}"
                );
            }
        }
    };
    config_watch::watch(&shared.snapshot, watch, WATCH_PERIOD, stop, report).await;
}

/// Forgets the series of targets and pools that left the configuration.
fn forget_series(metrics: &Metrics, snapshot: &Snapshot) {
    let targets: HashSet<&str> = snapshot.targets.iter().map(|target| &*target.name).collect();
    let pools: HashSet<&str> = snapshot.pools.iter().map(|pool| &*pool.name).collect();
    metrics.retain(&targets, &pools);
}

fn warn(warnings: &[Warning]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}
