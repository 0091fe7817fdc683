//! A node's settings: embedded defaults, then a TOML file, then the environment.
//!
//! Unlike the fleet document they are a node's own, and read once. Everything wrong with them is
//! reported together, before any port is bound.

mod layers;
mod otel;
mod parse;
mod reader;
mod redis_url;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::env::Env;
use super::fault::{Fault, Warning};
use crate::domain::Secret;
use crate::sim::Config as SimConfig;
use crate::snapshot::Snapshot;
use crate::telemetry::TraceConfig;
use parse::{DAY, HOUR};
use reader::Reader;

pub use redis_url::RedisUrl;
pub use store::{RedisSettings, StoreSettings, TlsClient};

/// All settings with their meanings and defaults: the embedded file itself.
pub const SETTINGS_REFERENCE: &str = include_str!("settings.default.toml");

/// Settings whose machinery does not exist yet: refused where they differ from the default.
const NOT_SERVED: [&str; 3] = ["config_apply", "max_stale", "secret_key"];

/// The settings of a node, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data listener.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin_listen: SocketAddr,
    /// The bootstrap admin token.
    pub admin_token: Option<Secret>,
    /// Where client commands find the admin listener.
    pub admin_url: String,
    /// Where state is kept that a fleet shares.
    pub store: StoreSettings,
    /// The fleet document.
    pub config: Option<PathBuf>,
    /// The node's id: visible ASCII.
    pub node_id: String,
    /// Zone label.
    pub zone: Option<String>,
    /// Region label.
    pub region: Option<String>,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Levels to log, in the words of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// How logs are written.
    pub log_format: LogFormat,
    /// Where traces go; none where the standard variables name no collector.
    pub traces: Option<TraceConfig>,
    /// Unready but serving.
    pub lame_duck: Duration,
    /// The longest wait for requests in flight.
    pub drain_limit: Duration,
    /// The largest body in bytes.
    pub body_limit: usize,
    /// Bytes of all bodies in flight.
    pub body_budget: usize,
    /// The longest wait for a head.
    pub head_timeout: Duration,
    /// The longest silence within a body.
    pub body_stall: Duration,
    /// The longest that a client may read nothing.
    pub write_stall: Duration,
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins that browsers may call from, as they send them: lower case, no slash at the end.
    pub cors_origins: Vec<String>,
    /// The simulated providers.
    pub sim_listen: SocketAddr,
    /// How they behave.
    pub sim: SimConfig,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Settings {
    /// Reads all settings from `env` and the file that it names. Blocks on that file.
    ///
    /// # Errors
    /// Every fault there is.
    pub fn load(env: &Env) -> Result<(Self, Vec<Warning>), Vec<Fault>> {
        let mut read = Reader::new(env);
        let above_zero = Duration::from_millis(1);
        let mut settings = Self {
            listen: read.with("listen", parse::address),
            admin_listen: read.with("admin_listen", parse::address),
            admin_token: read.secret("admin_token", parse::header_text),
            admin_url: read.with("admin_url", parse::url),
            store: store::store(&mut read),
            config: read.optional("config").map(PathBuf::from),
            node_id: read.optional_with("node_id", parse::label).unwrap_or_else(|| node_id(env)),
            traces: None,
            zone: read.optional_with("zone", parse::label),
            region: read.optional_with("region", parse::label),
            workers: read.workers("workers"),
            log: read.with("log", parse::log),
            log_format: read.with("log_format", parse::log_format),
            lame_duck: read.duration("lame_duck", Duration::ZERO, HOUR),
            drain_limit: read.duration("drain_limit", Duration::ZERO, DAY),
            body_limit: read.size("body_limit"),
            body_budget: read.size("body_budget"),
            head_timeout: read.duration("head_timeout", above_zero, HOUR),
            body_stall: read.duration("body_stall", above_zero, DAY),
            write_stall: read.duration("write_stall", above_zero, DAY),
            trusted_proxies: read.list("trusted_proxies", parse::network),
            cors_origins: read.list("cors_origins", parse::origin),
            sim_listen: read.with("sim_listen", parse::address),
            sim: SimConfig {
                first_token: read.duration("sim_first_token", Duration::ZERO, HOUR),
                token_interval: read.duration("sim_token_interval", Duration::ZERO, HOUR),
                tokens: read.with("sim_tokens", parse::number),
                token_bytes: read.optional_with("sim_token_bytes", parse::number),
                jitter: read.with("sim_jitter", parse::share),
                error_rate: read.with("sim_error_rate", parse::share),
                retry_after: read.duration("sim_retry_after", Duration::ZERO, DAY),
                slow_first_token: read.duration("sim_slow_first_token", Duration::ZERO, HOUR),
                fault_after: read.optional_with("sim_fault_after", parse::number),
                seed: read.optional_with("sim_seed", parse::number),
            },
        };
        settings.traces = otel::read(&mut read, env, &settings.node_id);
        read.duration("max_stale", above_zero, 30 * DAY);
        read.truth("config_apply");
        read.optional("secret_key");
        NOT_SERVED.iter().for_each(|name| read.refuse(name));
        settings.together(&mut read);
        read.finish(settings)
    }

    /// What two settings say about each other.
    fn together(&self, read: &mut Reader) {
        if self.body_budget < self.body_limit {
            let hint = "set it to at least FLOTILLA_BODY_LIMIT";
            read.fault("body_budget", "less than one body may have", Some(hint));
        }
        if self.listen == self.admin_listen && self.listen.port() != 0 {
            let hint = "give each listener its own port";
            read.fault("admin_listen", "the same as FLOTILLA_LISTEN", Some(hint));
        }
        if !self.admin_listen.ip().is_loopback() && self.admin_token.is_none() {
            let what = "can be reached from elsewhere, and FLOTILLA_ADMIN_TOKEN is not set";
            let hint = "set FLOTILLA_ADMIN_TOKEN, or let it be a loopback address";
            read.fault("admin_listen", what, Some(hint));
        }
    }

    /// Whether the data listener can be reached from elsewhere, so that keys are needed.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !self.listen.ip().is_loopback()
    }
}

/// What makes it unsafe to serve this configuration with these settings: a data listener that can
/// be reached from elsewhere, and no keys. (The admin listener's token is checked by
/// `Settings::load`.)
#[must_use]
pub fn exposure_faults(settings: &Settings, snapshot: &Snapshot) -> Vec<Fault> {
    if !settings.is_exposed() || snapshot.has_keys() {
        return Vec::new();
    }
    vec![Fault {
        name: "FLOTILLA_LISTEN".to_owned(),
        what: format!(
            "{} can be reached from elsewhere, and no keys are configured",
            settings.listen
        ),
        hint: Some(
            "add keys to the fleet document that FLOTILLA_CONFIG names, or listen on a loopback \
             address such as 127.0.0.1:8080"
                .to_owned(),
        ),
    }]
}

/// The host's name and a random part, so that two nodes never share an id by accident.
fn node_id(env: &Env) -> String {
    let file = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = env.get("HOSTNAME").map(str::to_owned).or_else(file).unwrap_or_default();
    let host = parse::label(host.trim()).unwrap_or_else(|_| "node".to_owned());
    let mut random = [0; 4];
    aws_lc_rs::rand::fill(&mut random).expect("the random source of the system does not fail");
    format!("{host}-{:08x}", u32::from_le_bytes(random))
}
