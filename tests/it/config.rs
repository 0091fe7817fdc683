//! Tests of settings and fleet documents: through the library, the command and its files.

mod corpus;
mod limits;
mod mutated;
mod otel;
mod reload;
mod scratch;
mod settings;

use std::process::{Command, Output};

use flotilla::config::{Document, Env, Format, compile, default_document, json_schema};
use flotilla::snapshot::Snapshot;

/// The whole message of a document that must be refused.
fn faults(text: &str) -> String {
    let document = Document::parse("doc.yaml", Format::Yaml, text.as_bytes());
    let faults = document.err().unwrap_or_default();
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

fn document(format: Format, text: &str) -> Document {
    Document::parse("doc", format, text.as_bytes()).expect("the document is good")
}

fn compiled(text: &str, env: &[(&str, &str)]) -> (Snapshot, Vec<String>) {
    let env: Env = env.iter().copied().collect();
    let (snapshot, warnings) =
        compile(&document(Format::Yaml, text), &env, 1).expect("the document compiles");
    (snapshot, warnings.iter().map(ToString::to_string).collect())
}

const ONE_POOL: &str = "
providers: { openai: { protocol: openai, api_key: '${OPENAI_API_KEY}' } }
targets: { gpt: { provider: openai } }
pools: { fast: { tiers: [[gpt]] } }
";

fn flotilla(arguments: &[&str]) -> Output {
    let binary = env!("CARGO_BIN_EXE_flotilla");
    Command::new(binary).args(arguments).env_clear().output().expect("the binary starts")
}

#[test]
fn check_says_ok_for_a_good_document() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/flotilla.yaml");
    let output = flotilla(&["check", file]);
    assert_eq!(output.status.code(), Some(0));
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.starts_with("ok: "), "{out}");
    assert!(
        out.contains("2 providers, 3 targets, 2 pools, 2 routes, 2 tenants, 2 keys, 6 limits"),
        "{out}"
    );
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("OPENAI_API_KEY is not set") && err.contains("ACME_KEY is not set"));
    let output = flotilla(&["check", "--json", file]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((&json["ok"], &json["keys"]), (&true.into(), &2.into()));
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(2));
}

#[test]
fn check_names_every_fault_and_ends_with_64() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/configs/invalid/references.yaml");
    let output = flotilla(&["check", file]);
    assert_eq!(output.status.code(), Some(64));
    assert!(output.stdout.is_empty());
    let err = String::from_utf8_lossy(&output.stderr);
    let line = format!("{file}:4:20: targets.gpt.provider: there is no provider `opnai`");
    assert!(err.contains(&line), "{err}");
    let output = flotilla(&["check", "--json", file]);
    assert_eq!(output.status.code(), Some(64));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(json["faults"].as_array().map(Vec::len), Some(err.lines().count()));
    assert_eq!(json["faults"][0]["line"], 4);
}

#[test]
fn a_mistaken_command_line_ends_with_64_and_help_with_0() {
    for arguments in
        [&["chek"][..], &["check"], &["check", "a", "b"], &["--colour"], &["apply", "x"]]
    {
        let output = flotilla(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    let output = flotilla(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(help.contains("check") && help.contains("drain_limit = \"10m\""), "{help}");
    assert_eq!(flotilla(&["check", "/nowhere.yaml"]).status.code(), Some(64));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "UPDATE is for the person who runs the test")]
fn the_committed_schema_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fleet.schema.json");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, json_schema()).expect("the schema can be written");
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(committed == json_schema(), "docs/fleet.schema.json is old: run this with UPDATE=1");
}

#[test]
fn a_missing_variable_disables_its_provider_loudly() {
    let (snapshot, warnings) = compiled(ONE_POOL, &[]);
    let provider = snapshot.providers.first().expect("there is one");
    assert!(!provider.enabled && provider.credential.is_none());
    let expected = "providers.openai: disabled on this node: OPENAI_API_KEY is not set";
    assert!(warnings.iter().any(|warning| warning.starts_with(expected)), "{warnings:?}");
    let (snapshot, warnings) = compiled(ONE_POOL, &[("OPENAI_API_KEY", "sk-1\n")]);
    let provider = snapshot.providers.first().expect("there is one");
    assert!(provider.enabled && warnings.is_empty());
    assert_eq!(provider.credential.as_ref().map(|secret| secret.expose()), Some("sk-1"));
    let (snapshot, warnings) = compiled(ONE_POOL, &[("OPENAI_API_KEY", "sk\u{e9}canary")]);
    assert!(!snapshot.providers.first().expect("there is one").enabled);
    assert!(warnings.len() == 1 && !warnings.concat().contains("canary"), "{warnings:?}");
}

#[test]
fn keys_that_are_all_left_out_do_not_open_the_node() {
    let text = format!("{ONE_POOL}keys: [{{ name: a, key: '${{A}}' }}]\n");
    let (snapshot, warnings) = compiled(&text, &[("OPENAI_API_KEY", "x")]);
    assert!(snapshot.has_keys() && snapshot.keys.is_empty());
    assert!(warnings.concat().contains("the key `a` is left out on this node: A is not set"));
    let (snapshot, _) = compiled(&text, &[("OPENAI_API_KEY", "x"), ("A", "secret-a")]);
    assert!(snapshot.keys.contains_key(&flotilla::domain::KeyHash::of(b"secret-a")));
}

#[test]
fn two_keys_that_turn_out_the_same_are_refused() {
    let text =
        format!("{ONE_POOL}keys: [{{ name: a, key: '${{A}}' }}, {{ name: b, key: canary }}]\n");
    let env: Env = [("A", "canary")].into_iter().collect();
    let faults = compile(&document(Format::Yaml, &text), &env, 1).expect_err("the same key");
    let text = faults.iter().map(ToString::to_string).collect::<String>();
    assert!(text.contains("keys[1]: the same key as `a`") && !text.contains("canary"), "{text}");
}

#[test]
fn defaults_are_those_of_the_interface() {
    let (snapshot, _) = compiled(ONE_POOL, &[]);
    let pool = snapshot.pool_named("fast").expect("there is one");
    assert_eq!((pool.attempts, pool.heartbeat), (3, None));
    assert_eq!(pool.timeouts, flotilla::snapshot::Timeouts::default());
    let target = snapshot.targets.first().expect("there is one");
    assert_eq!((target.index, target.weight, target.model.as_deref()), (0, 1, None));
    assert_eq!(target.provider.base.to_string(), "https://api.openai.com/v1");
    assert_eq!(target.provider.base.origin.host_header(), "api.openai.com");
    assert!(!snapshot.has_keys() && &*snapshot.anonymous.tenant.name == "default");
    assert_eq!(snapshot.checksum.len(), 16);
}

// T12: explicit 0 and false are honoured everywhere.
#[test]
fn explicit_zeros_and_falses_are_honoured() {
    let (snapshot, _) = compiled(include_str!("../configs/valid/explicit_zeros.yaml"), &[]);
    let target = snapshot.targets.first().expect("there is one");
    assert!(target.weight == 0 && !target.provider.usage_in_stream);
    let pool = snapshot.pool_named("fast").expect("there is one");
    assert_eq!((pool.heartbeat, pool.attempts), (None, 1));
    let key = snapshot.keys.values().next().expect("there is one");
    assert!(!key.may_use("fast", "fast") && !key.may_reach(target, "gpt"));
    assert_eq!(key.tenant.providers.as_deref().map(<[_]>::len), Some(0));
    let budget = key.tenant.budget.as_ref().expect("there is one");
    assert_eq!((budget.limit, budget.soft, budget.hard), (0, Some(0), false));
    assert_eq!(target.price.map(|price| (price.input, price.output)), Some((0, 0)));
    let limits: Vec<_> = snapshot.limits.iter().map(|limit| limit.limit).collect();
    assert_eq!((limits, key.limits.len()), (vec![0, 0, 0, 5], 4));
}

#[test]
fn every_target_knows_its_own_place() {
    let text = include_str!("../../examples/flotilla.yaml");
    let (snapshot, _) = compiled(text, &[("ACME_KEY", "a"), ("OPENAI_API_KEY", "b")]);
    for (place, target) in snapshot.targets.iter().enumerate() {
        assert_eq!(target.index, place, "{}", target.name);
    }
    assert_eq!(&*snapshot.pool("gpt-4o-mini").expect("a route takes it").name, "fast");
    assert_eq!(&*snapshot.pool("anything").expect("a route takes it").name, "private");
}

#[test]
fn the_tenant_default_can_be_described() {
    let text = format!("{ONE_POOL}tenants: {{ default: {{ regions: [eu] }} }}\n");
    let (snapshot, warnings) = compiled(&text, &[]);
    assert!(snapshot.anonymous.tenant.regions.is_some());
    assert!(warnings.concat().contains("tenants.default.regions[0]: no target is in the region"));
}

#[test]
fn with_no_document_the_usual_variables_decide() {
    let sim = "127.0.0.1:8090".parse().expect("an address");
    let none = Env::default();
    let (document, warnings) =
        default_document(&none, sim, &["sim", "sim-503"]).expect("it is good");
    let (snapshot, _) = compile(&document, &none, 1).expect("it compiles");
    assert!(warnings.is_empty());
    let pool = snapshot.pool("sim-429").expect("the simulator takes it");
    let target = pool.tiers.first().and_then(|tier| tier.first()).expect("there is one");
    assert_eq!(target.provider.base.to_string(), "http://127.0.0.1:8090/v1");
    assert!(target.model.is_none() && target.provider.credential.is_none());
    assert!(snapshot.pool("gpt-4o").is_none());

    let env: Env = [("OPENAI_API_KEY", "sk"), ("GEMINI_API_KEY", "x")].into_iter().collect();
    let (document, warnings) = default_document(&env, sim, &[]).expect("it is good");
    let (snapshot, _) = compile(&document, &env, 1).expect("it compiles");
    assert_eq!(&*snapshot.pool("gpt-4o").expect("any model is passed on").name, "openai");
    assert!(snapshot.pool_named("openai").is_some() && snapshot.pool_named("sim").is_none());
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["GEMINI_API_KEY: is set, but gemini is not served yet"]);
}

#[test]
fn secrets_are_never_part_of_a_message() {
    let text = "
providers:
  a: { protocol: openai, api_key: ['canary'] }
  b: { protocol: openai, api_key: { canary: canary } }
  c: { protocol: openai, api_key: \"canary\\n\" }
  d: { protocol: openai, api_key: '${canary' }
  e: { protocol: openai, base_url: 'https://canary@host' }
targets: { gpt: { provider: a } }
pools: { fast: { tiers: [[gpt]] } }
keys:
  - { name: a, key: 'canary canary' }
  - { name: b, hash: 'sha256:canary' }
  - { name: c, key: canary }
  - { name: d, key: canary }
";
    let without_shapes = text.replace("['canary']", "x").replace("{ canary: canary }", "x");
    for text in [text, &without_shapes.replace("'${canary'", "x").replace("'sha256:canary'", "x")] {
        let faults = faults(text);
        assert!(!faults.is_empty() && !faults.contains("canary"), "{faults}");
    }
    for format in [Format::Yaml, Format::Json, Format::Toml] {
        let broken = "api_key = \"canary\" \"canary\n : [ \"canary";
        let faults = Document::parse("doc", format, broken.as_bytes()).expect_err("it is broken");
        let shown = format!("{faults:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
    let (snapshot, _) = compiled(ONE_POOL, &[("OPENAI_API_KEY", "canary")]);
    assert!(!format!("{snapshot:?}").contains("canary"));
}
