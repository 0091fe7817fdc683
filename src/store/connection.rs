//! One user's own connection to Redis, and everything that may happen to a call on it.
//!
//! A call ends within its deadline, or within two: a call that failed is made once more, under the
//! same id, while the breaker is closed. A call that was given up still runs in Redis whenever the
//! master gets to it; what it carries (its deadline, in Redis time) makes it change nothing then.
//!
//! The connection is kept by a task of its own (`keep`), which ends with it: it connects, learns the
//! time, and connects again when a call says that the connection is broken. No call ever waits for
//! it longer than its deadline.

mod keep;
mod lanes;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, RedisResult, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use self::lanes::Lanes;
use super::breaker::Leave;
use super::command::{Call, Reply, Status};
use super::endpoint::Endpoint;
pub use super::endpoint::{EndpointError, Tls};
pub use super::fault::Error;
use super::fault::{self, Handling};
use super::master_clock::SLACK;
use super::script::{Script, Scripts};
use crate::domain::Random;

/// A call that ends this much later than its deadline ended late because this thread was busy.
const LATE: Duration = Duration::from_millis(5);
/// Loading a script is compiling it: more than a call's own deadline may be needed.
const LOAD: Duration = Duration::from_millis(500);

/// How to connect, and how long to wait.
#[derive(Clone, Debug)]
pub struct Config {
    /// `redis://`, `rediss://`, `redis+cluster://` or `rediss+cluster://`. May hold a password.
    pub url: crate::domain::Secret,
    /// For the two that end in `s`.
    pub tls: Tls,
    /// Of one call.
    pub deadline: Duration,
}

/// A connection of one worker, or of the ledger. Made where it is used.
pub struct Connection {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

/// What the calls and the task that keeps the connection share.
struct Shared {
    endpoint: Endpoint,
    deadline: Duration,
    /// The connection, where there is one.
    live: watch::Sender<Option<Live>>,
    /// Told when the connection is of no use any more.
    broken: Notify,
    state: Mutex<State>,
    scripts: &'static Scripts,
    test_clock: Option<TestClock>,
}

struct State {
    lanes: Lanes,
    random: Random,
}

/// A clock that scripts are told instead of Redis's own; for tests alone.
#[derive(Clone, Debug, Default)]
pub struct TestClock(pub Arc<std::sync::atomic::AtomicU64>);

/// A connection that is up. Cloning shares it.
#[derive(Clone)]
enum Live {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// How one try ended.
enum Tried {
    Answered(Reply),
    /// As it came, for what is no script.
    Plain(Value),
    Failed(Error),
    /// Worth another try, whatever the breaker says: the server lacked the script.
    Again,
}

impl Connection {
    /// Begins to connect. Must be called on the runtime of its user.
    ///
    /// # Errors
    /// The URL or the TLS files cannot be read.
    pub fn open(config: &Config) -> Result<Self, EndpointError> {
        Self::open_with(config, None)
    }

    /// The same, with a clock of the test's.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(config: &Config, clock: Option<TestClock>) -> Result<Self, EndpointError> {
        let endpoint = Endpoint::parse(config.url.expose(), &config.tls, config.deadline)?;
        let scripts = if clock.is_some() { Scripts::with_test_clock() } else { Scripts::real() };
        let shared = Arc::new(Shared {
            endpoint,
            deadline: config.deadline,
            live: watch::channel(None).0,
            broken: Notify::new(),
            state: Mutex::new(State { lanes: Lanes::new(Instant::now()), random: Random::new() }),
            scripts,
            test_clock: clock,
        });
        // On the runtime of its user, whichever that is; it ends with the connection.
        let task = Handle::current().spawn(keep::keep(Arc::clone(&shared)));
        Ok(Self { shared, task })
    }

    /// Whether the master of this tag is asked freely.
    #[must_use]
    pub fn is_up(&self, key: &str) -> bool {
        let mut state = self.shared.state();
        self.shared.live.borrow().is_some() && state.lanes.of(key).breaker.is_closed()
    }

    /// Redis time, as far as this connection has learnt it.
    #[must_use]
    pub(crate) fn now_ms(&self, key: &str) -> Option<u64> {
        if let Some(clock) = &self.shared.test_clock {
            return Some(clock.0.load(std::sync::atomic::Ordering::Relaxed));
        }
        self.shared.state().lanes.of(key).clock.now_ms(Instant::now())
    }

    /// Waits until the time is known, at most for one deadline.
    pub(crate) async fn learnt_ms(&self, key: &str) -> Result<u64, Error> {
        let shared = &*self.shared;
        if shared.live.borrow().is_none() {
            // Only the one that finds out whether the master is back waits for a connection.
            if shared.state().lanes.of(key).breaker.ask(Instant::now()) == Leave::Stay {
                return Err(Error::Away);
            }
            let mut live = shared.live.subscribe();
            let up = timeout(shared.deadline, live.wait_for(Option::is_some)).await.map(drop);
            if up.is_err() {
                shared.failed(key, None);
                return Err(Error::Away);
            }
            // It has told its time, and is to be asked for more.
            shared.state().lanes.of(key).breaker.succeeded();
        }
        self.now_ms(key).ok_or(Error::Away)
    }

    /// Runs a script: once, and once more where that may help.
    pub(crate) async fn run(&self, call: &mut Call) -> Result<Reply, Error> {
        self.run_by(call, None).await
    }

    /// The same; `deadline_ms` stands in for the deadline that the call would be given.
    pub(crate) async fn run_by(
        &self,
        call: &mut Call,
        deadline_ms: Option<u64>,
    ) -> Result<Reply, Error> {
        let lane = call.keys.first().cloned().unwrap_or_default();
        let mut again = true;
        let mut in_doubt: Option<Instant> = None;
        // Redis knows the id of an admission until its deadline. A second copy that may run later
        // than the first one's deadline would be a second admission, so the first one's is that of
        // both, and long enough for both.
        let mut both = deadline_ms;
        loop {
            let spare = if again { self.shared.deadline } else { Duration::ZERO };
            let tried = self.try_once(&lane, Some((call, &mut both, spare)), None).await;
            match tried {
                // It changed nothing, and Redis has another time than was believed.
                Tried::Answered(reply) if reply.status == Status::Late && again => {
                    both = deadline_ms;
                }
                Tried::Answered(reply) if reply.status == Status::Late => {
                    // Twice: what the first one did is not known, if it was not answered either.
                    return in_doubt.map_or(Ok(reply), |until| Err(Error::InDoubt { until }));
                }
                Tried::Answered(reply) => return Ok(reply),
                Tried::Again if again => {}
                // What the first one did is not known all the same, if it was not answered.
                Tried::Again => {
                    return Err(in_doubt.map_or(Error::Away, |until| Error::InDoubt { until }));
                }
                Tried::Plain(_) => return Err(Error::Reply),
                Tried::Failed(error) => {
                    if let Error::InDoubt { until } = error {
                        in_doubt = Some(in_doubt.map_or(until, |before| before.max(until)));
                    }
                    let closed = self.shared.state().lanes.of(&lane).breaker.is_closed();
                    let useful = matches!(error, Error::InDoubt { .. } | Error::Refused { .. });
                    if !(again && closed && useful) {
                        return Err(in_doubt.map_or(error, |until| Error::InDoubt { until }));
                    }
                }
            }
            again = false;
        }
    }

    /// Runs a plain command that only reads, on the node of `key`.
    pub(crate) async fn read(&self, key: &str, command: &Cmd) -> Result<Value, Error> {
        match self.try_once(key, None, Some(command)).await {
            Tried::Plain(value) => Ok(value),
            Tried::Failed(error) => Err(error),
            Tried::Answered(_) | Tried::Again => Err(Error::Reply),
        }
    }

    async fn try_once(
        &self,
        lane: &str,
        call: Option<(&mut Call, &mut Option<u64>, Duration)>,
        plain: Option<&Cmd>,
    ) -> Tried {
        let shared = &*self.shared;
        let started = Instant::now();
        let leave = shared.state().lanes.of(lane).breaker.ask(started);
        if leave == Leave::Stay {
            return Tried::Failed(Error::Away);
        }
        let mut live = shared.live.subscribe();
        let up = timeout(shared.deadline, live.wait_for(Option::is_some)).await;
        let Some(mut live) = up.ok().and_then(Result::ok).and_then(|live| live.clone()) else {
            shared.failed(lane, None);
            return Tried::Failed(Error::Away);
        };
        let sent = Instant::now();
        let limit = shared.deadline.saturating_sub(sent - started);
        // A copy that is made later may still run so much later.
        let mut later = Duration::ZERO;
        let (command, script) = match (call, plain) {
            (Some((call, deadline_ms, spare)), _) => {
                let Some(now_ms) = self.now_ms(lane) else { return Tried::Failed(Error::Away) };
                later = spare;
                let time = u64::try_from((limit + later + SLACK).as_millis()).unwrap_or(0);
                call.set_deadline(*deadline_ms.get_or_insert(now_ms + time));
                let script = shared.scripts.get(call.script);
                (evalsha(script, call, shared.test_clock.as_ref().map(|_| now_ms)), Some(script))
            }
            (None, Some(plain)) => (plain.clone(), None),
            (None, None) => return Tried::Failed(Error::Reply),
        };
        // What is not a script only reads, and leaves no doubt.
        let until = sent + limit + later + SLACK + Duration::from_millis(1);
        let doubt = script.map_or(Error::Away, |_| Error::InDoubt { until });
        let answer = {
            let mut answer = pin!(live.ask(&command));
            match timeout(limit, &mut answer).await {
                Ok(answer) => Some(answer),
                // This thread was late, not Redis: the answer may be here, unread.
                Err(_) if sent.elapsed() > limit + LATE => match timeout(LATE, &mut answer).await {
                    Ok(answer) => Some(answer),
                    Err(_) => return Tried::Failed(doubt),
                },
                Err(_) => None,
            }
        };
        match answer {
            None => {
                shared.failed(lane, Some(leave));
                Tried::Failed(doubt)
            }
            Some(Ok(value)) => shared.answered(lane, value, script.is_some(), sent),
            Some(Err(error)) => self.refused(lane, &error, script, &mut live, doubt).await,
        }
    }

    async fn refused(
        &self,
        lane: &str,
        error: &redis::RedisError,
        script: Option<&Script>,
        live: &mut Live,
        doubt: Error,
    ) -> Tried {
        let shared = &*self.shared;
        let (code, handling, means) = fault::read(error);
        match (handling, script) {
            (Handling::Load, Some(script)) => {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(&script.text);
                let loaded = timeout(LOAD, live.ask(&load)).await;
                return match loaded {
                    Ok(Ok(_)) => Tried::Again,
                    _ => {
                        shared.failed(lane, None);
                        Tried::Failed(Error::Away)
                    }
                };
            }
            (Handling::Broken, _) => {
                shared.failed(lane, None);
                shared.broken.notify_one();
                return Tried::Failed(doubt);
            }
            (Handling::Reconnect, _) => {
                shared.failed(lane, None);
                shared.broken.notify_one();
            }
            (Handling::Wait, _) => shared.failed(lane, None),
            (Handling::Report | Handling::Load, _) => {
                shared.state().lanes.of(lane).breaker.succeeded();
            }
        }
        tracing::warn!(code, means, "redis refuses a call");
        Tried::Failed(Error::Refused { code, means })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, lane: &str, value: Value, is_script: bool, sent: Instant) -> Tried {
        let mut state = self.state();
        let lane = state.lanes.of(lane);
        lane.breaker.succeeded();
        if !is_script {
            return Tried::Plain(value);
        }
        match Reply::read(value) {
            Ok(reply) => {
                lane.clock.learn(reply.now_ms, sent, Instant::now());
                Tried::Answered(reply)
            }
            Err(error) => Tried::Failed(error),
        }
    }

    /// Counts a failure. A probe that was not answered takes the connection with it: packets may
    /// be lost for longer than TCP admits.
    fn failed(&self, lane: &str, unanswered: Option<Leave>) {
        let mut state = self.state();
        let random = state.random.next_u64();
        state.lanes.of(lane).breaker.failed(Instant::now(), random);
        if unanswered == Some(Leave::Probe) && matches!(self.endpoint, Endpoint::Single(_)) {
            self.broken.notify_one();
        }
    }
}

impl Live {
    /// One answer, in which an error of the server's is an error.
    async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        };
        answer.and_then(Value::extract_error)
    }
}

fn evalsha(script: &Script, call: &Call, test_now_ms: Option<u64>) -> Cmd {
    // Room for all of it at once: it is a dozen short keys and arguments.
    let bytes = call.keys.iter().map(String::len).chain(call.args.iter().map(Vec::len));
    let arguments = 4 + call.keys.len() + call.args.len();
    let mut command = Cmd::with_capacity(arguments, 64 + bytes.sum::<usize>());
    command.arg("EVALSHA").arg(&script.sha).arg(call.keys.len());
    for key in &call.keys {
        command.arg(key);
    }
    for arg in &call.args {
        command.arg(arg);
    }
    if let Some(now_ms) = test_now_ms {
        command.arg(now_ms);
    }
    command
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}
