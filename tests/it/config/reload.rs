//! A changed document takes over whole or not at all.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use flotilla::config::{Env, Seen, Watch, load};
use flotilla::fleet::config_watch::{self, Report};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::scratch::Scratch;

fn text(pool: &str) -> String {
    format!(
        "providers: {{ p: {{ protocol: openai, base_url: 'http://127.0.0.1:1' }} }}\n\
         targets: {{ t: {{ provider: p }} }}\npools: {{ {pool}: {{ tiers: [[t]] }} }}\n"
    )
}

fn watch(scratch: &Scratch, name: &str, keys_required: bool) -> Watch {
    let file = scratch.path(name);
    let loaded = load(&file, &Env::default(), 1).expect("the document is good");
    Watch::new(file, Env::default(), &loaded.snapshot, keys_required)
}

/// What is found once it stands still.
fn look(watch: &mut Watch) -> Seen {
    match watch.look() {
        Seen::Unchanged => watch.look(),
        seen => seen,
    }
}

#[test]
fn a_document_is_watched_by_its_content() {
    let scratch = Scratch::new();
    scratch.write("doc.yaml", text("one"));
    let mut watch = watch(&scratch, "doc.yaml", false);
    assert!(matches!(look(&mut watch), Seen::Unchanged));
    // Written anew with the same content.
    scratch.write("doc.yaml", text("one"));
    assert!(matches!(look(&mut watch), Seen::Unchanged));
    scratch.write("doc.yaml", text("two"));
    let Seen::Changed(loaded) = look(&mut watch) else { unreachable!("it has changed") };
    assert_eq!(loaded.snapshot.revision, 2);
    assert!(loaded.snapshot.pool_named("two").is_some());
    assert!(matches!(look(&mut watch), Seen::Unchanged));
}

#[test]
fn a_fault_is_reported_once_and_again_after_it_was_cured() {
    let scratch = Scratch::new();
    scratch.write("doc.yaml", text("one"));
    let mut watch = watch(&scratch, "doc.yaml", false);
    for _ in 0..2 {
        scratch.write("doc.yaml", "pools: [");
        assert!(matches!(look(&mut watch), Seen::Invalid(_)));
        assert!(matches!(look(&mut watch), Seen::Unchanged));
        std::fs::remove_file(scratch.path("doc.yaml")).expect("it can be removed");
        assert!(matches!(look(&mut watch), Seen::Invalid(_)));
        assert!(matches!(look(&mut watch), Seen::Unchanged));
        scratch.write("doc.yaml", text("one"));
        assert!(matches!(look(&mut watch), Seen::Unchanged));
    }
    scratch.write("doc.yaml", text("two"));
    let Seen::Changed(loaded) = look(&mut watch) else { unreachable!("it has changed") };
    assert_eq!(loaded.snapshot.revision, 2);
}

#[test]
fn a_reload_that_takes_the_keys_away_is_refused_where_they_are_needed() {
    let scratch = Scratch::new();
    scratch.write("doc.yaml", format!("{}keys: [{{ name: a, key: abc }}]\n", text("one")));
    let mut exposed = watch(&scratch, "doc.yaml", true);
    let mut loopback = watch(&scratch, "doc.yaml", false);
    scratch.write("doc.yaml", text("one"));
    assert!(matches!(look(&mut exposed), Seen::Invalid(_)));
    assert!(matches!(look(&mut loopback), Seen::Changed(_)));
}

#[test]
fn a_swapped_symlink_is_noticed() {
    let scratch = Scratch::new();
    for pool in ["one", "two"] {
        std::fs::create_dir(scratch.path(pool)).expect("a directory can be made");
        scratch.write(&format!("{pool}/doc.yaml"), text(pool));
    }
    // As Kubernetes mounts a ConfigMap: the file links into a directory that is swapped.
    symlink("one", scratch.path("..data")).expect("a link can be made");
    symlink("..data/doc.yaml", scratch.path("doc.yaml")).expect("a link can be made");
    let mut watch = watch(&scratch, "doc.yaml", false);
    symlink("two", scratch.path("..new")).expect("a link can be made");
    std::fs::rename(scratch.path("..new"), scratch.path("..data")).expect("it can be swapped");
    assert!(matches!(look(&mut watch), Seen::Changed(_)));
}

// T12: whole or not at all, also where the file itself is not whole yet.
#[test]
fn a_half_written_document_never_takes_over() {
    let scratch = Scratch::new();
    scratch.write("doc.yaml", text("one"));
    let mut watch = watch(&scratch, "doc.yaml", false);
    let half = format!("{}keys:\n  - {{ name: a, key: abc }}\n", text("two"));
    let whole = format!("{half}  - {{ name: b, key: def }}\n");
    for text in ["", &half, &whole] {
        scratch.write("doc.yaml", text);
        assert!(matches!(watch.look(), Seen::Unchanged));
    }
    let Seen::Changed(loaded) = watch.look() else { unreachable!("it stands still") };
    assert_eq!((loaded.snapshot.revision, loaded.snapshot.keys.len()), (2, 2));
}

// T12: a bad reload leaves what is served untouched.
#[tokio::test]
async fn the_watching_task_swaps_good_documents_only() {
    let scratch = Scratch::new();
    let file = scratch.write("doc.yaml", text("one"));
    let first = Arc::new(load(&file, &Env::default(), 1).expect("it is good").snapshot);
    let watch = Watch::new(file, Env::default(), &first, false);
    let in_force = Arc::new(ArcSwap::from(Arc::clone(&first)));
    let stop = CancellationToken::new();
    let (tell, mut told) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let (in_force, stop) = (Arc::clone(&in_force), stop.clone());
        async move {
            let report = |report| tell.try_send(report).expect("the test listens");
            config_watch::watch(&in_force, watch, Duration::from_millis(5), stop, report).await;
        }
    });
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(10), told.recv()).await;
        next.expect("a report comes in time").expect("the task lives")
    };
    scratch.write("new.yaml", "pools: {}\n");
    std::fs::rename(scratch.path("new.yaml"), scratch.path("doc.yaml")).expect("it is renamed");
    assert!(matches!(next().await, Report::Invalid(_)));
    assert!(Arc::ptr_eq(&in_force.load_full(), &first));
    scratch.write("new.yaml", text("two"));
    std::fs::rename(scratch.path("new.yaml"), scratch.path("doc.yaml")).expect("it is renamed");
    let Report::Changed { snapshot, .. } = next().await else { unreachable!("it is good") };
    assert!(Arc::ptr_eq(&in_force.load_full(), &snapshot) && snapshot.revision == 2);
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), tasks.join_next()).await;
    ended.expect("it ends in time").expect("there is one").expect("it ends well");
}
