//! Running a node, or the simulator, as a process: settings, logs, signals, exit.

use std::io::{self, Write};
use std::net::TcpListener;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{MemberError, Node, StartError};
use crate::cli;
use crate::config::{Env, Fault, LogFormat, Settings};
use crate::sim;
use crate::store::migrate::MigrateError;
use crate::telemetry::log::{self, Format};

/// Why a process ends other than well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Settings are wrong: every fault of them.
    #[error("the settings are wrong")]
    Settings(Vec<Fault>),
    /// The node does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The keys in Redis are not migrated.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The log cannot be set up.
    #[error(transparent)]
    Log(#[from] log::LogError),
    /// The system does not give what is needed.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

impl Failure {
    /// The exit code of the process.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Settings(_)
            | Self::Log(_)
            | Self::Migrate(MigrateError::TooNew(_) | MigrateError::Endpoint(_))
            | Self::Start(
                StartError::Document(_)
                | StartError::Settings(_)
                | StartError::Member(MemberError::TooNew(_)),
            ) => cli::BAD_INPUT,
            Self::Start(_) | Self::Migrate(_) | Self::System(_) => cli::UNREACHABLE,
        }
    }

    /// What to tell, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Settings(faults) | Self::Start(StartError::Settings(faults)) => {
                faults.iter().map(Fault::to_string).collect()
            }
            Self::Start(StartError::Document(faults)) => {
                faults.iter().map(ToString::to_string).collect()
            }
            Self::Start(error @ StartError::Listen { source, .. }) => {
                vec![format!("{error} ({source})")]
            }
            other => vec![other.to_string()],
        }
    }
}

/// Runs a node until a signal ends it: SIGTERM drains, with the lame duck that a balancer needs;
/// SIGINT, from a person at a terminal, drains without it; a second signal stops at once.
///
/// # Errors
/// Why the node did not start. A node that has served ends well.
pub fn serve(env: &Env) -> Result<(), Failure> {
    let (mut settings, warnings) = Settings::load(env).map_err(Failure::Settings)?;
    let _log = start_log(&settings)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    actix_rt::System::new().block_on(async move {
        let mut signals = Signals::new()?;
        let node = Node::start(&settings, env)?;
        announce(&node, &settings);
        if signals.next().await == SignalKind::interrupt() {
            settings.lame_duck = std::time::Duration::ZERO;
        }
        let drained = node.drain(settings.lame_duck);
        tokio::select! {
            drained = drained => tracing::info!(cut = drained.cut, left = drained.left, "drained"),
            _ = signals.next() => tracing::warn!("stopped at once by a second signal"),
        }
        Ok(())
    })
}

/// Runs simulated providers until a signal ends them.
///
/// # Errors
/// Why they did not start.
pub fn simulate(env: &Env) -> Result<(), Failure> {
    let (settings, warnings) = Settings::load(env).map_err(Failure::Settings)?;
    let _log = start_log(&settings)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    actix_rt::System::new().block_on(async move {
        let mut signals = Signals::new()?;
        let addr = settings.sim_listen;
        let failed = |source| StartError::Listen { addr, setting: "FLOTILLA_SIM_LISTEN", source };
        let listener = TcpListener::bind(addr).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let server = sim::serve(listener, settings.sim, settings.workers).map_err(failed)?;
        say(&format!("flotilla: simulated providers on http://{addr}/v1 (try GET /v1/models)"));
        let handle = server.handle();
        let server = actix_rt::spawn(server);
        signals.next().await;
        handle.stop(true).await;
        drop(server.await);
        Ok(())
    })
}

fn start_log(settings: &Settings) -> Result<log::Guard, Failure> {
    let format = match settings.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    Ok(log::init(format, &settings.log)?)
}

/// Says where the node serves, and what to try.
fn announce(node: &Node, settings: &Settings) {
    tracing::info!(
        node = settings.node_id,
        data = %node.data,
        admin = %node.admin,
        simulated = node.sim.is_some(),
        "serving"
    );
    if settings.log_format == LogFormat::Json {
        return;
    }
    let Node { data, admin, .. } = node;
    say(&format!("\nflotilla serves http://{data}/v1  (health and metrics: http://{admin})"));
    if node.sim.is_some() {
        say(&format!(
            "No fleet document and no provider key: simulated providers answer. Try:\n\n  \
             curl http://{data}/v1/chat/completions -H 'content-type: application/json' \\\n    \
             -d '{{\"model\": \"sim\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n"
        ));
    }
}

/// Writes a line for a person to the standard error; nobody is hurt where it is closed.
fn say(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// The signals that end a process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}
