//! Which certificate a client gets, and which protocol (ALPN) is selected.

mod common;
mod hosts {
    mod protocols;
}

use std::sync::Arc;
use std::time::Duration;

use common::pki::{Authority, Issued, Subject, replace};
use common::process::{output, tool};
use common::vestibule::Vestibule;
use tempfile::TempDir;

/// Certificates in `NAME.pem` and `NAME-key.pem`, and a listener with all of them.
struct Site {
    directory: Arc<TempDir>,
    issued: Vec<(&'static str, Issued)>,
}

impl Site {
    fn new(subjects: Vec<(&'static str, Subject)>) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let authority = Authority::root("everybody");
        replace(&directory.path().join("ca.pem"), &authority.pem());
        let issue = |(name, subject): (&'static str, Subject)| {
            let issued = authority.issue(&subject);
            issued.write(directory.path(), name);
            (name, issued)
        };
        let issued = subjects.into_iter().map(issue).collect();
        Self { directory, issued }
    }

    async fn start(&self, rest: &str) -> Vestibule {
        let config = self.listener("tcp", "127.0.0.1:0") + rest;
        Vestibule::start_whole(Arc::clone(&self.directory), &config).await
    }

    fn listener(&self, name: &str, address: &str) -> String {
        let entries: Vec<String> = (self.issued.iter())
            .map(|(name, _)| {
                format!("{{ chain = \"{{dir}}/{name}.pem\", key = \"{{dir}}/{name}-key.pem\" }}")
            })
            .collect();
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"{address}\"\n[listener.tls]\n\
             certificates = [{}]\n",
            entries.join(",\n")
        )
    }

    /// The name of the certificate that `openssl s_client` gets, or the error.
    async fn shown(&self, vestibule: &Vestibule, options: &[&str]) -> Result<&'static str, String> {
        self.shown_at(&vestibule.tcp(), options).await
    }

    async fn shown_at(&self, address: &str, options: &[&str]) -> Result<&'static str, String> {
        let mut command = tool("openssl");
        command
            .args(["s_client", "-connect", address, "-showcerts"])
            .args(options);
        let done = output(command).await;
        let text = String::from_utf8_lossy(&done.out);
        let Some(start) = text.find("-----BEGIN CERTIFICATE-----") else {
            return Err(done.err);
        };
        let length = text[start..].find("-----END").expect("an end");
        let shown = text[start..start + length].replace(['\r', '\n'], "");
        let is_it = |(_, issued): &&(&str, Issued)| {
            issued.chain.replace(['\r', '\n'], "").starts_with(&shown)
        };
        let found = self.issued.iter().find(is_it).expect("one of ours");
        Ok(found.0)
    }
}

const HELLO: &str = "
[[backend]]
name = \"hello\"
to = \"hello\"
";

fn rsa(names: &[&str]) -> Subject {
    Subject {
        rsa: true,
        ..Subject::host(names)
    }
}

#[tokio::test]
async fn the_name_and_then_the_signature_algorithms_choose_the_certificate() {
    let site = Site::new(vec![
        ("first", Subject::host(&["first.example"])),
        ("a-rsa", rsa(&["a.example"])),
        ("a-ecdsa", Subject::host(&["a.example"])),
        ("wild", Subject::host(&["*.example"])),
        ("only-rsa", rsa(&["rsa.example"])),
    ]);
    let vestibule = site.start(HELLO).await;
    for (options, expected) in [
        (&["-servername", "first.example"][..], "first"),
        // The certificate that costs less CPU, whatever the order.
        (&["-servername", "a.example"], "a-ecdsa"),
        (&["-servername", "A.Example"], "a-ecdsa"),
        (&["-servername", "a.example", "-tls1_2"], "a-ecdsa"),
        (
            &["-servername", "a.example", "-sigalgs", "RSA-PSS+SHA256"],
            "a-rsa",
        ),
        (
            &["-servername", "a.example", "-tls1_2", "-cipher", "aRSA"],
            "a-rsa",
        ),
        (&["-servername", "b.example"], "wild"),
        (&["-servername", "rsa.example"], "only-rsa"),
        // Names that no certificate has, and no name.
        (&["-servername", "a.b.example"], "first"),
        (&["-servername", "example"], "first"),
        (&["-noservername"], "first"),
    ] {
        assert_eq!(
            site.shown(&vestibule, options).await,
            Ok(expected),
            "{options:?}"
        );
    }
}

#[tokio::test]
async fn an_unknown_name_is_refused_if_so_configured() {
    let site = Site::new(vec![("a", Subject::host(&["a.example"]))]);
    let vestibule = site
        .start(&format!("unknown_sni = \"refuse\"\n{HELLO}"))
        .await;
    let mut refused = 0;
    for options in [&["-servername", "b.example"][..], &["-noservername"]] {
        for version in ["-tls1_2", "-tls1_3"] {
            let options = [options, &[version]].concat();
            let said = site.shown(&vestibule, &options).await.expect_err("no name");
            assert!(said.contains("SSL alert number 112"), "{said}");
            assert!(said.contains("unrecognized name"), "{said}");
            refused += 1;
            vestibule.ended("handshake_failed", refused).await;
        }
    }
    let known = ["-servername", "a.example"];
    assert_eq!(site.shown(&vestibule, &known).await, Ok("a"));
}

#[tokio::test]
async fn a_client_without_sni_gets_the_certificate_for_the_address() {
    let site = Site::new(vec![
        ("a", Subject::host(&["a.example"])),
        ("here", Subject::host(&["here.example", "127.0.0.1"])),
    ]);
    for unknown in ["first", "refuse"] {
        let vestibule = site
            .start(&format!("unknown_sni = \"{unknown}\"\n{HELLO}"))
            .await;
        for version in ["-tls1_2", "-tls1_3"] {
            let nameless = ["-noservername", version];
            assert_eq!(site.shown(&vestibule, &nameless).await, Ok("here"));
            let named = ["-servername", "a.example", version];
            assert_eq!(site.shown(&vestibule, &named).await, Ok("a"));
        }
        assert_eq!(vestibule.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn the_certificate_for_the_address_uses_the_address_that_the_client_connected_to() {
    let site = Site::new(vec![
        ("a", Subject::host(&["a.example"])),
        ("four", Subject::host(&["127.0.0.1"])),
        ("six", Subject::host(&["::1"])),
    ]);
    // A dual-stack socket sees IPv4 addresses as IPv6 addresses.
    let vestibule = site.start(&(site.listener("all", "[::]:0") + HELLO)).await;
    let address = vestibule.address("all");
    let port = address.strip_prefix("[::]:").expect("all addresses");
    for (host, name) in [("127.0.0.1", "four"), ("[::1]", "six"), ("127.0.0.2", "a")] {
        let address = format!("{host}:{port}");
        let shown = site.shown_at(&address, &["-noservername"]).await;
        assert_eq!(shown, Ok(name), "{address}");
    }
}

/// RFC 6066 §3: literal addresses are not permitted in SNI.
#[tokio::test]
async fn an_ip_address_is_no_server_name_in_a_handshake_or_in_explain() {
    let site = Site::new(vec![("any", Subject::host(&["*.example"]))]);
    let denied = "[[route]]\nsni = \"**\"\ndeny = true\n[[route]]\nbackend = \"hello\"\n";
    let vestibule = site.start(&format!("{denied}{HELLO}")).await;
    for address in ["127.0.0.1", "::1"] {
        let shown = site.shown(&vestibule, &["-servername", address]).await;
        assert_eq!(shown, Ok("any"), "{address}");
        let mut command = common::process::vestibule();
        command
            .args(["check", "--explain", "--sni", address, "-c"])
            .arg(vestibule.path("vestibule.toml"));
        let done = output(command).await;
        assert_eq!((done.code, &done.out[..]), (Some(2), &b""[..]), "{address}");
        assert!(done.err.contains("leave --sni out"), "{}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    }
    vestibule.ended("done", 2).await;
}

/// This is not a promise about speed: the bound is many times what a release build takes.
#[tokio::test]
async fn ten_thousand_certificates_are_loaded_and_found() {
    const COUNT: usize = 10_000;
    let directory = Arc::new(tempfile::tempdir().expect("a directory"));
    let authority = Authority::root("everybody");
    // One key for all: making ten thousand would take longer than the rest of the test.
    let key = rcgen::KeyPair::generate().expect("a key");
    replace(&directory.path().join("key.pem"), &key.serialize_pem());
    let mut entries = String::new();
    for number in 0..COUNT {
        let pem = authority.certify(&format!("host-{number}.example"), &key);
        std::fs::write(directory.path().join(format!("{number}.pem")), pem).expect("a file");
        entries += &format!("{{ chain = \"{{dir}}/{number}.pem\", key = \"{{dir}}/key.pem\" }},\n");
    }
    let config = format!(
        "[[listener]]\nname = \"tcp\"\naddress = \"tcp:127.0.0.1:0\"\n[listener.tls]\n\
         certificates = [{entries}]\n{HELLO}"
    );
    let start = Vestibule::start_whole(Arc::clone(&directory), &config);
    let vestibule = common::within(Duration::from_secs(60), "the start", start).await;
    // The parsed chains and keys exist once for all workers: about 2 KiB for each certificate.
    let memory = vestibule.memory();
    assert!(memory < COUNT * 6 * 1024 + (32 << 20), "{memory} bytes");
    let mut command = tool("openssl");
    command
        .args(["s_client", "-connect", &vestibule.tcp()])
        .args(["-servername", "host-9999.example"]);
    command.arg("-CAfile").arg({
        let file = directory.path().join("ca.pem");
        replace(&file, &authority.pem());
        file
    });
    command.args(["-verify_hostname", "host-9999.example"]);
    let done = output(command).await;
    let said = String::from_utf8_lossy(&done.out).into_owned();
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}
