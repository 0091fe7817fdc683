//! Settings from defaults, file and environment.

use std::time::Duration;

use flotilla::config::{
    Document, Env, Format, LogFormat, SETTINGS_REFERENCE, Settings, compile, exposure_faults,
};

use super::scratch::Scratch;

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().copied().collect()
}

fn good(pairs: &[(&str, &str)]) -> Settings {
    Settings::load(&env(pairs)).expect("the settings are good").0
}

fn faults(pairs: &[(&str, &str)]) -> Vec<String> {
    let faults = Settings::load(&env(pairs)).err().unwrap_or_default();
    faults.iter().map(ToString::to_string).collect()
}

fn warnings(pairs: &[(&str, &str)]) -> Vec<String> {
    let (_, warnings) = Settings::load(&env(pairs)).expect("the settings are good");
    warnings.iter().map(ToString::to_string).collect()
}

/// The keys of the embedded defaults.
fn keys() -> Vec<&'static str> {
    let keys = SETTINGS_REFERENCE.lines().filter(|line| !line.starts_with('#'));
    keys.filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect()
}

#[test]
fn defaults_are_those_of_the_interface() {
    let settings = good(&[]);
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.sim_listen.to_string(), "127.0.0.1:8090");
    assert_eq!(settings.admin_url, "http://127.0.0.1:9090");
    assert!(settings.admin_token.is_none() && settings.config.is_none());
    assert!(settings.zone.is_none() && settings.region.is_none());
    assert!(settings.workers >= 1);
    assert_eq!((settings.log.as_str(), settings.log_format), ("info", LogFormat::Text));
    assert_eq!(settings.lame_duck, Duration::from_secs(10));
    assert_eq!(settings.drain_limit, Duration::from_secs(600));
    assert_eq!((settings.body_limit, settings.body_budget), (64 << 20, 1 << 30));
    assert_eq!(settings.head_timeout, Duration::from_secs(10));
    assert_eq!(settings.body_stall, Duration::from_secs(30));
    assert_eq!(settings.write_stall, Duration::from_secs(60));
    assert!(settings.trusted_proxies.is_empty() && settings.cors_origins.is_empty());
}

#[test]
fn every_name_of_the_interface_is_known() {
    let names = "LISTEN ADMIN_LISTEN ADMIN_TOKEN REDIS_URL REDIS_PREFIX REDIS_DEADLINE REDIS_TLS_CA \
        REDIS_TLS_CERT REDIS_TLS_KEY CONFIG CONFIG_APPLY STATE_DIR MAX_STALE NODE_ID ZONE REGION \
        WORKERS LOG LOG_FORMAT LAME_DUCK DRAIN_LIMIT LEASE_TTL TICK NODE_TTL BODY_LIMIT \
        BODY_BUDGET HEAD_TIMEOUT BODY_STALL WRITE_STALL TRUSTED_PROXIES SECRET_KEY SIM_LISTEN \
        ADMIN_URL CORS_ORIGINS SIM_FIRST_TOKEN SIM_TOKEN_INTERVAL SIM_TOKENS SIM_TOKEN_BYTES \
        SIM_JITTER SIM_ERROR_RATE SIM_RETRY_AFTER SIM_SLOW_FIRST_TOKEN SIM_FAULT_AFTER SIM_SEED";
    let mut names: Vec<_> = names.split_whitespace().map(str::to_lowercase).collect();
    let mut known = keys();
    names.sort();
    known.sort_unstable();
    assert_eq!(names, known);
}

#[test]
fn the_environment_goes_before_the_file_and_the_file_before_the_defaults() {
    let scratch = Scratch::new();
    let file = "listen = \"127.0.0.1:1\"\nworkers = 3\nsim_jitter = 0.5\nsim_seed = 7\nlame_duck = \"0s\"\n\
        trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\ncors_origins = \"https://A.example\"\n";
    let file = scratch.write("node.toml", file);
    let file = file.to_str().expect("the path is text");
    let settings = good(&[("FLOTILLA_SETTINGS", file), ("FLOTILLA_LISTEN", "127.0.0.1:2")]);
    assert_eq!(settings.listen.port(), 2);
    assert_eq!((settings.workers, settings.lame_duck), (3, Duration::ZERO));
    assert_eq!(settings.trusted_proxies.len(), 2);
    assert_eq!(settings.cors_origins, ["https://a.example"]);
    assert_eq!(settings.admin_listen.port(), 9090);
    assert_eq!((settings.sim.jitter, settings.sim.seed), (0.5, Some(7)));
    assert_eq!((settings.sim.tokens, settings.sim.token_bytes), (16, None));
    let settings = good(&[
        ("FLOTILLA_TRUSTED_PROXIES", "10.0.0.0/8, 192.168.1.1"),
        ("FLOTILLA_CORS_ORIGINS", "http://localhost:3000,https://b.example"),
        ("FLOTILLA_NODE_ID", "n1"),
        ("FLOTILLA_LOG", "warn,flotilla::proxy=debug"),
        ("FLOTILLA_LOG_FORMAT", "json"),
    ]);
    assert_eq!(settings.trusted_proxies[1].to_string(), "192.168.1.1/32");
    assert_eq!(settings.cors_origins.len(), 2);
    assert_eq!((settings.node_id.as_str(), settings.log_format), ("n1", LogFormat::Json));
}

#[test]
fn all_faults_are_collected_and_name_their_variable() {
    let faults = faults(&[
        ("FLOTILLA_LISTEN", "8080"),
        ("FLOTILLA_WORKERS", "-1"),
        ("FLOTILLA_LOG", "inof"),
        ("FLOTILLA_LOG_FORMAT", "xml"),
        ("FLOTILLA_LAME_DUCK", "10"),
        ("FLOTILLA_HEAD_TIMEOUT", "0s"),
        ("FLOTILLA_DRAIN_LIMIT", "2d"),
        ("FLOTILLA_BODY_LIMIT", "64"),
        ("FLOTILLA_BODY_BUDGET", "1MiB"),
        ("FLOTILLA_TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.0/33"),
        ("FLOTILLA_CORS_ORIGINS", "*,https://a.example/path"),
        ("FLOTILLA_NODE_ID", "my node"),
        ("FLOTILLA_ADMIN_TOKEN", "can\u{e9}ary"),
        ("FLOTILLA_ADMIN_URL", "nowhere"),
        ("FLOTILLA_SIM_ERROR_RATE", "5"),
    ]);
    let names: Vec<_> =
        faults.iter().filter_map(|f| f.split_once(": ")).map(|(name, _)| name).collect();
    let expected = [
        "FLOTILLA_LISTEN",
        "FLOTILLA_ADMIN_TOKEN",
        "FLOTILLA_ADMIN_URL",
        "FLOTILLA_NODE_ID",
        "FLOTILLA_WORKERS",
        "FLOTILLA_LOG",
        "FLOTILLA_LOG_FORMAT",
        "FLOTILLA_LAME_DUCK",
        "FLOTILLA_DRAIN_LIMIT",
        "FLOTILLA_BODY_LIMIT",
        "FLOTILLA_HEAD_TIMEOUT",
        "FLOTILLA_TRUSTED_PROXIES",
        "FLOTILLA_CORS_ORIGINS",
        "FLOTILLA_CORS_ORIGINS",
        "FLOTILLA_SIM_ERROR_RATE",
        "FLOTILLA_BODY_BUDGET",
    ];
    assert_eq!(names, expected, "{faults:#?}");
    assert!(faults[7].contains("has no unit") && faults[9].contains("has no unit"), "{faults:#?}");
    assert!(!faults.concat().contains("ary"), "{faults:#?}");
}

#[test]
fn explicit_zeros_are_honoured() {
    let settings = good(&[
        ("FLOTILLA_LAME_DUCK", "0s"),
        ("FLOTILLA_DRAIN_LIMIT", "0ms"),
        ("FLOTILLA_WORKERS", "0"),
        ("FLOTILLA_LISTEN", "127.0.0.1:0"),
        ("FLOTILLA_ADMIN_LISTEN", "127.0.0.1:0"),
    ]);
    assert_eq!((settings.lame_duck, settings.drain_limit), (Duration::ZERO, Duration::ZERO));
    assert!(settings.workers >= 1 && settings.listen.port() == 0);
}

// T12: a letter changed in any setting is named.
#[test]
fn a_slip_in_any_variable_is_a_warning_with_a_suggestion() {
    for key in keys() {
        let name = format!("FLOTILLA_{}", key.to_uppercase());
        for at in "FLOTILLA_".len()..name.len() {
            let mut slip = name.clone();
            slip.replace_range(at..=at, "Q");
            let warnings = warnings(&[(&slip, "x")]);
            let expected = format!("{slip}: is not a setting and is ignored; did you mean {name}?");
            assert_eq!(warnings, [expected]);
        }
    }
    assert!(warnings(&[("FLOTILLA_PORT", "x"), ("FLOTILLA_PORT_8080_TCP", "x")]).is_empty());
    assert!(warnings(&[("FLOTILLA_SERVICE_HOST", "x"), ("PATH", "x")]).is_empty());
    assert!(warnings(&[("FLOTILLA_A__B", "x")])[0].starts_with("FLOTILLA_A__B: is not a setting"));
}

// T12: a letter changed in any key of the settings file is a fault that names it.
#[test]
fn a_slip_in_any_key_of_the_file_is_a_fault() {
    let scratch = Scratch::new();
    for key in keys() {
        for at in 0..key.len() {
            let mut slip = key.to_owned();
            slip.replace_range(at..=at, "q");
            let line = format!("\n{key} = ");
            let text = SETTINGS_REFERENCE.replace(&line, &format!("\n{slip} = "));
            let file = scratch.write("node.toml", &text);
            let faults = faults(&[("FLOTILLA_SETTINGS", file.to_str().expect("it is text"))]);
            assert_eq!(faults.len(), 1, "{slip}: {faults:?}");
            let expected = format!("unknown setting `{slip}`; did you mean `{key}`?");
            assert!(faults[0].contains(&expected), "{faults:?}");
        }
    }
}

#[test]
fn faults_of_the_file_name_file_key_and_place() {
    let scratch = Scratch::new();
    let read = |text: &str| {
        let file = scratch.write("node.toml", text);
        let file = file.to_str().expect("it is text").to_owned();
        let faults = faults(&[("FLOTILLA_SETTINGS", &file)]);
        faults.iter().map(|fault| fault.replace(&file, "FILE")).collect::<Vec<_>>()
    };
    assert_eq!(
        read("body_stall = 30\nlog = [1]\n")[1],
        "body_stall in FILE: \"30\" has no unit; write for instance 10s or 250ms; the default is 30s"
    );
    assert_eq!(
        read("\n\nFLOTILLA_LISTEN = \"x\"\n[listen]\nb = 1\n"),
        [
            "FILE:3:1: unknown setting `FLOTILLA_LISTEN`; did you mean `listen`?",
            "FILE:5:1: unknown setting `listen.b`; did you mean `listen`?",
        ]
    );
    assert!(
        read("admin_token = \"canary\" canary\n")
            .iter()
            .all(|fault| { fault.starts_with("FILE:1:") && !fault.contains("canary") })
    );
    let missing = faults(&[("FLOTILLA_SETTINGS", "/nowhere.toml"), ("FLOTILLA_LOG", "x")]);
    assert_eq!(missing.len(), 2);
    assert!(missing[0].starts_with("FLOTILLA_SETTINGS (/nowhere.toml): cannot be read"));
}

#[test]
fn what_is_not_served_yet_is_refused_unless_it_is_the_default() {
    for (name, value) in [
        ("FLOTILLA_CONFIG_APPLY", "true"),
        ("FLOTILLA_MAX_STALE", "2h"),
        ("FLOTILLA_SECRET_KEY", "x"),
    ] {
        let faults = faults(&[(name, value)]);
        assert_eq!(faults, [format!("{name}: not served yet; leave it unset for now")]);
    }
    good(&[("FLOTILLA_MAX_STALE", "1h"), ("FLOTILLA_CONFIG_APPLY", "false")]);
    let faults = faults(&[("FLOTILLA_REDIS_URL", "redis+sentinel://u:canary@h:26379/master")]);
    assert!(faults.len() == 1 && faults[0].contains("Sentinel is not served yet"), "{faults:?}");
    assert!(!faults.concat().contains("canary"), "{faults:?}");
}

#[test]
fn the_settings_of_the_store_are_read() {
    let store = good(&[]).store;
    assert!(store.redis.is_none() && store.state_dir.is_none());
    let ms = Duration::from_millis;
    assert_eq!((store.lease_ttl, store.tick, store.node_ttl), (ms(10_000), ms(250), ms(2500)));
    let scratch = Scratch::new();
    let dir = scratch.write("x", "").parent().expect("it is in one").to_owned();
    let settings = good(&[
        ("FLOTILLA_REDIS_URL", "redis+cluster://node:canary@a:7000,b:7001"),
        ("FLOTILLA_REDIS_PREFIX", "fleet-2"),
        ("FLOTILLA_REDIS_DEADLINE", "80ms"),
        ("FLOTILLA_LEASE_TTL", "4s"),
        ("FLOTILLA_TICK", "1s"),
        ("FLOTILLA_NODE_TTL", "1001ms"),
        ("FLOTILLA_STATE_DIR", dir.to_str().expect("it is text")),
    ]);
    assert!(!format!("{settings:?}").contains("canary"), "{settings:?}");
    let store = settings.store;
    assert_eq!((store.lease_ttl, store.tick, store.node_ttl), (ms(4000), ms(1000), ms(1001)));
    assert_eq!(store.state_dir, Some(dir));
    let redis = store.redis.expect("it is set");
    assert_eq!((redis.prefix.as_str(), redis.deadline), ("fleet-2", ms(80)));
    assert_eq!(redis.url.to_string(), "redis+cluster://a:7000,b:7001");
    assert_eq!(redis.url.expose().expose(), "redis+cluster://node:canary@a:7000,b:7001");
    assert_eq!(redis.url.password.as_ref().map(|secret| secret.expose()), Some("canary"));
    assert!(redis.tls_ca.is_none() && redis.tls_client.is_none());
}

#[test]
fn clocks_of_the_store_that_cannot_work_are_refused() {
    for (name, value, what) in [
        ("FLOTILLA_NODE_TTL", "250ms", "a node would be lost between two heartbeats"),
        ("FLOTILLA_LEASE_TTL", "999ms", "leases would end before they are renewed"),
        ("FLOTILLA_REDIS_DEADLINE", "2501ms", "leases would end before they are renewed"),
        ("FLOTILLA_TICK", "9ms", "must be at least 10ms"),
        ("FLOTILLA_REDIS_DEADLINE", "0ms", "must be above 0s"),
        ("FLOTILLA_REDIS_DEADLINE", "11s", "must be at most 10s"),
        ("FLOTILLA_REDIS_PREFIX", "a {b}", "must be 1 to 128 letters"),
        ("FLOTILLA_STATE_DIR", "/nowhere/at/all", "not a directory"),
    ] {
        let faults = faults(&[(name, value)]);
        assert!(faults[0].contains(what), "{name}: {faults:?}");
    }
}

#[test]
fn files_of_tls_are_read_and_go_with_rediss_only() {
    let scratch = Scratch::new();
    let pair = rcgen::generate_simple_self_signed(["node".to_owned()]).expect("a certificate");
    let write =
        |name: &str, text: &str| scratch.write(name, text).to_str().expect("it is text").to_owned();
    let cert = write("cert.pem", &pair.cert.pem());
    let key = write("key.pem", &pair.signing_key.serialize_pem());
    let (ca_is, cert_is) = (("FLOTILLA_REDIS_TLS_CA", &*cert), ("FLOTILLA_REDIS_TLS_CERT", &*cert));
    let (key_is, url) = (("FLOTILLA_REDIS_TLS_KEY", &*key), ("FLOTILLA_REDIS_URL", "rediss://h"));
    let redis = good(&[url, ca_is, cert_is, key_is]).store.redis.expect("it is set");
    assert_eq!(redis.tls_ca.as_deref(), Some(pair.cert.pem().as_bytes()));
    let client = redis.tls_client.as_ref().expect("both are set");
    assert_eq!(client.key.expose(), pair.signing_key.serialize_pem());
    assert!(!format!("{redis:?}").contains("PRIVATE KEY"));

    assert_eq!(
        faults(&[url, cert_is]),
        ["FLOTILLA_REDIS_TLS_KEY: is not set; a client certificate and its key come together"]
    );
    let plain = faults(&[("FLOTILLA_REDIS_URL", "redis://h"), ca_is]);
    assert!(plain[0].contains("Redis is not spoken to over TLS"), "{plain:?}");
    assert!(faults(&[ca_is])[0].contains("Redis is not spoken to over TLS"));
    for (name, file, what) in [
        ("FLOTILLA_REDIS_TLS_CA", &*key, "holds no certificate in PEM"),
        ("FLOTILLA_REDIS_TLS_CA", "/nowhere.pem", "cannot be read"),
    ] {
        let faults = faults(&[url, (name, file)]);
        assert!(faults[0].contains(what) && faults.len() == 1, "{faults:?}");
    }
    let swapped = faults(&[url, cert_is, ("FLOTILLA_REDIS_TLS_KEY", &*cert)]);
    assert_eq!(swapped.len(), 1, "{swapped:?}");
    assert!(swapped[0].contains("holds no private key in PEM"), "{swapped:?}");
}

#[test]
fn an_exposed_listener_needs_keys_or_a_token() {
    let faults = faults(&[("FLOTILLA_ADMIN_LISTEN", "0.0.0.0:9090")]);
    assert!(faults[0].starts_with("FLOTILLA_ADMIN_LISTEN: can be reached from elsewhere"));
    assert!(faults[0].contains("set FLOTILLA_ADMIN_TOKEN"), "{faults:?}");
    let settings = good(&[
        ("FLOTILLA_ADMIN_LISTEN", "[::]:9090"),
        ("FLOTILLA_ADMIN_TOKEN", "canary"),
        ("FLOTILLA_LISTEN", "0.0.0.0:8080"),
    ]);
    assert!(!format!("{settings:?}").contains("canary"));
    let snapshot = |keys: &str| {
        let text = format!("{}{keys}", super::ONE_POOL);
        let document = Document::parse("doc", Format::Yaml, text.as_bytes()).expect("it is good");
        compile(&document, &Env::default(), 1).expect("it compiles").0
    };
    let open = exposure_faults(&settings, &snapshot(""));
    assert!(open[0].to_string().contains("FLOTILLA_LISTEN: 0.0.0.0:8080 can be reached"));
    assert!(exposure_faults(&settings, &snapshot("keys: [{ name: a, key: abc }]\n")).is_empty());
    assert!(exposure_faults(&good(&[]), &snapshot("")).is_empty());
    let same = [("FLOTILLA_LISTEN", "127.0.0.1:7"), ("FLOTILLA_ADMIN_LISTEN", "127.0.0.1:7")];
    assert_eq!(super::settings::faults(&same).len(), 1);
}

#[test]
fn nodes_on_one_host_have_different_ids() {
    let host = [("HOSTNAME", "web-1")];
    let (a, b) = (good(&host).node_id, good(&host).node_id);
    assert!(a.starts_with("web-1-") && a != b, "{a} {b}");
}
