//! Several nodes over one document: identical, and none in the way of another.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::client::ask_chat;
use crate::support::eventually::eventually;
use crate::support::node::metric;
use crate::support::process::spawn_fleet;
use crate::support::wall::{Script, Wall};

fn document(wall: &Wall, pool: &str) -> String {
    format!(
        "providers: {{ p: {{ protocol: openai, base_url: \"{}\", api_key: sk }} }}
targets: {{ t: {{ provider: p }} }}
pools: {{ {pool}: {{ tiers: [[t]] }} }}
",
        wall.base_url("/v1")
    )
}

#[tokio::test]
async fn a_node_that_is_killed_or_leaves_takes_no_other_with_it() {
    let wall = Wall::always(Script::json(200, r#"{"choices":[]}"#));
    let mut fleet = spawn_fleet(2, 2, &document(&wall, "it"), &[]);
    let mut ids = HashSet::new();
    for address in fleet.addresses() {
        let response = ask_chat(address, "it", false).await;
        assert_eq!(response.status, 200, "{}", response.text());
        ids.insert(response.header("x-flotilla-node").expect("its id").to_owned());
    }
    assert_eq!((ids.len(), wall.count()), (4, 4), "each has an id of its own");

    let mut victim = fleet.processes.remove(0);
    victim.signal("KILL");
    assert_eq!(victim.exit().await, None, "a signal ended it");
    let mut leaving = fleet.nodes.remove(0);
    leaving.drain();
    leaving.join();
    for address in fleet.addresses() {
        assert_eq!(ask_chat(address, "it", false).await.status, 200);
    }

    // All of them watch the one document.
    std::fs::write(&fleet.document, document(&wall, "other")).expect("the document is written");
    let admins = fleet.nodes.iter().map(|node| node.admin);
    let admins: Vec<_> = admins.chain(fleet.processes.iter().map(|it| it.admin)).collect();
    eventually(Duration::from_secs(5), || {
        admins.iter().all(|admin| metric(*admin, "flotilla_config_revision") == 2.0)
    })
    .await;
    for address in fleet.addresses() {
        assert_eq!(ask_chat(address, "other", false).await.status, 200);
        assert_eq!(ask_chat(address, "it", false).await.status, 404);
    }
}
