//! The node's place in its fleet, on a thread of its own: a worker that is busy must not make the
//! node look lost, and a Redis that hangs must not hold up a start.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::config::Settings;
use crate::fleet::member::{self, Joined, Leave};
use crate::proxy::Shared;
use crate::store::connection;
use crate::store::description::Description;
use crate::store::schema::{Migration, TooNew, known};
use crate::store::{Store, Tls};
use crate::telemetry::FleetMetrics;

/// How long a start waits for Redis to answer: one that hangs, for a port that is closed says so at
/// once. A Redis that is away is no reason not to start; what it says later holds as well.
const FIRST_WORD: Duration = Duration::from_millis(800);
/// And, where it answers, for the rest: another node may be migrating the keys.
const LAST_WORD: Duration = Duration::from_secs(10);
/// How long leaving may take.
const LEAVING: Duration = Duration::from_secs(2);

/// The thread. Dropped, it ends, and the node is lost to its fleet after its TTL.
#[derive(Debug)]
pub(super) struct Member {
    leave: Leave,
    over: Option<oneshot::Receiver<()>>,
    serving: Arc<OnceLock<(Arc<Shared>, SocketAddr)>>,
}

/// Why it does not begin.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The keys in Redis are newer than this build.
    #[error(transparent)]
    TooNew(#[from] TooNew),
    /// The system gives no thread.
    #[error("cannot start the thread that keeps this node in its fleet")]
    Thread(#[from] io::Error),
}

/// The fleet's way to Redis, for calls that no request waits for; none without a Redis.
pub(super) fn connection(settings: &Settings) -> Option<connection::Config> {
    let redis = settings.store.redis.as_ref()?;
    let identity = redis.tls_client.as_ref();
    let identity =
        identity.map(|client| (client.cert.clone(), client.key.expose().as_bytes().to_vec()));
    let tls = Tls { ca: redis.tls_ca.clone(), identity };
    Some(connection::Config { url: redis.url.expose(), tls, deadline: redis.deadline })
}

impl Member {
    /// Starts the thread, where there is a fleet, and waits a moment for its first word.
    ///
    /// # Errors
    /// The keys in Redis must not be touched by this build, or there is no thread.
    pub(super) fn start(
        settings: &Settings,
        store: &Arc<Store>,
        metrics: FleetMetrics,
        migrations: &'static [Migration],
    ) -> Result<Option<Self>, MemberError> {
        let (Some(redis), Some(connection)) = (&settings.store.redis, connection(settings)) else {
            return Ok(None);
        };
        let tick = settings.store.tick;
        let config = member::Config {
            connection,
            prefix: redis.prefix.clone(),
            migrations,
            tick,
            lease_ttl: settings.store.lease_ttl,
        };
        let serving = Arc::new(OnceLock::new());
        let describe = describe(settings, Arc::clone(&serving), known(migrations));
        let leave = Leave::default();
        // Only the first words are waited for.
        let (told, words) = sync_channel(2);
        let (done, over) = oneshot::channel();
        let (store, on_thread) = (Arc::clone(store), leave.clone());
        let serve = move || {
            let work = async move {
                let link = store.link_of_fleet();
                let Some((redis, membership)) = link.zip(store.membership()) else { return };
                let joined = |joined| drop(told.try_send(joined));
                member::run(&config, &redis, membership, &metrics, describe, joined, &on_thread)
                    .await;
            };
            actix_rt::System::new().block_on(work);
            // Nobody may wait for it.
            done.send(()).ok();
        };
        thread::Builder::new().name("fleet".into()).spawn(serve)?;
        let member = Self { leave, over: Some(over), serving };
        let word = match words.recv_timeout(FIRST_WORD) {
            Ok(Joined::Answers) => words.recv_timeout(LAST_WORD),
            word => word,
        };
        match word {
            Ok(Joined::TooNew(too_new)) => return Err(too_new.into()),
            Ok(Joined::Fits) => {}
            _ => tracing::warn!(
                "redis does not answer: limits hold by their degraded rules until it does"
            ),
        }
        Ok(Some(member))
    }

    /// From now on the registry tells where this node serves, and how busy it is.
    pub(super) fn serves(&self, shared: &Arc<Shared>, data: SocketAddr) {
        drop(self.serving.set((Arc::clone(shared), data)));
    }

    /// Ends the thread. `clean`: nothing is held any more, so the node is taken off the registry.
    pub(super) async fn leave(mut self, clean: bool) {
        if clean {
            self.leave.goodbye.cancel();
        } else {
            self.leave.end.cancel();
        }
        if let Some(over) = self.over.take() {
            drop(timeout(LEAVING, over).await);
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave.end.cancel();
    }
}

/// What the node says about itself in the registry.
fn describe(
    settings: &Settings,
    serving: Arc<OnceLock<(Arc<Shared>, SocketAddr)>>,
    schema: u32,
) -> impl Fn() -> Description + Send + use<> {
    let fixed = Description {
        id: settings.node_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema,
        zone: settings.zone.clone(),
        region: settings.region.clone(),
        state: "starting".to_owned(),
        ..Description::default()
    };
    move || {
        let Some((shared, data)) = serving.get() else { return fixed.clone() };
        Description {
            address: data.to_string(),
            state: shared.lifecycle.phase().as_str().to_owned(),
            in_flight: u64::try_from(shared.lifecycle.in_flight()).unwrap_or(u64::MAX),
            ..fixed.clone()
        }
    }
}
