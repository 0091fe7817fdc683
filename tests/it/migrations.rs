//! Migrations of the keys in Redis: once each, by one process at a time, and two versions of nodes
//! beside each other.

use std::process::{Command, Output};
use std::time::Duration;

use flotilla::app::{MemberError, Node as AppNode, StartError};
use flotilla::config::{Env, Settings};
use flotilla::store::connection::{Config, Tls};
use flotilla::store::migrate::{MigrateError, Migrated, migrate};
use flotilla::store::schema::{MIGRATIONS, Migration, Step, TooNew};
use futures_util::future::join_all;

use crate::support::client::ask_chat;
use crate::support::eventually::eventually;
use crate::support::node::Node;
use crate::support::redis::{Kind, Server, prefix, shared};
use crate::support::wall::{DEADLINE, Script, Wall};

const ANSWER: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"aye"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;

const fn test_migration(version: u32, step: Step, readers: u32, source: &'static str) -> Migration {
    Migration { version, name: "of_a_test", step, readers, source }
}

/// The next build: this one's migrations, one that adds something, and one that takes away.
const EXPANDED: &[Migration] = &[
    MIGRATIONS[0],
    test_migration(2, Step::Expand, 1, "call('HINCRBY', schema, 'runs_of_2', '1')"),
];
const CONTRACTED: &[Migration] = &[
    MIGRATIONS[0],
    test_migration(2, Step::Expand, 1, "call('HINCRBY', schema, 'runs_of_2', '1')"),
    test_migration(3, Step::Contract, 2, "call('HINCRBY', schema, 'runs_of_3', '1')"),
];

fn config(server: &Server) -> Config {
    let url = flotilla::domain::Secret::new(server.url());
    Config { url, tls: Tls::default(), deadline: Duration::from_secs(5) }
}

async fn run(server: &Server, prefix: &str, known: &'static [Migration]) -> Migrated {
    let migrated = migrate(&config(server), prefix, known, Duration::from_secs(20)).await;
    migrated.expect("nothing is in the way")
}

fn field(server: &Server, prefix: &str, field: &str) -> Option<u64> {
    server.ask(&["HGET", &format!("{prefix}:v1:{{fleet}}:schema"), field])
}

#[tokio::test]
async fn many_that_start_at_once_migrate_once() {
    for kind in [Kind::Redis7, Kind::Redis6, Kind::Valkey9] {
        let (server, prefix) = (shared(kind), prefix());
        let all = join_all((0..8).map(|_| run(server, &prefix, CONTRACTED))).await;
        let done: usize = all.iter().map(|migrated| migrated.done.len()).sum();
        assert_eq!(done, 3);
        assert!(all.iter().all(|migrated| migrated.to == 3), "{all:?}");
        for counter in ["runs_of_2", "runs_of_3"] {
            assert_eq!(field(server, &prefix, counter), Some(1), "{counter}");
        }
        let again = run(server, &prefix, CONTRACTED).await;
        assert_eq!((again.from, again.to, again.done.len()), (3, 3, 0));
        let lock: Option<String> =
            server.ask(&["GET", &format!("{prefix}:v1:{{fleet}}:migrating")]);
        assert_eq!(lock, None, "it was given back");
    }
}

#[tokio::test]
async fn a_lock_that_nobody_gives_back_ends_by_itself() {
    const ROBBED: &[Migration] = &[
        test_migration(1, Step::Expand, 1, "call('SET', lock, 'another one')"),
        test_migration(2, Step::Expand, 1, "call('HINCRBY', schema, 'runs_of_2', '1')"),
    ];
    let (server, prefix) = (shared(Kind::Redis7), prefix());
    let lock = format!("{prefix}:v1:{{fleet}}:migrating");
    let patience = Duration::from_millis(300);
    let waited = migrate(&config(server), &prefix, ROBBED, patience).await;
    assert_eq!(waited, Err(MigrateError::Busy { waited_s: 0 }));
    // What was done stays, and the other one's lock too.
    assert_eq!(field(server, &prefix, "version"), Some(1));
    assert_eq!(server.ask::<String>(&["GET", &lock]), "another one");
    let () = server.ask(&["PEXPIRE", &lock, "200"]);
    let migrated = run(server, &prefix, ROBBED).await;
    assert_eq!((migrated.from, migrated.to), (1, 2));
}

#[test]
fn a_holder_whose_lock_ran_out_changes_nothing() {
    let (server, prefix) = (shared(Kind::Redis7), prefix());
    let key = |noun: &str| format!("{prefix}:v1:{{fleet}}:{noun}");
    let script = [
        include_str!("../../lua/include/status.lua"),
        include_str!("../../lua/include/clock.lua"),
        include_str!("../../migrations/frame/begin.lua"),
        "call('HINCRBY', schema, 'runs', '1')",
        include_str!("../../migrations/frame/end.lua"),
    ]
    .join("\n");
    let run = |token: &str, version: &str, contracts: &str, seen: &str| -> Vec<u64> {
        let keys = [key("schema"), key("migrating"), key("nodes")];
        let [schema, lock, nodes] = &keys;
        let call = ["EVAL", &script, "3", schema, lock, nodes, token, version, "1", "test"];
        server.ask(&[call.as_slice(), &["30000", contracts, seen]].concat())
    };
    let step = |token: &str, version: &str| run(token, version, "0", "");
    assert_eq!(step("mine", "1")[0], 2, "there is no lock");
    let () = server.ask(&["SET", &key("migrating"), "another one"]);
    assert_eq!(step("mine", "1")[0], 2);
    assert_eq!(field(server, &prefix, "runs"), None);
    assert_eq!(step("another one", "2")[0], 4, "it is not its turn");
    assert_eq!(step("another one", "1")[0], 0);
    assert_eq!(step("another one", "1")[0], 4, "it was done");
    assert_eq!(field(server, &prefix, "runs"), Some(1));

    // A node that came after its caller had looked is not taken anything away from.
    let later = (server.now_ms() + 60_000).to_string();
    let () = server.ask(&["ZADD", &key("nodes"), &later, "one", "1", "gone"]);
    assert_eq!(run("another one", "2", "1", "two")[0], 4);
    assert_eq!(run("another one", "2", "1", "one")[0], 0);
}

fn env(server: &Server, prefix: &str) -> Vec<(&'static str, String)> {
    vec![
        ("FLOTILLA_REDIS_URL", server.url()),
        ("FLOTILLA_REDIS_PREFIX", prefix.to_owned()),
        ("FLOTILLA_REDIS_DEADLINE", "2s".to_owned()),
        ("FLOTILLA_TICK", "50ms".to_owned()),
        ("FLOTILLA_NODE_TTL", "2s".to_owned()),
        ("FLOTILLA_WORKERS", "1".to_owned()),
        ("FLOTILLA_LISTEN", "127.0.0.1:0".to_owned()),
        ("FLOTILLA_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
        ("FLOTILLA_SIM_LISTEN", "127.0.0.1:0".to_owned()),
    ]
}

fn started(env: &[(&'static str, String)], document: &str, known: &'static [Migration]) -> Node {
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Node::of_build(document, &env, known)
}

/// Why a node of a build with these migrations does not start.
fn refusal(env: &[(&'static str, String)], known: &'static [Migration]) -> StartError {
    let env: Env = env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let (settings, _) = Settings::load(&env).expect("good settings");
            AppNode::start_as(&settings, &env, known).expect_err("it may not start")
        })
    })
    .join()
    .expect("no panic")
}

// T13: N-1 and N are this build and one with a migration more.
#[tokio::test]
async fn two_versions_serve_beside_each_other_until_the_keys_contract() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let (server, prefix) = (shared(Kind::Redis7), prefix());
    let document = format!(
        "providers: {{ v: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: v }} }}
pools: {{ p: {{ tiers: [[t]] }} }}
limits: [{{ name: l, scope: tenant, metric: requests, limit: 6, window: 1h, degraded: fail_closed }}]
",
        wall.base_url("/v1")
    );
    let env = env(server, &prefix);
    let older = started(&env, &document, MIGRATIONS);
    assert_eq!(field(server, &prefix, "version"), Some(1));
    let newer = started(&env, &document, EXPANDED);
    assert_eq!(field(server, &prefix, "version"), Some(2));
    // Up: both serve, and count as one.
    for node in [&older, &newer, &older, &newer] {
        assert_eq!(ask_chat(node.data, "p", false).await.status, 200);
    }
    // Down again: what was started first can be started again.
    let mut newer = newer;
    newer.drain();
    newer.join();
    let again = started(&env, &document, MIGRATIONS);
    assert_eq!(ask_chat(again.data, "p", false).await.status, 200);
    assert_eq!(ask_chat(older.data, "p", false).await.status, 200);
    let refused = ask_chat(again.data, "p", false).await;
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    // Nobody takes away what living nodes need.
    let newest = started(&env, &document, CONTRACTED);
    let held = run(server, &prefix, CONTRACTED).await;
    let (step, nodes) = held.held.expect("two older nodes live");
    assert_eq!((held.to, step.version, nodes.len()), (2, 3, 2));
    for mut node in [older, again] {
        node.drain();
        node.join();
    }
    let done = run(server, &prefix, CONTRACTED).await;
    assert_eq!((done.to, field(server, &prefix, "runs_of_3")), (3, Some(1)));
    let refused = refusal(&env, MIGRATIONS);
    let StartError::Member(MemberError::TooNew(too_new)) = refused else {
        panic!("another reason: {refused}");
    };
    assert_eq!(too_new, TooNew { found: 3, readers: 2, known: 1 });
    drop(newest);
}

// The race that is left: a node that runs meets keys that somebody contracted all the same.
#[tokio::test]
async fn a_running_node_lets_keys_alone_that_become_too_new_for_it() {
    let wall = Wall::always(Script::json(200, ANSWER));
    let (server, prefix) = (shared(Kind::Redis7), prefix());
    let document = format!(
        "providers: {{ v: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: v }} }}
pools: {{ p: {{ tiers: [[t]] }} }}
limits: [{{ name: l, scope: tenant, metric: requests, limit: 9, window: 1h, degraded: fail_closed }}]
",
        wall.base_url("/v1")
    );
    let node = started(&env(server, &prefix), &document, MIGRATIONS);
    assert_eq!(ask_chat(node.data, "p", false).await.status, 200);
    let schema = format!("{prefix}:v1:{{fleet}}:schema");
    let () = server.ask(&["HSET", &schema, "version", "9", "readers", "8"]);
    eventually(DEADLINE, || node.metric("flotilla_schema_too_new") > 0.5).await;
    let answer = ask_chat(node.data, "p", false).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
    let () = server.ask(&["HSET", &schema, "version", "1", "readers", "1"]);
    eventually(DEADLINE, || node.metric("flotilla_schema_too_new") < 0.5).await;
    assert_eq!(ask_chat(node.data, "p", false).await.status, 200);
}

#[test]
fn every_file_of_the_folder_is_one_of_the_build() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let files = std::fs::read_dir(folder).expect("the folder is there");
    let names = files.map(|file| file.expect("an entry").file_name().into_string().expect("text"));
    let mut found: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".lua")?.to_owned())).collect();
    found.sort();
    let known: Vec<_> =
        MIGRATIONS.iter().map(|known| format!("{:04}_{}", known.version, known.name)).collect();
    assert_eq!(found, known);
}

fn flotilla(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flotilla"))
        .args(arguments)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .expect("the binary runs")
}

#[test]
fn the_command_says_what_it_did_and_ends_with_the_right_code() {
    let (server, prefix) = (shared(Kind::Redis7), prefix());
    let url = server.url();
    let env = [("FLOTILLA_REDIS_URL", url.as_str()), ("FLOTILLA_REDIS_PREFIX", prefix.as_str())];
    let run = |arguments: &[&str], env: &[(&str, &str)]| {
        let output = flotilla(arguments, env);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = run(&["migrate"], &env);
    let expected =
        format!("done: 0001_create_schema\nthe keys of {prefix} went from schema 0 to 1\n");
    assert_eq!((code, out), (Some(0), expected));
    let (code, out, _) = run(&["migrate"], &env);
    assert_eq!((code, out), (Some(0), format!("the keys of {prefix} are at schema 1\n")));
    let (code, out, _) = run(&["migrate", "--json"], &env);
    let report: serde_json::Value = serde_json::from_str(&out).expect("one object");
    let expected = serde_json::json!({
        "prefix": prefix, "from": 1, "to": 1, "done": [], "waits": null
    });
    assert_eq!((code, report), (Some(0), expected));

    let (code, _, err) = run(&["migrate"], &[]);
    assert_eq!(code, Some(64));
    assert!(err.contains("FLOTILLA_REDIS_URL"), "{err}");
    let (code, _, err) = run(&["migrate"], &[("FLOTILLA_REDIS_URL", "redis://127.0.0.1:1")]);
    assert_eq!(code, Some(69), "{err}");

    let schema = format!("{prefix}:v1:{{fleet}}:schema");
    let () = server.ask(&["HSET", &schema, "version", "9", "readers", "8"]);
    for command in ["migrate", "serve"] {
        let (code, _, err) = run(&[command], &env);
        assert_eq!(code, Some(64), "{err}");
        assert!(err.contains("schema 9") && err.contains("knows 1"), "{err}");
    }
}
