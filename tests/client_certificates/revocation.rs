//! Revocation lists: which certificates they revoke, and which lists are in force.

use crate::*;

/// The new list is in the file behind the old one, or before it.
#[tokio::test]
async fn a_client_is_refused_if_any_list_of_its_authority_contains_it() {
    let world = World::new();
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    let old = world.root.revocations(&[]);
    let new = world.root.revocations(&[alice.serial]);
    for lists in [format!("{old}{new}"), format!("{new}{old}")] {
        replace(&world.path("revoked.pem"), &lists);
        let vestibule = world.start(Relay::Auto, "required", HELLO).await;
        for version in VERSIONS {
            let done = world.say(&vestibule, Some("alice"), &[version]).await;
            assert!(done.err.contains("certificate revoked"), "{}", done.err);
        }
    }
}

#[tokio::test]
async fn a_list_revokes_only_certificates_that_its_own_key_has_signed() {
    let world = World::new();
    // The same authority with its next key.
    let renewed = Authority::root("clients");
    replace(
        &world.path("clients.pem"),
        &(world.root.pem() + &renewed.pem()),
    );
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    let bob = world.client(&renewed, "bob", &Subject::named("bob"));
    let lists = |old: &[u64], new: &[u64]| world.root.revocations(old) + &renewed.revocations(new);

    replace(
        &world.path("revoked.pem"),
        &lists(&[bob.serial], &[alice.serial]),
    );
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    for name in ["alice", "bob"] {
        let facts = facts(world.say(&vestibule, Some(name), &[]).await);
        assert_eq!(facts["identity"]["cn"], name);
    }
    replace(
        &world.path("revoked.pem"),
        &lists(&[alice.serial], &[bob.serial]),
    );
    vestibule.said("reloaded", 1).await;
    for name in ["alice", "bob"] {
        let done = world.say(&vestibule, Some(name), &["-tls1_3"]).await;
        assert!(done.err.contains("certificate revoked"), "{}", done.err);
    }
}

/// Names may be encoded differently: the same key has signed the certificates and the list.
#[tokio::test]
async fn a_list_is_matched_by_its_key_and_not_by_the_encoding_of_its_issuer() {
    let world = World::new();
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    let carol = world.client(&world.below, "carol", &Subject::named("carol"));
    let printable = |name: &str| DnValue::PrintableString(name.try_into().expect("ASCII"));
    for lists in [
        world
            .root
            .revocations_as(printable("clients"), &[alice.serial]),
        world.root.revocations_as("CLIENTS", &[alice.serial]),
        world.root.revocations_as("another name", &[alice.serial]),
    ] {
        let below = [
            world
                .below
                .revocations_as(printable("clients of a branch"), &[carol.serial]),
            world
                .below
                .revocations_as("Clients  of a Branch", &[carol.serial]),
            world
                .below
                .revocations_as("a branch of another name", &[carol.serial]),
        ];
        for below in below {
            replace(&world.path("revoked.pem"), &format!("{lists}{below}"));
            let vestibule = world.start(Relay::Auto, "required", HELLO).await;
            for name in ["alice", "carol"] {
                let done = world.say(&vestibule, Some(name), &["-tls1_3"]).await;
                assert!(
                    done.err.contains("certificate revoked"),
                    "{name}: {}",
                    done.err
                );
            }
            assert_eq!(vestibule.terminate().await, Some(0));
        }
    }
}

/// `openssl ca -gencrl` makes version 1 lists if its configuration has no extensions.
#[tokio::test]
async fn a_list_of_version_1_is_in_force() {
    let world = World::new();
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    world.client(&world.root, "bob", &Subject::named("bob"));
    for extensions in ["", "crl_extensions = crl"] {
        let list = world
            .root
            .revocations_by_openssl(extensions, &[], &[alice.serial]);
        replace(&world.path("revoked.pem"), &list);
        let vestibule = world.start(Relay::Auto, "required", HELLO).await;
        let done = world.say(&vestibule, Some("alice"), &[]).await;
        assert!(done.err.contains("certificate revoked"), "{}", done.err);
        let facts = facts(world.say(&vestibule, Some("bob"), &[]).await);
        assert_eq!(facts["identity"]["cn"], "bob");
        assert_eq!(vestibule.terminate().await, Some(0));
    }
}

/// A list in the name of an intermediate, signed by another key than the client's intermediate has.
/// Nobody can tell whether it revokes the client.
#[tokio::test]
async fn a_list_that_its_issuer_has_not_signed_refuses_the_issuers_clients() {
    let world = World::new();
    let carol = world.client(&world.below, "carol", &Subject::named("carol"));
    world.client(&world.root, "alice", &Subject::named("alice"));
    let namesake = Authority::root("clients of a branch");
    let forged = namesake.revocations(&[carol.serial]);
    let unnamed = namesake.revocations_by_openssl("", &[], &[carol.serial]);
    for lists in [
        forged.clone(),
        unnamed.clone(),
        namesake.revocations_as("CLIENTS OF A BRANCH", &[]),
        world.below.revocations(&[]) + &unnamed,
    ] {
        replace(&world.path("revoked.pem"), &lists);
        let vestibule = world.start(Relay::Auto, "required", HELLO).await;
        for version in VERSIONS {
            let done = world.say(&vestibule, Some("carol"), &[version]).await;
            assert!(done.err.contains("SSL alert number 48"), "{}", done.err);
            assert!(done.out.is_empty());
            // The list is not in the name of her issuer.
            let facts = facts(world.say(&vestibule, Some("alice"), &[version]).await);
            assert_eq!(facts["identity"]["cn"], "alice");
        }
        assert_eq!(vestibule.terminate().await, Some(0));
    }
    // A list of a former key, beside one of the present key.
    replace(
        &world.path("revoked.pem"),
        &(forged + &world.below.revocations(&[])),
    );
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    let facts = facts(world.say(&vestibule, Some("carol"), &[]).await);
    assert_eq!(facts["identity"]["cn"], "carol");
}

#[tokio::test]
async fn a_list_whose_signature_cannot_be_verified_is_an_error() {
    let world = World::new();
    let rsa = Authority::rsa_root("clients");
    replace(&world.path("clients.pem"), &(world.root.pem() + &rsa.pem()));
    let good = rsa.revocations_by_openssl("", &["-md", "sha256"], &[7]);
    for (list, why) in [
        (
            rsa.revocations_by_openssl("", &["-md", "sha1"], &[7]),
            "SHA-1 and RSA",
        ),
        (
            world
                .root
                .revocations_by_openssl("", &["-md", "sha1"], &[7]),
            "SHA-1 and ECDSA",
        ),
        (
            rsa.revocations_by_openssl("", &pss("rsa_pss_saltlen:20"), &[7]),
            "RSA-PSS",
        ),
    ] {
        let (code, said) = check(&world, good.clone() + &list).await;
        assert_eq!(code, Some(2), "{}", said);
        assert!(said.contains(why), "{}", said);
        assert!(said.contains("vestibule.toml:8:7: "), "{}", said);
    }
    let (code, said) = check(
        &world,
        good + &rsa.revocations_by_openssl("", &pss("rsa_pss_saltlen:32"), &[7, 8]),
    )
    .await;
    assert_eq!(code, Some(0), "{}", said);
    for line in [
        "  revocation list: CN=clients; 1 entry; next update 21",
        "  revocation list: CN=clients; 2 entries; next update 21",
    ] {
        assert!(said.contains(line), "{}", said);
    }
    assert!(!said.contains("warning"), "{}", said);
    // No authority has signed it, as far as is known before a client connects.
    let (code, said) = check(&world, Authority::root("somebody else").revocations(&[])).await;
    assert_eq!(code, Some(0), "{}", said);
    let warning = "warning: ";
    assert!(said.contains(warning), "{}", said);
    assert!(
        said.contains("signed the revocation list of CN=somebody else"),
        "{}",
        said
    );
}

/// RSA-PSS, with a salt length in the form that openssl expects.
fn pss(salt: &'static str) -> [&'static str; 4] {
    ["-sigopt", "rsa_padding_mode:pss", "-sigopt", salt]
}

/// The output of `vestibule check` for a configuration with this list.
async fn check(world: &World, list: String) -> (Option<i32>, String) {
    let config = CHECKED.replace("CERTS", concat!(env!("CARGO_MANIFEST_DIR"), "/certs"));
    replace(&world.path("vestibule.toml"), &config);
    replace(&world.path("revoked.pem"), &list);
    let mut command = common::process::vestibule();
    command
        .args(["check", "-c"])
        .arg(world.path("vestibule.toml"));
    let done = output(command).await;
    let said = String::from_utf8_lossy(&done.out).into_owned() + &done.err;
    (done.code, said)
}

const CHECKED: &str = "[[listener]]\nname = \"tcp\"\naddress = \"tcp:127.0.0.1:0\"\n[listener.tls]\n\
    certificates = [ { chain = \"CERTS/server.pem\", key = \"CERTS/server-key.pem\" } ]\n\
    client_auth = \"required\"\nclient_ca = \"clients.pem\"\ncrl = \"revoked.pem\"\n\
    [[backend]]\nname = \"hello\"\nto = \"hello\"\n";

#[tokio::test]
async fn a_list_that_its_authority_has_not_signed_changes_nothing() {
    let world = World::new();
    let alice = world.client(&world.root, "alice", &Subject::named("alice"));
    let vestibule = world.start(Relay::Auto, "required", HELLO).await;
    let forged = Authority::root("clients").revocations(&[alice.serial]);
    replace(&world.path("revoked.pem"), &forged);
    let event = vestibule
        .event(|event| message(event).starts_with("reload failed"))
        .await;
    let why = "an authority in `client_ca` has the issuer name of the revocation list, but did not sign it";
    assert!(message(&event).contains(why), "{event}");
    let facts = facts(world.say(&vestibule, Some("alice"), &[]).await);
    assert_eq!(facts["identity"]["cn"], "alice");
}
