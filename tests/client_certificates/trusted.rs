//! Certificates that are trusted themselves.

use crate::*;

/// Made as by `openssl req -x509`, and both the client's certificate and the bundle.
#[tokio::test]
async fn a_client_may_present_a_trusted_certificate_itself() {
    let world = World::new();
    let me = Authority::root("me");
    let signer = me.signer();
    signer.write(world.directory.path(), "me");
    let lists = world.root.revocations(&[]) + &me.revocations(&[]);
    replace(&world.path("revoked.pem"), &lists);
    replace(&world.path("clients.pem"), &(world.root.pem() + &me.pem()));
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    for version in VERSIONS {
        let facts = facts(world.say(&vestibule, Some("me"), &[version]).await);
        assert_eq!(facts["identity"]["cn"], "me");
    }
    // Another certificate with the same name and key is not the trusted one.
    let again = me.reissued("me");
    again.write(world.directory.path(), "again");
    let done = world.say(&vestibule, Some("again"), &["-tls1_3"]).await;
    assert!(done.out.is_empty(), "{}", done.err);
    let event = vestibule
        .event(|event| message(event) == "handshake failed")
        .await;
    let cause = event["cause"].as_str().expect("text");
    assert!(cause.contains("CA:TRUE"), "{cause}");
    // It may revoke itself.
    let lists = world.root.revocations(&[]) + &me.revocations(&[signer.serial]);
    replace(&world.path("revoked.pem"), &lists);
    vestibule.said("reloaded", 1).await;
    let done = world.say(&vestibule, Some("me"), &["-tls1_3"]).await;
    assert!(done.err.contains("certificate revoked"), "{}", done.err);
}

/// webpki accepts none of these. But for a certificate that is trusted itself, its content does not
/// matter.
#[tokio::test]
async fn a_client_with_a_trusted_certificate_is_accepted_whatever_its_extensions() {
    let ec: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let p384: &[&str] = &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    for (key, extensions) in [
        (ec, &[][..]),
        (&["rsa:2048"][..], &[]),
        (p384, &["certificatePolicies=critical,1.2.3.4"]),
        (ec, &["1.2.3.4=critical,DER:0500"]),
        (&["rsa:2048"], &["1.2.3.4=critical,DER:0500"]),
    ] {
        let world = World::new();
        self_signed(world.directory.path(), "me", key, extensions);
        self_signed(world.directory.path(), "not-me", key, extensions);
        let me = std::fs::read_to_string(world.path("me.pem")).expect("a file");
        replace(&world.path("clients.pem"), &(world.root.pem() + &me));
        let vestibule = world.start(Relay::Auto, "required", HELLO).await;
        for version in VERSIONS {
            let facts = facts(world.say(&vestibule, Some("me"), &[version]).await);
            assert_eq!(facts["identity"]["cn"], "me", "{key:?} {extensions:?}");
            let done = world.say(&vestibule, Some("not-me"), &[version]).await;
            assert!(done.out.is_empty(), "{}", done.err);
        }
        // A client that only has the certificate cannot sign with its key.
        std::fs::copy(world.path("me.pem"), world.path("thief.pem")).expect("a file");
        std::fs::copy(world.path("not-me-key.pem"), world.path("thief-key.pem")).expect("a file");
        for version in VERSIONS {
            let done = world.say(&vestibule, Some("thief"), &[version]).await;
            assert!(done.out.is_empty(), "{}", done.err);
        }
    }
}
