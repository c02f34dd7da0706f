//! What survives a restart, and what happens if it cannot be stored or read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::Arc;

use crate::common::process::{output, vestibule};
use crate::common::users::{STRANGER, require_root};
use crate::common::vestibule::{LISTENERS, Relay, Vestibule};
use crate::{World, ask_of, revoke, start, text};

#[tokio::test]
async fn revocations_survive_a_crash() {
    let mut world = World::new(Relay::Auto).await;
    let made = world.revoke("cn:alice").await.json();
    let directory = Arc::clone(&world.vestibule.directory);
    let file = directory.path().join("run/revocations.json");
    assert_eq!(fs::metadata(&file).expect("a file").mode() & 0o777, 0o600);
    world.vestibule.kill().await;
    world.vestibule = start(&directory, Relay::Auto).await;
    assert!(!world.is_admitted(&world.alice).await);
    assert!(world.is_admitted(&world.bob).await);
    let list = ask_of(&world.vestibule, "/v1/revocations", &[]).await;
    let row = &list.json()["revocations"][0];
    for key in ["id", "identity", "created"] {
        assert_eq!(row[key], made[key]);
    }
    // A removal survives as well.
    assert_eq!(world.remove(text(&made, "id")).await.status, 200);
    world.vestibule.kill().await;
    world.vestibule = start(&directory, Relay::Auto).await;
    assert!(world.is_admitted(&world.alice).await);
}

#[tokio::test]
async fn a_damaged_or_foreign_file_stops_the_start_and_says_what_to_do() {
    require_root();
    let world = World::new(Relay::Auto).await;
    world.revoke("cn:alice").await;
    let file = world.vestibule.path("run/revocations.json");
    let whole = fs::read_to_string(&file).expect("a file");
    let directory = Arc::clone(&world.vestibule.directory);
    assert_eq!(world.vestibule.terminate().await, Some(0));
    let start_fails_with = async |words: [&str; 2]| {
        let mut command = vestibule();
        command
            .args(["run", "-c"])
            .arg(directory.path().join("vestibule.toml"));
        let done = output(command).await;
        assert_eq!(done.code, Some(2), "{}", done.err);
        let path = file.display().to_string();
        for part in [&[&*path], &words[..]].concat() {
            assert!(done.err.contains(part), "{part}: {}", done.err);
        }
    };
    fs::write(&file, &whole[..whole.len() / 2]).expect("ours");
    start_fails_with(["damaged", "or remove it"]).await;
    fs::write(&file, &whole).expect("ours");
    chown(&file, Some(STRANGER), None).expect("root may");
    start_fails_with(["another user", "give it to the user of this process"]).await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_in_force() {
    let world = World::new(Relay::Auto).await;
    let run = world.vestibule.path("run");
    let mode = |mode| fs::set_permissions(&run, Permissions::from_mode(mode)).expect("ours");
    // Others could replace the file.
    mode(0o777);
    let refused = world.revoke("cn:alice").await;
    assert_eq!((refused.status, &*refused.code()), (507, "not_stored"));
    assert!(refused.body.contains("chmod go-w"), "{refused:?}");
    assert!(world.is_admitted(&world.alice).await);
    mode(0o700);
    let made = world.revoke("cn:alice").await;
    assert_eq!(made.status, 201);
    assert!(!world.is_admitted(&world.alice).await);
    mode(0o777);
    let refused = world.remove(text(&made.json(), "id")).await;
    assert_eq!(refused.status, 507);
    assert!(!world.is_admitted(&world.alice).await);
}

#[tokio::test]
async fn without_a_lasting_directory_a_revocation_holds_and_says_that_it_is_not_stored() {
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let config = "[runtime]\nlog_format = \"json\"\n[admin]\naddress = \"unix:{dir}/admin.sock\"\n\
                  [[backend]]\nname = \"echo\"\nto = \"echo\"\n";
    let config = format!("{config}{LISTENERS}");
    let vestibule = Vestibule::spawn(directory, &config, |mut command| {
        command.env_remove("XDG_RUNTIME_DIR");
        command
    });
    vestibule.until_started().await;
    let flags = [
        "-d",
        "{\"identity\":\"cn:alice\"}",
        "-H",
        "Vestibule-Admin: 1",
    ];
    let socket = vestibule.path("admin.sock");
    let made = crate::common::admin::ask(&socket, "/v1/revocations", &flags).await;
    assert_eq!((made.status, &made.json()["stored"]), (201, &false.into()));
}

#[tokio::test]
async fn instances_that_share_a_directory_share_its_revocations() {
    let mut world = World::new(Relay::Auto).await;
    let directory = Arc::clone(&world.vestibule.directory);
    let config = fs::read_to_string(directory.path().join("vestibule.toml")).expect("a file");
    let config = config.replace("front.sock", "other.sock");
    let config = config
        .replace("audit.log", "other.log")
        .replace("gate\"", "echo\"");
    let second = Vestibule::start_as(&directory, "second.toml", &config).await;
    assert_eq!(world.revoke("cn:alice").await.status, 201);
    let socket = directory
        .path()
        .join(format!("run/admin-{}.sock", second.pid()));
    let flags = [
        "-d",
        "{\"identity\":\"cn:bob\"}",
        "-H",
        "Vestibule-Admin: 1",
    ];
    let made = crate::common::admin::ask(&socket, "/v1/revocations", &flags).await;
    assert_eq!(made.status, 201, "{made:?}");
    let list = crate::common::admin::ask(&socket, "/v1/revocations", &[]).await;
    assert_eq!(list.json()["revocations"].as_array().map(Vec::len), Some(2));
    // The first one learns of it at its next reload, or change.
    let mut bob = crate::admitted(&world.tcp(), &crate::config(&world.bob, BOTH)).await;
    assert!(bob.is_some());
    world.vestibule.signal(rustix::process::Signal::HUP);
    world.vestibule.ended("revoked", 1).await;
    assert!(!world.is_admitted(&world.bob).await);
    drop(bob.take());
    assert_eq!(revoke(&world.vestibule, "cn:bob").await.status, 200);

    second.kill().await;
    world.vestibule.kill().await;
    world.vestibule = start(&directory, Relay::Auto).await;
    assert!(!world.is_admitted(&world.alice).await);
    assert!(!world.is_admitted(&world.bob).await);
}

const BOTH: &[&tokio_rustls::rustls::SupportedProtocolVersion] = tokio_rustls::rustls::ALL_VERSIONS;
