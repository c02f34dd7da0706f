//! The meaning of the flags of `vestibule run`: the same listener and backend as in a file.

use std::time::SystemTime;

use super::*;
use crate::identity::Identity;
use crate::proxy_protocol::ProxyProtocol;
use crate::route::{Query, RouteRefusal};
use crate::tls::client_auth::Demand;

/// A sidecar with the certificate of the tests, and their authority for a backend with TLS.
fn sidecar(to: &str) -> Sidecar {
    Sidecar {
        listen: "127.0.0.1:0".parse().expect("an address"),
        certificate: Some(("certs/server.pem".into(), "certs/server-key.pem".into())),
        client_ca: None,
        allow: Vec::new(),
        alpn: Vec::new(),
        to: vec![to.into()],
        log_format: LogFormat::Text,
        proxy_protocol: None,
        gate: None,
        admin: None,
        backend_ca: to.starts_with("tls:").then(|| "certs/ca.pem".into()),
        backend_certificate: None,
    }
}

fn problem_of(sidecar: &Sidecar) -> String {
    let error = Config::sidecar(sidecar).expect_err("a problem");
    error.to_string()
}

#[test]
fn a_sidecar_is_one_listener_and_one_backend() {
    let sidecar = |to: &str, gate: Option<&str>| Sidecar {
        gate: gate.map(PathBuf::from),
        ..sidecar(to)
    };
    for (to, gate, expected) in [
        ("tcp:127.0.0.1:9000", None, None),
        ("gate", None, Some("gate.sock")),
        ("gate", Some("/run/g"), Some("/run/g")),
        ("hello", Some("g"), Some("g")),
        ("tls:localhost:9000", None, None),
    ] {
        let config = Config::sidecar(&sidecar(to, gate)).expect("a configuration");
        let gate = config.gate.map(|gate| gate.path);
        assert_eq!(gate, expected.map(PathBuf::from), "{to}");
        let query = Query::default();
        assert_eq!(config.routes.choose(&query), Ok("default"));
        assert_eq!(config.backends[0].tls.is_some(), to.starts_with("tls:"));
    }
}

#[test]
fn wrong_flags_of_a_sidecar_are_reported() {
    assert_eq!(
        problem_of(&sidecar("9000")),
        "backend \"9000\": the port is missing; write `127.0.0.1:8443`, or `unix:/path` for a Unix socket; or write gate, hello or echo"
    );
    let greeted = |to: &str| Sidecar {
        proxy_protocol: Some(ProxyProtocol::V1),
        ..sidecar(to)
    };
    for to in ["tcp:127.0.0.1:9000", "gate"] {
        let config = Config::sidecar(&greeted(to)).expect("a configuration");
        assert_eq!(config.backends[0].proxy_protocol, Some(ProxyProtocol::V1));
    }
    assert_eq!(
        problem_of(&greeted("hello")),
        "backend \"hello\": hello and echo are built in and read no PROXY protocol header; leave it out"
    );
    let files = Some(("certs/server.pem".into(), "certs/client-key.pem".into()));
    let message = problem_of(&Sidecar {
        certificate: files,
        ..sidecar("echo")
    });
    assert!(
        message.starts_with("certs/client-key.pem: the private key belongs to no certificate"),
        "{message}"
    );
    for (to, why) in [
        ("tls:9000", "the port is missing"),
        ("tls:echo", "write a host and port after `tls:`"),
        ("tls:gate", "write a host and port after `tls:`"),
        (
            "tls:unix:/run/app.sock",
            "the host must be a name or an IP address",
        ),
    ] {
        let message = problem_of(&sidecar(to));
        assert!(message.contains(why), "{message}");
    }
    let message = problem_of(&Sidecar {
        backend_ca: Some("certs/ca-key.pem".into()),
        ..sidecar("tls:localhost:9000")
    });
    assert!(
        message.starts_with("certs/ca-key.pem: the bundle has no certificate"),
        "{message}"
    );
    let message = problem_of(&Sidecar {
        backend_ca: Some("certs/ca.pem".into()),
        ..sidecar("localhost:9000")
    });
    assert!(message.contains("tls:HOST:PORT"), "{message}");
}

/// The flags `--client-ca` and `--allow`.
#[test]
fn flags_select_the_clients_to_allow() {
    let sidecar = |ca: Option<&str>, allow: &[&str], to: &str| Sidecar {
        client_ca: ca.map(PathBuf::from),
        allow: allow.iter().map(|rule| (*rule).to_owned()).collect(),
        ..sidecar(to)
    };
    let ca = Some("certs/ca.pem");
    let config = Config::sidecar(&sidecar(ca, &["cn:alice", "ou:ops"], "echo"));
    let config = config.expect("a configuration");
    let tls = config.listeners[0].tls.as_ref().expect("TLS");
    let demand = tls.client_auth.as_ref().map(|it| it.demand());
    assert_eq!(demand, Some(Demand::Required));
    let choose = |cn: &str| {
        let identity = Identity {
            cn: Some(cn.into()),
            ..Identity::default()
        };
        let query = Query {
            identity: Some(&identity),
            ..Query::default()
        };
        config.routes.choose(&query).map(str::to_owned)
    };
    assert_eq!(choose("alice"), Ok("default".into()));
    assert_eq!(choose("bob"), Err(RouteRefusal::NoRoute));

    // If the listener has no TLS, the rules apply to the server.
    let client_mode = Sidecar {
        certificate: None,
        ..sidecar(None, &["dns:localhost"], "tls:localhost:9000")
    };
    let config = Config::sidecar(&client_mode).expect("a configuration");
    let towards = config.backends[0].tls.as_ref().expect("TLS");
    assert_eq!(towards.allow, ["dns:localhost".parse().expect("a rule")]);

    for (wrong, message) in [
        (
            sidecar(None, &["cn:alice"], "echo"),
            "--allow needs --client-ca, or `--to tls:HOST:PORT`",
        ),
        (
            sidecar(ca, &["alice"], "echo"),
            "rule \"alice\": an identity rule must start with `uri:`, `dns:`, `cn:`, `ou:` or `sha256:`",
        ),
        (
            sidecar(Some("certs/server-key.pem"), &[], "echo"),
            "certs/server-key.pem: the bundle has no certificate",
        ),
        (
            Sidecar {
                certificate: None,
                ..sidecar(ca, &[], "tls:localhost:9000")
            },
            "--client-ca needs --cert and --key",
        ),
    ] {
        let error = Config::sidecar(&wrong).expect_err("wrong").to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// As with a file, and also for the certificate that a backend gets.
#[test]
fn certificates_of_flags_are_checked_for_expiry() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, from, until| certify(directory.path(), name, from, until);
    let now = SystemTime::now();
    let good = write("good", now - DAY, now + 90 * DAY);
    let sidecar = |certificate: &(PathBuf, PathBuf), backend_certificate: &(PathBuf, PathBuf)| {
        let sidecar = Sidecar {
            certificate: Some(certificate.clone()),
            backend_certificate: Some(backend_certificate.clone()),
            ..sidecar("tls:localhost:9000")
        };
        let config = Config::sidecar(&sidecar).expect("a configuration");
        let said = |problems: &[Problem]| -> Vec<String> {
            problems.iter().map(|it| it.message.clone()).collect()
        };
        (said(config.warnings()), said(config.expired()))
    };
    assert_eq!(sidecar(&good, &good), (Vec::new(), Vec::new()));
    for (name, from, until, warns, expires) in [
        (
            "soon",
            now - 80 * DAY,
            now + 10 * DAY,
            "the certificate expires on ",
            "",
        ),
        (
            "late",
            now - 9 * DAY,
            now - DAY,
            "",
            "the certificate expired on ",
        ),
        (
            "early",
            now + DAY,
            now + 9 * DAY,
            "",
            "the certificate is not valid before ",
        ),
    ] {
        let odd = write(name, from, until);
        for (warnings, expired) in [sidecar(&odd, &good), sidecar(&good, &odd)] {
            for (said, expected) in [(warnings, warns), (expired, expires)] {
                let starts = format!("{}: {expected}", odd.0.display());
                let is_it = |line: &String| line.starts_with(&starts);
                assert_eq!(said.len(), usize::from(!expected.is_empty()), "{said:?}");
                assert!(said.iter().all(is_it), "{said:?}");
            }
        }
    }
}

/// Writes a certificate with these dates and its key to files.
fn certify(
    directory: &Path,
    name: &str,
    from: SystemTime,
    until: SystemTime,
) -> (PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["it.example".into()]);
    let mut params = params.expect("a name");
    (params.not_before, params.not_after) = (from.into(), until.into());
    let certificate = params.self_signed(&key).expect("a certificate");
    let path = |suffix: &str| directory.join(format!("{name}{suffix}.pem"));
    fs::write(path(""), certificate.pem()).expect("a file");
    fs::write(path("-key"), key.serialize_pem()).expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(path("-key"), mode).expect("a file");
    (path(""), path("-key"))
}

#[test]
fn a_flag_that_names_no_regular_file_is_refused() {
    let no_file = || PathBuf::from("/dev/zero");
    let right = || sidecar("tls:localhost:9000");
    Config::sidecar(&right()).expect("a configuration");
    for wrong in [
        Sidecar {
            certificate: Some((no_file(), "certs/server-key.pem".into())),
            ..right()
        },
        Sidecar {
            certificate: Some(("certs/server.pem".into(), no_file())),
            ..right()
        },
        Sidecar {
            client_ca: Some(no_file()),
            ..right()
        },
        Sidecar {
            backend_ca: Some(no_file()),
            ..right()
        },
        Sidecar {
            backend_certificate: Some((no_file(), no_file())),
            ..right()
        },
    ] {
        let error = Config::sidecar(&wrong).expect_err("no file").to_string();
        assert!(error.contains("/dev/zero: cannot read the "), "{error}");
        assert!(error.ends_with(": it is not a regular file"), "{error}");
    }
}
