//! `vestibule revoke`.

use serde_json::Value;
use tokio::process::Command;

use crate::World;
use crate::common::process::{output, vestibule};
use crate::common::vestibule::Relay;

fn command(world: &World, words: &[&str]) -> Command {
    let mut command = vestibule();
    let socket = world.vestibule.path("run/admin.sock");
    command.arg("revoke").args(words);
    command.args(["--admin", &format!("unix:{}", socket.display())]);
    command
}

#[tokio::test]
async fn revoke_makes_lists_and_removes_revocations() {
    let world = World::new(Relay::Auto).await;
    let alices = crate::config(&world.alice, tokio_rustls::rustls::ALL_VERSIONS);
    let _client = crate::admitted(&world.tcp(), &alices).await.expect("good");
    let none = output(command(&world, &["--list"])).await.text();
    assert_eq!(none, "no identity is revoked\n");

    let done = output(command(&world, &["cn:alice"])).await;
    let text = done.text();
    assert!(text.starts_with("revoked cn:alice ("), "{text}");
    assert!(text.ends_with("; connections ended: 1\n"), "{text}");
    assert!(!world.is_admitted(&world.alice).await);

    let table = output(command(&world, &["--list"])).await.text();
    assert_eq!(table.lines().count(), 1, "{table}");
    assert!(table.ends_with("  cn:alice\n"), "{table}");
    let json = output(command(&world, &["--list", "--json"])).await.text();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let id = json[0]["id"].as_str().expect("an id");
    assert!(table.starts_with(id), "{table}");

    let done = output(command(&world, &["--remove", id])).await;
    assert_eq!(done.text(), "removed cn:alice\n");
    assert!(world.is_admitted(&world.alice).await);
    let done = output(command(&world, &["--remove", id])).await;
    assert_eq!(done.code, Some(1));
    assert!(
        done.err.contains("no revocation has the id"),
        "{}",
        done.err
    );
}

#[tokio::test]
async fn revoke_refuses_what_is_no_identity() {
    let world = World::new(Relay::Auto).await;
    let done = output(command(&world, &["alice"])).await;
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("starts with `uri:`"), "{}", done.err);
    assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    for wrong in [
        &[][..],
        &["--list", "cn:alice"],
        &["cn:alice", "--remove", "x"],
    ] {
        let done = output(command(&world, wrong)).await;
        assert_eq!(done.code, Some(2), "{wrong:?}: {}", done.err);
    }
}
