//! The rules as data, and what breaks them.

use super::source::Source;

/// Crates that must never be built: a second crypto provider, a second HTTP stack.
pub(crate) const BANNED_CRATES: [&str; 7] =
    ["ring", "openssl", "openssl-sys", "native-tls", "reqwest", "hyper", "hyper-util"];

/// One line of the dependency table.
pub(crate) struct Module {
    /// The module, by its file below `src`.
    pub(crate) name: &'static str,
    /// Whom it may import.
    pub(crate) imports: &'static [&'static str],
    /// Whose settings struct alone, a name that ends in `Config`, it may import.
    pub(crate) configs: &'static [&'static str],
}

const fn module(name: &'static str, imports: &'static [&'static str]) -> Module {
    Module { name, imports, configs: &[] }
}

/// The dependency table: all arrows point up in this list, down in the architecture.
pub(crate) const MODULES: &[Module] = &[
    module("domain", &[]),
    module("policy", &["domain"]),
    module("provider", &["domain"]),
    module("snapshot", &["domain", "policy", "provider"]),
    module("telemetry", &["domain"]),
    module("store", &["domain", "policy", "telemetry"]),
    module("upstream", &["domain", "telemetry"]),
    module(
        "proxy",
        &["domain", "policy", "provider", "snapshot", "telemetry", "store", "upstream"],
    ),
    module("sim", &["domain", "provider"]),
    Module {
        name: "config",
        imports: &["domain", "policy", "provider", "snapshot"],
        configs: &["telemetry", "store", "upstream", "proxy", "sim", "fleet", "api"],
    },
    module(
        "fleet",
        &["domain", "policy", "provider", "snapshot", "telemetry", "store", "upstream", "config"],
    ),
    module(
        "api",
        &[
            "domain",
            "policy",
            "provider",
            "snapshot",
            "telemetry",
            "store",
            "upstream",
            "proxy",
            "config",
            "fleet",
        ],
    ),
    module("cli", &["domain", "config", "upstream", "api"]),
    module(
        "app",
        &[
            "domain",
            "policy",
            "provider",
            "snapshot",
            "telemetry",
            "store",
            "upstream",
            "proxy",
            "sim",
            "config",
            "fleet",
            "api",
            "cli",
        ],
    ),
    module("main", &["domain", "config", "api", "cli", "app"]),
];

/// Where a path of another crate may be used: only there.
const ONLY_IN: &[(&str, &[&str])] = &[
    // For cold paths only: the command line over the admin API, and the refresh of tokens. Requests
    // go by a client of our own (docs/decisions/0002-thin-client.md).
    ("awc", &["upstream", "cli"]),
    ("actix_web", &["api", "sim", "app"]),
    ("redis", &["store"]),
    ("deadpool_redis", &["store"]),
    ("governor", &["store"]),
    ("prometheus_client", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_http", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("tracing_opentelemetry", &["telemetry"]),
    // The command line is main's; clippy.toml keeps variables out of it.
    ("std::env", &["config", "main"]),
    ("std::fs", &["config", "cli", "app"]),
    ("std::io::stdout", &["cli", "app", "main"]),
    ("std::process::exit", &[]),
    ("tokio::signal", &["app"]),
];

/// Modules whose every decision is a function of its arguments.
const PURE: [&str; 4] = ["domain", "policy", "provider", "snapshot"];

/// What has no place in them: runtimes, files, threads, logs.
const IMPURE: [&str; 6] = ["tokio", "actix_rt", "actix_web", "std::fs", "std::thread", "tracing"];

/// Sockets, by their own names, because `std::net` also holds plain addresses.
const SOCKETS: [&str; 4] = ["TcpStream", "TcpListener", "UdpSocket", "UnixStream"];

impl Module {
    /// Its imports as the document shows them.
    pub(crate) fn shown_imports(&self) -> String {
        let configs = self.configs.iter().map(|name| format!("{name}'s Config"));
        let all: Vec<_> = self.imports.iter().map(|&name| name.into()).chain(configs).collect();
        if all.is_empty() { "-".to_owned() } else { all.join(", ") }
    }

    /// Whether it may use this path, whose first part is another module.
    fn may_use(&self, path: &[String]) -> bool {
        let Some(to) = path.first() else { return true };
        let config = || path.get(1).is_some_and(|name| name.ends_with("Config"));
        self.imports.contains(&to.as_str()) || (self.configs.contains(&to.as_str()) && config())
    }
}

/// Every rule that a file breaks, in one line each.
pub(crate) fn broken_rules(source: &Source) -> Vec<String> {
    let Some(top) = source.top() else { return Vec::new() };
    let Some(module) = MODULES.iter().find(|module| module.name == top) else { return Vec::new() };
    let file = source.file();
    let mut broken = Vec::new();
    for path in source.paths() {
        let shown = path.parts.join("::");
        if path.local {
            let to = path.parts.first().map_or("", String::as_str);
            let known = MODULES.iter().any(|module| module.name == to);
            if known && to != top && !module.may_use(&path.parts) {
                broken.push(format!("{file}: {top} -> {to} (crate::{shown})"));
            }
            continue;
        }
        for (only, places) in ONLY_IN {
            if begins(&shown, only) && !places.contains(&top) {
                let places = if places.is_empty() { "nowhere".into() } else { places.join(", ") };
                broken.push(format!("{file}: {only} is used in {top}, and belongs in {places}"));
            }
        }
        if PURE.contains(&top) && !path.in_tests && is_impure(&path.parts, &shown) {
            broken.push(format!("{file}: {top} is pure, and {shown} is not"));
        }
    }
    if PURE.contains(&top) && source.is_async() {
        broken.push(format!("{file}: {top} is pure, and async is not"));
    }
    broken
}

fn begins(path: &str, with: &str) -> bool {
    path.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A runtime, a socket, or any clock: whatever is called `now`.
fn is_impure(parts: &[String], shown: &str) -> bool {
    IMPURE.iter().any(|impure| begins(shown, impure))
        || parts.iter().any(|part| SOCKETS.contains(&part.as_str()))
        || (parts.len() > 1 && parts.last().is_some_and(|last| last == "now"))
}

mod tests {
    use std::path::Path;

    use super::*;

    fn broken(file: &str, text: &str) -> Vec<String> {
        broken_rules(&Source::read(Path::new(file), text))
    }

    #[test]
    fn an_edge_that_points_up_is_named() {
        let edge = ["src/policy/retry.rs: policy -> proxy (crate::proxy::Attempt)"];
        for text in [
            "use crate::proxy::Attempt;",
            "use crate::{domain::Code, proxy::{Attempt}};",
            "fn f(a: crate::proxy::Attempt) {}",
            "use super::super::proxy::Attempt;",
            "mod tests { use super::super::super::proxy::Attempt; }",
            "pub(crate) use crate :: proxy :: Attempt as Other;",
        ] {
            assert_eq!(broken("src/policy/retry.rs", text), edge, "{text}");
        }
    }

    #[test]
    fn an_edge_that_points_down_is_fine() {
        for text in [
            "use crate::domain::Code;",
            "// use crate::proxy::Attempt;",
            "/* crate::proxy::Attempt */ fn f() {}",
            "//! See [`crate::proxy::Attempt`].",
            "const A: &str = \"crate::proxy::Attempt\";",
            "const A: &str = r#\"crate::\"proxy\"::Attempt\"#;",
            "fn f<'a>(a: &'a str) -> char { '\"' } // crate::proxy::A",
            "use super::balance::Strategy;",
        ] {
            assert_eq!(broken("src/policy/retry.rs", text), [""; 0], "{text}");
        }
        let submodule = "mod config; mod tests { use super::config::Config; }";
        assert_eq!(broken("src/sim.rs", submodule), [""; 0]);
    }

    #[test]
    fn settings_may_be_imported_where_nothing_else_may() {
        assert_eq!(broken("src/config.rs", "use crate::sim::Config;"), [""; 0]);
        let edge = ["src/config.rs: config -> sim (crate::sim::serve)"];
        assert_eq!(broken("src/config.rs", "use crate::sim::serve;"), edge);
    }

    #[test]
    fn what_has_one_place_is_refused_elsewhere() {
        for (file, text) in [
            ("src/proxy/attempt.rs", "use awc::Client;"),
            ("src/proxy.rs", "fn f(r: actix_web::HttpResponse) {}"),
            ("src/api.rs", "use std::{env, io};"),
            ("src/app.rs", "fn f() { std::process::exit(1) }"),
        ] {
            assert_eq!(broken(file, text).len(), 1, "{file}: {text}");
        }
        assert_eq!(broken("src/upstream/token.rs", "use awc::Client;"), [""; 0]);
        assert_eq!(broken("src/api.rs", "use actix_web::HttpResponse;"), [""; 0]);
        assert_eq!(broken("src/proxy.rs", "use awcish::Client;"), [""; 0]);
    }

    #[test]
    fn a_pure_module_has_no_clock_no_task_and_no_socket() {
        for text in [
            "fn f() { let now = Instant::now(); }",
            "fn f() { std::time::SystemTime::now(); }",
            "async fn f() {}",
            "use tokio::time::sleep;",
            "use std::net::{IpAddr, TcpStream};",
            "fn f() { tracing::info!(\"x\") }",
        ] {
            assert_eq!(broken("src/policy/retry.rs", text).len(), 1, "{text}");
        }
        for text in [
            "fn f(now: Instant) {}",
            "use std::net::IpAddr;",
            "fn f() {}\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }",
        ] {
            assert_eq!(broken("src/policy/retry.rs", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn lines_of_tests_and_blank_lines_do_not_count() {
        let text = "//! why\n\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
        assert_eq!(Source::read(Path::new("src/policy.rs"), text).code_lines(), 2);
    }
}
