//! The effects of a client's identity.

use crate::*;

#[tokio::test]
async fn a_route_accepts_the_identities_that_it_names_and_denies_others() {
    let world = World::new();
    for name in ["alice", "bob", "mallory", "carol"] {
        world.client(&world.root, name, &Subject::named(name));
    }
    let routes = "
        [[route]]
        identity = \"cn:mallory\"
        deny = true
        [[route]]
        identity = [\"cn:alice\", \"cn:bob\"]
        backend = \"inner\"
        [[backend]]
        name = \"inner\"
        to = \"hello\"
    ";
    for relay in RELAYS {
        let vestibule = world.start(relay, "optional", routes).await;
        let (mut denied, mut astray) = (0, 0);
        for version in VERSIONS {
            for name in ["alice", "bob"] {
                let facts = facts(world.say(&vestibule, Some(name), &[version]).await);
                assert_eq!(facts["identity"]["cn"], name);
                assert_eq!(facts["backend"], "inner");
            }
            for name in [Some("mallory"), Some("carol"), None] {
                let done = world.say(&vestibule, name, &[version]).await;
                assert!(
                    done.err.contains("access denied"),
                    "{relay:?} {version} {name:?}: {}",
                    done.err
                );
                assert!(done.err.contains("SSL alert number 49"), "{}", done.err);
                assert!(done.out.is_empty());
                match name {
                    Some("mallory") => denied += 1,
                    _ => astray += 1,
                }
                vestibule.ended("denied", denied).await;
                vestibule.ended("no_route", astray).await;
            }
        }
        // In TLS 1.3 the client is told after its handshake, when it reads the answer.
        let done = curl(&world, &vestibule, Some("mallory")).await;
        assert_eq!(done.code, Some(56), "{}", done.err);
        assert!(done.err.contains("access denied"), "{}", done.err);
        let done = curl(&world, &vestibule, Some("alice")).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert_eq!(vestibule.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn an_identity_has_as_many_connections_as_the_limit_says() {
    let world = World::new();
    world.client(&world.root, "alice", &Subject::named("alice"));
    world.client(&world.root, "bob", &Subject::named("bob"));
    // The same names in another certificate are the same client.
    world.client(&world.below, "alice-again", &Subject::named("alice"));
    let rest = "
        [limits]
        connections_per_identity = 2
        [[backend]]
        name = \"echo\"
        to = \"echo\"
    ";
    let vestibule = world.start(Relay::Auto, "required", rest).await;
    let open = async |name: &str| {
        let mut command = s_client(&vestibule.tcp());
        command
            .args(["-quiet", "-cert"])
            .arg(world.path(&format!("{name}.pem")))
            .arg("-cert_chain")
            .arg(world.path(&format!("{name}.pem")))
            .arg("-key")
            .arg(world.path(&format!("{name}-key.pem")));
        let (process, mut stdin) = Process::start_listening(command);
        stdin.write_all(b"hello\n").await.expect("openssl listens");
        process.line("hello").await;
        (process, stdin)
    };
    let first = open("alice").await;
    let _second = open("alice-again").await;
    let _bob = open("bob").await;
    let done = world.say(&vestibule, Some("alice"), &["-tls1_3"]).await;
    assert!(done.err.contains("access denied"), "{}", done.err);
    vestibule.ended("over_limit", 1).await;
    drop(first);
    vestibule.ended("client_truncated", 1).await;
    let _third = open("alice-again").await;
    let done = world.say(&vestibule, Some("alice"), &["-tls1_2"]).await;
    assert!(done.err.contains("access denied"), "{}", done.err);
    vestibule.ended("over_limit", 2).await;
}
