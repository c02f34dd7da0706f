//! Scanners used in audits find nothing to improve in the defaults, nor with TLS 1.3 alone.

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::pki::{Authority, Subject, replace};
use common::process::{self, Done, python_tool, tool};
use common::vestibule::Vestibule;
use serde_json::Value;
use tokio::process::Command;

/// A Vestibule with a certificate like those of public authorities, and the defaults otherwise.
struct Target {
    vestibule: Vestibule,
    versions: Versions,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Versions {
    Default,
    Only13,
}

const ALL: [Versions; 2] = [Versions::Default, Versions::Only13];

impl Target {
    async fn start(versions: Versions) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let root = Authority::root("an authority");
        let host = root.issue(&Subject {
            cn: Some("localhost"),
            public: true,
            ..Subject::host(&["localhost"])
        });
        host.write(directory.path(), "server");
        replace(&directory.path().join("root.pem"), &root.pem());
        let versions_key = match versions {
            Versions::Default => "",
            Versions::Only13 => "min_version = \"1.3\"",
        };
        let config = format!(
            "[[listener]]
            name = \"tcp\"
            address = \"tcp:127.0.0.1:0\"
            [listener.tls]
            certificates = [ {{ chain = \"{{dir}}/server.pem\", key = \"{{dir}}/server-key.pem\" }} ]
            {versions_key}
            [[backend]]
            name = \"hello\"
            to = \"hello\""
        );
        Self {
            vestibule: Vestibule::start_whole(directory, &config).await,
            versions,
        }
    }

    fn root(&self) -> PathBuf {
        self.vestibule.path("root.pem")
    }

    /// Its address with the name in its certificate.
    fn named(&self) -> String {
        self.vestibule.tcp().replace("127.0.0.1", "localhost")
    }
}

/// A scan takes up to a minute on a busy machine.
async fn scan(command: Command) -> Done {
    process::run_within(Duration::from_secs(300), command, b"").await
}

// --- sslyze ------------------------------------------------------------------------------------

#[tokio::test]
async fn sslyze_finds_the_defaults_intermediate_and_tls_13_alone_modern() {
    for versions in ALL {
        let target = Target::start(versions).await;
        // The scanner distinguishes the two, so it has really looked.
        let is_modern = versions == Versions::Only13;
        for (profile, expected) in [("intermediate", true), ("modern", is_modern)] {
            let mut command = python_tool("sslyze");
            command
                .args(["--mozilla_config", profile, "--certinfo_ca_file"])
                .arg(target.root())
                .arg(target.named());
            let done = scan(command).await;
            let said = String::from_utf8_lossy(&done.out);
            let is_compliant = said.contains(": OK - Compliant.");
            assert_eq!(is_compliant, expected, "{versions:?} {profile}: {said}");
            assert_eq!(done.code, Some(i32::from(!is_compliant)), "{}", done.err);
        }
    }
}

// --- sslscan -----------------------------------------------------------------------------------

#[tokio::test]
async fn sslscan_finds_current_versions_and_ciphers_alone() {
    for versions in ALL {
        let target = Target::start(versions).await;
        let mut command = tool("sslscan");
        command
            .args(["--no-colour", "--xml=-", "--sni-name=localhost"])
            .arg(target.vestibule.tcp());
        let said = scan(command).await.text();
        let tags = |name: &str| -> Vec<&str> {
            let begins = format!("<{name} ");
            let lines = said.lines().map(str::trim);
            lines.filter(|line| line.starts_with(&begins)).collect()
        };
        let enabled: Vec<String> = tags("protocol")
            .into_iter()
            .filter(|tag| tag.contains("enabled=\"1\""))
            .map(|tag| attribute(tag, "type") + &attribute(tag, "version"))
            .collect();
        let expected: &[&str] = match versions {
            Versions::Default => &["tls1.2", "tls1.3"],
            Versions::Only13 => &["tls1.3"],
        };
        assert_eq!(enabled, expected, "{said}");
        let ciphers = tags("cipher");
        assert_eq!(ciphers.len(), 3 * expected.len(), "{said}");
        for cipher in ciphers {
            // sslscan calls the suites of TLS 1.3 "acceptable".
            let strength = attribute(cipher, "strength");
            assert!(["strong", "acceptable"].contains(&&*strength), "{cipher}");
            let name = attribute(cipher, "cipher");
            let is_current = name.starts_with("ECDHE-") || name.starts_with("TLS_");
            let is_aead = name.contains("GCM") || name.contains("CHACHA20");
            assert!(is_current && is_aead, "{cipher}");
        }
        assert!(!said.contains("vulnerable=\"1\""), "{said}");
        assert!(!said.contains("<compression supported=\"1\""), "{said}");
    }
}

fn attribute(tag: &str, name: &str) -> String {
    let value = tag.split_once(&format!(" {name}=\""));
    let value = value.and_then(|(_, rest)| rest.split_once('"'));
    value
        .unwrap_or_else(|| panic!("no {name} in {tag}"))
        .0
        .to_owned()
}

// --- testssl -----------------------------------------------------------------------------------

/// What testssl.sh reports, and why we keep it.
const EXPECTED: [(&str, &str); 3] = [
    (
        "cert_revocation",
        "the test's authority has no address to ask: about the certificate",
    ),
    (
        "DNS_CAArecord",
        "localhost has no such record: about the name",
    ),
    (
        "engine_problem",
        "the scanner's own openssl has no GOST engine: about the scanner",
    ),
];

#[tokio::test]
async fn testssl_finds_nothing_above_info() {
    let [default, only13] = ALL.map(|versions| async move {
        let target = Target::start(versions).await;
        let findings = target.vestibule.path("findings.json");
        let mut command = tool("testssl");
        command
            .args(["--quiet", "--color", "0", "--warnings", "off"])
            .args(["--ip", "127.0.0.1", "--nodns", "min"])
            .arg("--jsonfile")
            .arg(&findings)
            .arg("--add-ca")
            .arg(target.root())
            // Protocols, ciphers, forward secrecy, server preferences, and all known weaknesses.
            .args(["-p", "-s", "-f", "-S", "-P", "-U"])
            .arg(target.named());
        let done = scan(command).await;
        let findings = std::fs::read_to_string(&findings)
            .unwrap_or_else(|_| panic!("no findings: {}", String::from_utf8_lossy(&done.out)));
        check(&target, &serde_json::from_str(&findings).expect("JSON"));
    });
    tokio::join!(default, only13);
}

fn check(target: &Target, findings: &Value) {
    let findings = findings.as_array().expect("a list");
    let field = |finding: &Value, name| finding[name].as_str().expect("a string").to_owned();
    let of = |id: &str| {
        let finding = findings.iter().find(|finding| finding["id"] == id);
        field(
            finding.unwrap_or_else(|| panic!("not looked at: {id}")),
            "finding",
        )
    };
    let unexpected: Vec<&Value> = findings
        .iter()
        .filter(|finding| !["OK", "INFO"].contains(&&*field(finding, "severity")))
        .filter(|finding| !EXPECTED.iter().any(|(id, _)| finding["id"] == *id))
        .collect();
    assert!(
        unexpected.is_empty(),
        "{:?}: {unexpected:#?}",
        target.versions
    );
    // The scanner has looked, and found what is offered.
    let is_offered = |id| of(id).starts_with("offered");
    assert_eq!(is_offered("TLS1_2"), target.versions == Versions::Default);
    assert!(is_offered("TLS1_3"));
    assert!(
        of("cert_chain_of_trust").starts_with("passed"),
        "{}",
        of("cert_chain_of_trust")
    );
    for weakness in ["heartbleed", "ROBOT", "LUCKY13"] {
        of(weakness);
    }
}
