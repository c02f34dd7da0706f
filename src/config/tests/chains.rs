//! The problems that peers would find in a chain are reported at start.

use std::path::Path;
use std::process::Command;

use super::*;

/// Certificates made by openssl: a root, an authority, and our certificate.
struct Chain {
    directory: tempfile::TempDir,
}

const AUTHORITY: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
const OWN: &str = "subjectAltName=DNS:it.example,IP:192.0.2.1";

impl Chain {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let chain = Self { directory };
        chain.issue("root", "root", AUTHORITY, "-sha256");
        chain.issue("other", "other", AUTHORITY, "-sha256");
        chain.issue("good", "root", AUTHORITY, "-sha256");
        chain.issue("own", "good", OWN, "-sha256");
        chain
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes `NAME.pem`, with the key `NAME-key.pem`.
    fn issue(&self, name: &str, issuer: &str, extensions: &str, hash: &str) {
        let file = self.path().join("extensions");
        fs::write(file, format!("{extensions}\n")).expect("a file");
        if !self.path().join(format!("{name}-key.pem")).exists() {
            self.openssl(&format!(
                "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}-key.pem"
            ));
        }
        self.openssl(&format!(
            "req -new -key {name}-key.pem -subj /CN={name} -out request.pem"
        ));
        let signer = match name == issuer {
            true => format!("-signkey {name}-key.pem"),
            false => format!("-CA {issuer}.pem -CAkey {issuer}-key.pem -CAcreateserial"),
        };
        self.openssl(&format!(
            "x509 -req -in request.pem {signer} {hash} -days 100 -extfile extensions -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace());
        let done = command.current_dir(self.path()).output().expect("openssl");
        assert!(done.status.success(), "{arguments}: {done:?}");
    }

    /// A configuration with these certificates in its chain.
    fn load(&self, names: &[&str]) -> Config {
        let read = |name: &&str| {
            let path = self.path().join(format!("{name}.pem"));
            fs::read_to_string(path).expect("a certificate")
        };
        let chain: String = names.iter().map(read).collect();
        fs::write(self.path().join("chain.pem"), chain).expect("a file");
        let files = format!(
            "certificates = [{{ chain = \"chain.pem\", key = \"{}-key.pem\" }}]",
            names[0]
        );
        let text = format!("{LISTENER}[listener.tls]\n{files}\n{BACKEND}");
        let file = self.path().join("vestibule.toml");
        fs::write(&file, text).expect("a file");
        Config::from_file(file).expect("a configuration")
    }

    /// Asserts the exact warnings, and the exact problems for which `check` fails.
    #[track_caller]
    fn says(&self, names: &[&str], warnings: &[&str], errors: &[&str]) {
        let config = self.load(names);
        for (found, expected) in [(config.warnings(), warnings), (config.expired(), errors)] {
            assert_eq!(found.len(), expected.len(), "{names:?}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.message.contains(expected), "{names:?}: {found:?}");
            }
        }
    }
}

#[test]
fn a_valid_chain_gets_no_warning() {
    let chain = Chain::new();
    for names in [&["own"][..], &["own", "good"], &["own", "good", "root"]] {
        chain.says(names, &[], &[]);
    }
    // A self-signed certificate, as `openssl req -x509` makes it.
    let own = format!("basicConstraints=critical,CA:TRUE\n{OWN}");
    chain.issue("own", "own", &own, "-sha256");
    chain.says(&["own"], &[], &[]);
}

#[test]
fn an_authority_that_may_not_issue_is_a_problem() {
    let chain = Chain::new();
    for (extensions, expected) in [
        (
            "basicConstraints=CA:FALSE",
            "certificate 2 (CN=good) is not a certificate authority",
        ),
        (
            "subjectAltName=DNS:good",
            "certificate 2 (CN=good) is not a certificate authority",
        ),
        (
            "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature",
            "does not have keyCertSign",
        ),
        (
            "basicConstraints=CA:TRUE\nextendedKeyUsage=clientAuth",
            "may not issue certificates for servers",
        ),
        (
            "basicConstraints=CA:TRUE\nnameConstraints=excluded;DNS:example",
            "may not issue certificates for it.example, because of its name constraints",
        ),
        (
            "basicConstraints=CA:TRUE\nnameConstraints=permitted;DNS:t.example",
            "may not issue certificates for it.example",
        ),
        (
            "basicConstraints=CA:TRUE\nnameConstraints=permitted;DNS:.it.example",
            "may not issue certificates for it.example",
        ),
        (
            "basicConstraints=CA:TRUE\nnameConstraints=excluded;IP:192.0.2.0/255.255.255.0",
            "may not issue certificates for 192.0.2.1",
        ),
    ] {
        chain.issue("good", "root", extensions, "-sha256");
        chain.says(&["own", "good", "root"], &[], &[expected]);
    }
    for permitted in [
        "permitted;DNS:EXAMPLE",
        "permitted;DNS:it.example",
        "permitted;DNS:.example",
        "permitted;email:example",
        "excluded;DNS:t.example",
        "excluded;DNS:.it.example",
        "permitted;IP:192.0.0.0/255.255.0.0",
        "excluded;IP:198.51.100.0/255.255.255.0",
    ] {
        let extensions = format!("basicConstraints=CA:TRUE\nnameConstraints={permitted}");
        chain.issue("good", "root", &extensions, "-sha256");
        chain.says(&["own", "good", "root"], &[], &[]);
    }
}

#[test]
fn a_pathlen_counts_the_authorities_below() {
    let chain = Chain::new();
    for (above, below, errors) in [
        (1, 0, &[][..]),
        (
            0,
            0,
            &[
                "certificate 3 (CN=good) has a pathlen of 0, but the chain has more authorities below it (1)",
            ],
        ),
    ] {
        let authority = |pathlen| format!("basicConstraints=critical,CA:TRUE,pathlen:{pathlen}");
        chain.issue("good", "root", &authority(above), "-sha256");
        chain.issue("branch", "good", &authority(below), "-sha256");
        chain.issue("own", "branch", OWN, "-sha256");
        chain.says(&["own", "branch", "good"], &[], errors);
    }
}

/// rustls, for example, checks nothing of a trusted root except its name constraints.
#[test]
fn a_root_that_may_not_issue_is_a_warning() {
    let chain = Chain::new();
    chain.issue("root", "root", "basicConstraints=CA:FALSE", "-sha256");
    let expected =
        "many peers refuse the chain: its certificate 3 (CN=root) is not a certificate authority";
    chain.says(&["own", "good", "root"], &[expected], &[]);
}

#[test]
fn a_signature_with_a_broken_hash_is_warned_of_except_for_a_root() {
    let chain = Chain::new();
    chain.issue("root", "root", AUTHORITY, "-sha1");
    chain.says(&["own", "good", "root"], &[], &[]);
    chain.issue("good", "root", AUTHORITY, "-sha1");
    let expected = "certificate 2 of the chain (CN=good) is signed with SHA-1";
    chain.says(&["own", "good", "root"], &[expected], &[]);
    chain.issue("good", "root", AUTHORITY, "-sha256");
    chain.issue("own", "good", OWN, "-sha1");
    let expected = "certificate 1 of the chain (CN=own) is signed with SHA-1";
    chain.says(&["own", "good"], &[expected], &[]);
}

#[test]
fn a_certificate_without_a_host_name_is_warned_of() {
    let chain = Chain::new();
    for extensions in [
        "basicConstraints=CA:FALSE",
        "subjectAltName=email:a@it.example",
    ] {
        chain.issue("own", "good", extensions, "-sha256");
        let expected = "has no DNS name or IP address as subjectAltName";
        chain.says(&["own", "good"], &[expected], &[]);
    }
    chain.issue("own", "good", "subjectAltName=IP:192.0.2.1", "-sha256");
    chain.says(&["own", "good"], &[], &[]);
}

#[test]
fn a_certificate_that_does_not_belong_in_the_chain_is_named() {
    let chain = Chain::new();
    for (names, expected) in [
        (
            &["own", "own", "good"][..],
            "certificate 2 of the chain (CN=own) is the same as certificate 1; remove",
        ),
        (
            &["own", "good", "good", "root"],
            "certificate 3 of the chain (CN=good) is the same as certificate 2; remove",
        ),
        (
            &["own", "good", "root", "other"],
            "certificate 4 of the chain (CN=other) issued none of the others; remove it",
        ),
        (
            &["own", "other", "good", "root"],
            "certificate 2 of the chain (CN=other) issued none of the others",
        ),
        (
            &["own", "root", "good"],
            "certificate 2 of the chain (CN=root) is before certificate 3 (CN=good), which it issued",
        ),
        (
            &["own", "root"],
            "put the intermediate certificate of CN=good there, or remove certificate 2 if CN=good is a root",
        ),
    ] {
        chain.says(names, &[expected], &[]);
    }
}

/// This happens when an authority was created again with its old name.
#[test]
fn an_authority_of_the_right_name_with_another_key_is_named() {
    let chain = Chain::new();
    fs::remove_file(chain.path().join("good-key.pem")).expect("a file");
    chain.issue("good", "root", AUTHORITY, "-sha256");
    let expected = "certificate 2 of the chain (CN=good) has the name of the issuer of CN=own, but not its key";
    chain.says(&["own", "good"], &[expected], &[]);
}

#[test]
fn a_key_usage_without_digital_signature_is_warned_of() {
    let chain = Chain::new();
    for (usage, warnings) in [
        ("digitalSignature", &[][..]),
        ("digitalSignature,keyEncipherment", &[]),
        ("keyEncipherment", &["does not have digitalSignature"]),
        ("keyCertSign", &["does not have digitalSignature"]),
    ] {
        chain.issue(
            "own",
            "good",
            &format!("{OWN}\nkeyUsage={usage}"),
            "-sha256",
        );
        chain.says(&["own", "good"], warnings, &[]);
    }
}

/// Authorities do this when they move to another root.
#[test]
fn a_second_certificate_of_an_authority_by_another_root_belongs_there() {
    let chain = Chain::new();
    for name in ["good.pem", "good-key.pem"] {
        fs::copy(
            chain.path().join(name),
            chain.path().join(format!("crossed{}", &name[4..])),
        )
        .expect("a file");
    }
    chain.issue("good", "other", AUTHORITY, "-sha256");
    chain.says(&["own", "crossed", "good"], &[], &[]);
    chain.says(&["own", "crossed", "root", "good", "other"], &[], &[]);
}

#[test]
fn a_chain_that_ends_before_an_unknown_authority_is_explained() {
    let chain = Chain::new();
    let summary = |names: &[&str]| chain.load(names).summary().to_string();
    let hint = "the last certificate of the chain is signed by CN=good: clients must trust this authority; if it is an intermediate authority, append its certificate to this file";
    assert!(summary(&["own"]).contains(hint), "{}", summary(&["own"]));
    assert!(!summary(&["own", "good", "root"]).contains("signed by"));
}
