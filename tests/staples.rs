//! OCSP responses are stapled for clients that ask, and checked before that.

mod common;

use std::fs;
use std::sync::Arc;

use common::pki::{Authority, Issued, Status, Subject, replace};
use common::process::{self, Done, tool};
use common::vestibule::{RELAYS, Relay, Vestibule, complete};
use tempfile::TempDir;

/// Server certificates in a directory: `under` has its issuer's certificate in the chain, `root`
/// does not.
struct World {
    directory: Arc<TempDir>,
    root: Authority,
    below: Authority,
    under: Issued,
    alone: Issued,
}

impl World {
    fn new() -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let root = Authority::root("servers");
        let (below, _) = root.intermediate("servers of a branch");
        let under = below.issue(&Subject::host(&["localhost"]));
        let alone = root.issue(&Subject::host(&["localhost"]));
        under.write(directory.path(), "under");
        alone.write(directory.path(), "alone");
        replace(&directory.path().join("root.pem"), &root.pem());
        Self {
            directory,
            root,
            below,
            under,
            alone,
        }
    }

    fn staple(&self, name: &str, response: &[u8]) {
        let path = self.directory.path().join(format!("{name}.der"));
        fs::write(path, response).expect("a file");
    }

    /// The output of `vestibule check` with these keys under `[listener.tls]`.
    async fn check(&self, keys: &str) -> (Option<i32>, String) {
        let path = self.directory.path().join("checked.toml");
        let text = complete(&self.directory, &config(Relay::Auto, keys));
        fs::write(&path, text).expect("a file");
        let mut command = process::vestibule();
        command.args(["check", "-c"]).arg(path);
        let done = process::output(command).await;
        let said = String::from_utf8_lossy(&done.out).into_owned() + &done.err;
        (done.code, said)
    }

    /// Checks a response for the certificate `name`, in its entry.
    async fn check_answer(&self, name: &str, response: &[u8]) -> (Option<i32>, String) {
        self.staple("checked", response);
        self.check(&entry(name, ", ocsp = \"{dir}/checked.der\""))
            .await
    }

    async fn ask(&self, vestibule: &Vestibule, options: &[&str]) -> Done {
        let mut command = tool("openssl");
        command
            .args(["s_client", "-connect", &vestibule.tcp()])
            .args(["-servername", "localhost", "-verify_return_error"])
            .arg("-CAfile")
            .arg(self.directory.path().join("root.pem"))
            .args(options);
        process::run(command, b"GET / HTTP/1.0\r\n\r\n").await
    }
}

fn entry(name: &str, rest: &str) -> String {
    format!(
        "certificates = [ {{ chain = \"{{dir}}/{name}.pem\", key = \"{{dir}}/{name}-key.pem\"{rest} }} ]"
    )
}

fn config(relay: Relay, keys: &str) -> String {
    format!(
        "{}[[listener]]\nname = \"tcp\"\naddress = \"tcp:127.0.0.1:0\"\n[listener.tls]\n{keys}\n\
         [[backend]]\nname = \"hello\"\nto = \"hello\"\n",
        relay.config()
    )
}

#[tokio::test]
async fn a_client_that_asks_gets_the_staple() {
    let world = World::new();
    let good = world
        .below
        .answer(world.under.serial, Status::Good, &world.below.signer());
    world.staple("good", &good);
    let ocsp = "ocsp = \"{dir}/good.der\"";
    for relay in RELAYS {
        for keys in [
            entry("under", &format!(", {ocsp}")),
            // A listener with one certificate may have the key beside it.
            format!("{}\n{ocsp}", entry("under", "")),
        ] {
            let config = config(relay, &keys);
            let vestibule = Vestibule::start_whole(Arc::clone(&world.directory), &config).await;
            for version in ["-tls1_2", "-tls1_3"] {
                let said = world.ask(&vestibule, &["-status", version]).await.text();
                assert!(said.contains("OCSP Response Status: successful"), "{said}");
                assert!(said.contains("Cert Status: good"), "{said}");
                let serial = format!("Serial Number: {:04X}", world.under.serial);
                assert!(said.contains(&serial), "{said}");
                let said = world.ask(&vestibule, &[version]).await.text();
                assert!(!said.contains("OCSP Response Status"), "{said}");
            }
            assert_eq!(vestibule.terminate().await, Some(0));
        }
    }
}

#[tokio::test]
async fn a_good_response_is_accepted_from_every_authorized_signer() {
    let world = World::new();
    let World {
        root,
        below,
        under,
        alone,
        ..
    } = &world;
    let appointed = below.issue(&Subject {
        responder: true,
        ..Subject::named("responder")
    });
    for (name, response) in [
        (
            "under",
            below.answer(under.serial, Status::Good, &below.signer()),
        ),
        (
            "under",
            below.answer(under.serial, Status::Good, &appointed),
        ),
        (
            "alone",
            root.answer(alone.serial, Status::Good, &root.signer()),
        ),
    ] {
        let (code, said) = world.check_answer(name, &response).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("OCSP"), "{said}");
    }
}

#[tokio::test]
async fn a_bad_response_is_refused_with_the_reason() {
    let world = World::new();
    let World {
        root,
        below,
        under,
        alone,
        ..
    } = &world;
    let by_below = below.signer();
    let answer = |serial, status| below.answer(serial, status, &by_below);
    let other = below.issue(&Subject::named("other"));
    let same_name = Authority::root("servers of a branch");
    let changed = dated(answer(under.serial, Status::Good), [YEAR_2000, YEAR_2099]);
    for (name, response, expected) in [
        (
            "under",
            answer(other.serial, Status::Good),
            "the OCSP response is for another certificate",
        ),
        (
            "alone",
            answer(alone.serial, Status::Good),
            "the OCSP response is for another certificate",
        ),
        (
            "under",
            same_name.answer(under.serial, Status::Good, &same_name.signer()),
            "the OCSP response is for another certificate",
        ),
        (
            "under",
            answer(under.serial, Status::Revoked),
            "the OCSP response says that the certificate was revoked on 2026-01-01T00:00:00Z",
        ),
        (
            "alone",
            root.answer(alone.serial, Status::Unknown, &root.signer()),
            "the OCSP responder does not know the certificate",
        ),
        (
            "under",
            // A certificate from the same issuer that is not an OCSP responder.
            below.answer(under.serial, Status::Good, &other),
            "neither the certificate's issuer nor its responder signed the OCSP response",
        ),
        (
            "under",
            changed,
            "neither the certificate's issuer nor its responder signed the OCSP response",
        ),
        (
            "under",
            b"garbage".to_vec(),
            "not an OCSP response (RFC 6960) in DER: ",
        ),
    ] {
        let (code, said) = world.check_answer(name, &response).await;
        assert_eq!(code, Some(2), "{expected}: {said}");
        let expected = format!("checked.der: {expected}");
        assert!(said.contains(&expected), "{said}\nnot {expected}");
    }
}

#[tokio::test]
async fn a_stale_response_is_a_warning() {
    let world = World::new();
    // The issuer's key is not in the chain, so nothing can verify the signature over these dates.
    let answer = world
        .root
        .answer(world.alone.serial, Status::Good, &world.root.signer());
    for (dates, expected) in [
        ([YEAR_2000, YEAR_2099], None),
        (
            [YEAR_2000, YEAR_2000],
            Some("the OCSP response is stale since 2000-01-01T00:00:00Z; replace it"),
        ),
        (
            [YEAR_2099, YEAR_2099],
            Some("the OCSP response is not valid before 2099-01-01T00:00:00Z"),
        ),
    ] {
        let (code, said) = world
            .check_answer("alone", &dated(answer.clone(), dates))
            .await;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.contains("checked.der: "), expected.is_some(), "{said}");
        assert!(said.contains(expected.unwrap_or_default()), "{said}");
    }
}

const YEAR_2000: &[u8; 15] = b"20000101000000Z";
const YEAR_2099: &[u8; 15] = b"20990101000000Z";

/// The response with another `thisUpdate` and `nextUpdate`, which are its second and third times.
fn dated(mut response: Vec<u8>, dates: [&[u8; 15]; 2]) -> Vec<u8> {
    let times: Vec<usize> = response
        .windows(17)
        .enumerate()
        .filter(|(_, it)| it.starts_with(&[0x18, 15]) && it.ends_with(b"Z"))
        .map(|(at, _)| at + 2)
        .collect();
    for (at, date) in times[1..3].iter().zip(dates) {
        response[*at..at + 15].copy_from_slice(date);
    }
    response
}

#[tokio::test]
async fn a_staple_beside_several_certificates_is_an_error_that_names_its_place() {
    let world = World::new();
    let response = world
        .below
        .answer(world.under.serial, Status::Good, &world.below.signer());
    world.staple("good", &response);
    let one = "{ chain = \"{dir}/under.pem\", key = \"{dir}/under-key.pem\" }";
    for (keys, expected) in [
        (
            format!("certificates = [ {one}, {one} ]\nocsp = \"{{dir}}/good.der\""),
            "`listener.tls.ocsp`: there are several certificates; move `ocsp` into the entry of its certificate: { chain = \"…\", key = \"…\", ocsp = \"…\" }",
        ),
        (
            format!(
                "{}\nocsp = \"{{dir}}/good.der\"",
                entry("under", ", ocsp = \"{dir}/good.der\"")
            ),
            "`listener.tls.ocsp`: the certificate has its own `ocsp`; remove one of the two",
        ),
        (
            format!("{}\nocsp = \"{{dir}}/none.der\"", entry("under", "")),
            "`listener.tls.ocsp`: cannot read ",
        ),
    ] {
        let (code, said) = world.check(&keys).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
