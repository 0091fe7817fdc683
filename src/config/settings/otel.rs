//! The standard `OTEL_*` variables, as far as traces go.
//!
//! Their names and meanings are OpenTelemetry's, so they are read from the environment alone. Where
//! no endpoint is set there are no traces, and nothing else of them is looked at.

use std::str::FromStr;
use std::time::Duration;

use super::parse::{Parsed, header_text};
use super::reader::Reader;
use crate::config::env::Env;
use crate::config::fault::shown;
use crate::domain::{BaseUrl, Secret};
use crate::telemetry::{SamplerConfig, TraceConfig};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";
const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// What would change traces elsewhere and does nothing here.
const NOT_SERVED: [&str; 10] = [
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_CONFIG_FILE",
];

/// A span takes one to two KiB, so that this bounds them to some 100 MiB.
const MOST_SPANS: usize = 65_536;
/// The longest time-out and delay.
const LONGEST: Duration = Duration::from_secs(300);

/// Where traces go, if anywhere; `node` is this node's id.
pub(super) fn read(read: &mut Reader, env: &Env, node: &str) -> Option<TraceConfig> {
    for signal in ["METRICS", "LOGS"] {
        let name = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        if env.get(&name).is_some() {
            let hint = "metrics are at /metrics of the admin listener, logs on stderr";
            read.warn(&name, "is ignored: only traces are exported", Some(hint.to_owned()));
        }
    }
    let endpoint = endpoint(read, env)?;
    for name in NOT_SERVED.into_iter().filter(|name| env.get(name).is_some()) {
        read.warn(name, "is not served and is ignored", None);
    }
    protocol(read, env);
    let queue = number(read, env, QUEUE, 2048, MOST_SPANS);
    Some(TraceConfig {
        endpoint,
        headers: headers(read, env),
        timeout: milliseconds(read, env, &TIMEOUT, 10_000),
        sampler: sampler(read, env),
        resource: resource(read, env, node),
        queue,
        batch: number(read, env, BATCH, 512, MOST_SPANS).min(queue),
        delay: milliseconds(read, env, &[DELAY], 5000),
    })
}

/// The URL of the collector; none where traces are off.
fn endpoint(read: &mut Reader, env: &Env) -> Option<BaseUrl> {
    let name = [TRACES_ENDPOINT, ENDPOINT].into_iter().find(|name| env.get(name).is_some())?;
    let disabled = env.get(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
    match env.get(EXPORTER).map(str::trim) {
        _ if disabled => return None,
        Some("none") => return None,
        None | Some("otlp") => {}
        Some(_) => fault(read, EXPORTER, "not otlp or none".to_owned(), "leave it unset"),
    }
    let mut text = env.get(name)?.trim().to_owned();
    if name == ENDPOINT {
        text = format!("{}/v1/traces", text.trim_end_matches('/'));
    }
    match text.parse() {
        Ok(url) => Some(url),
        // The text may hold a password.
        Err(_) => {
            let what = "not an http or https URL without a user, a query or a fragment".to_owned();
            fault(read, name, what, "set it to a collector, such as http://127.0.0.1:4318");
            None
        }
    }
}

fn protocol(read: &mut Reader, env: &Env) {
    let Some((name, text)) = first(env, &PROTOCOL) else { return };
    if text != "http/protobuf" {
        let what = format!("\"{}\" is not served, only http/protobuf", shown(text));
        let hint = "set it to http/protobuf, and the endpoint to the collector's port for HTTP, \
            usually 4318";
        fault(read, name, what, hint);
    }
}

fn headers(read: &mut Reader, env: &Env) -> Vec<(String, Secret)> {
    let Some((name, text)) = first(env, &HEADERS) else { return Vec::new() };
    let mut headers = Vec::new();
    let ours = ["content-type", "content-length", "host", "connection", "transfer-encoding"];
    for (key, value) in pairs(text) {
        let key = key.to_ascii_lowercase();
        let is_name = !key.is_empty()
            && !ours.contains(&key.as_str())
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        let words = value.split(' ').all(|word| header_text(word).is_ok());
        if is_name && words {
            headers.push((key, Secret::new(value)));
        } else {
            // What stands there is likely a credential.
            let what = "holds something else than name=value, separated by commas".to_owned();
            fault(read, name, what, "write a space in a value as %20");
        }
    }
    headers
}

fn sampler(read: &mut Reader, env: &Env) -> SamplerConfig {
    let name = env.get(SAMPLER).unwrap_or("parentbased_always_on").trim();
    let (parent_based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio(read, env),
        _ => {
            let what = format!("\"{}\" is no sampler", shown(name));
            let hint = "use always_on, always_off or traceidratio, or one of them with \
                parentbased_ before it";
            fault(read, SAMPLER, what, hint);
            0.0
        }
    };
    SamplerConfig { parent_based, ratio }
}

fn ratio(read: &mut Reader, env: &Env) -> f64 {
    let Some(text) = env.get(SAMPLER_ARG) else { return 1.0 };
    super::parse::share(text.trim()).unwrap_or_else(|what| {
        fault(read, SAMPLER_ARG, what, "0.01 traces one request in a hundred");
        1.0
    })
}

/// What the traces say of this process: the operator's attributes before our own.
fn resource(read: &mut Reader, env: &Env, node: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (key, value) in env.get(RESOURCE).map(pairs).unwrap_or_default() {
        if key.is_empty() {
            let what = "holds something else than name=value, separated by commas".to_owned();
            fault(read, RESOURCE, what, "such as deployment.environment.name=prod");
        } else {
            all.retain(|(known, _)| *known != key);
            all.push((key, value));
        }
    }
    if let Some(name) = env.get(SERVICE_NAME) {
        all.retain(|(key, _)| key != "service.name");
        all.push(("service.name".to_owned(), name.to_owned()));
    }
    let own = [
        ("service.name", "flotilla"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", node),
    ];
    for (key, value) in own {
        if !all.iter().any(|(known, _)| known == key) {
            all.push((key.to_owned(), value.to_owned()));
        }
    }
    all
}

fn number(read: &mut Reader, env: &Env, name: &str, default: usize, most: usize) -> usize {
    let Some(text) = env.get(name) else { return default };
    let number = usize::from_str(text.trim()).ok().filter(|number| (1..=most).contains(number));
    number.unwrap_or_else(|| {
        let what = format!("\"{}\" is not a number from 1 to {most}", shown(text));
        fault(read, name, what, &format!("the default is {default}"));
        default
    })
}

fn milliseconds(read: &mut Reader, env: &Env, names: &[&str], default: u64) -> Duration {
    let Some((name, text)) = first(env, names) else { return Duration::from_millis(default) };
    let time = u64::from_str(text.trim()).ok().map(Duration::from_millis);
    let time = time.filter(|time| !time.is_zero() && *time <= LONGEST);
    time.unwrap_or_else(|| {
        let most = LONGEST.as_millis();
        let what = format!("\"{}\" is not a number of milliseconds from 1 to {most}", shown(text));
        fault(read, name, what, &format!("the default is {default}"));
        Duration::from_millis(default)
    })
}

/// The first of these variables that is set.
fn first<'a>(env: &'a Env, names: &[&'a str]) -> Option<(&'a str, &'a str)> {
    names.iter().find_map(|name| Some((*name, env.get(name)?.trim())))
}

/// `name=value` pairs, separated by commas, each percent-encoded. What has no `=` comes with an
/// empty name.
fn pairs(text: &str) -> Vec<(String, String)> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let pair = |item: &str| match item.split_once('=') {
        Some((key, value)) => Some((decoded(key.trim()).ok()?, decoded(value.trim()).ok()?)),
        None => None,
    };
    items.map(|item| pair(item).unwrap_or_default()).collect()
}

/// A text without its percent encoding.
fn decoded(text: &str) -> Parsed<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let escaped = after.split_at_checked(2).filter(|_| *byte == b'%');
        let escaped = escaped.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        match escaped {
            Some((byte, after)) => {
                bytes.push(byte);
                rest = after;
            }
            None => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}

fn fault(read: &mut Reader, name: &str, what: String, hint: &str) {
    read.push(name.to_owned(), what, Some(hint.to_owned()));
}
