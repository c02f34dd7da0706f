//! Certificates are checked when they are read, and the key of the file at fault is pointed at.

use std::path::Path;

use tempfile::TempDir;

use super::*;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certs");

/// A directory with a configuration, of which line 5 names the two files.
fn directory(chain: &str, key: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let files = format!("certificates = [{{ chain = \"{chain}\", key = \"{key}\" }}]");
    let text = format!("{LISTENER}[listener.tls]\n{files}\n{BACKEND}");
    fs::write(directory.path().join("vestibule.toml"), text).expect("a file");
    directory
}

fn load(directory: &Path) -> Result<Config, ConfigError> {
    Config::from_file(directory.join("vestibule.toml"))
}

/// Where and what the problems are; `DIR` stands for the directory.
fn problems(directory: &Path) -> Vec<(usize, usize, String)> {
    let error = load(directory).expect_err("a problem");
    let name = directory.display().to_string();
    error
        .problems()
        .iter()
        .map(|p| (p.line, p.column, p.message.replace(&name, "DIR")))
        .collect()
}

fn copy(name: &str, directory: &Path) {
    fs::copy(Path::new(CERTS).join(name), directory.join(name)).expect("a certificate");
}

/// The column of the chain's file in a configuration of this module.
const CHAIN: usize = 27;

#[test]
fn paths_are_relative_to_the_file() {
    let directory = directory("tls/server.pem", "server-key.pem");
    let path = directory.path();
    fs::create_dir(path.join("tls")).expect("a directory");
    copy("server.pem", path);
    fs::rename(path.join("server.pem"), path.join("tls/server.pem")).expect("a file");
    copy("server-key.pem", path);
    let config = load(path).expect("a configuration");
    assert!(config.listeners[0].tls.is_some());

    let text = format!("[runtime]\ndirectory = \"run\"\n[gate]\npath = \"g\"\n{LISTENER}{BACKEND}");
    fs::write(path.join("vestibule.toml"), text).expect("a file");
    let config = load(path).expect("a configuration");
    assert_eq!(config.runtime.directory, Some(path.join("run")));
    let gate = config.gate.expect("a gate").path;
    assert_eq!(gate, Path::new("g"), "relative to the runtime directory");
}

#[test]
fn paths_of_which_none_is_beside_the_file_and_all_are_here_are_relative_to_here() {
    // Tests run in the top folder of the project.
    let directory = directory("certs/server.pem", "certs/server-key.pem");
    let config = load(directory.path()).expect("a configuration");
    assert_eq!(config.base(), Path::new(""));
    let [warning] = config.warnings() else {
        panic!("one warning, found {:?}", config.warnings());
    };
    assert!(warning.message.contains("working directory"), "{warning:?}");
    let again = directory.path().join("vestibule.toml");
    assert!(Config::from_file_in(&again, config.base()).is_ok());

    // One that is nowhere; and one that is there, if only as a link that leads nowhere.
    let nowhere = self::directory("certs/none.pem", "certs/server-key.pem");
    symlink_beside(&directory, "certs/server-key.pem");
    for directory in [&nowhere, &directory] {
        let problems = problems(directory.path());
        assert_eq!(problems.len(), 2, "{problems:?}");
        for (_, _, problem) in problems {
            assert!(problem.contains("cannot read DIR/certs/"), "{problem}");
        }
    }
}

#[test]
fn a_file_read_again_has_its_paths_where_they_were() {
    let directory = directory("certs/server.pem", "certs/server-key.pem");
    let (file, beside) = (directory.path().join("vestibule.toml"), directory.path());
    let error = Config::from_file_in(&file, beside).expect_err("nothing is there");
    assert_eq!(error.problems().len(), 2);
}

fn symlink_beside(directory: &TempDir, name: &str) {
    let path = directory.path().join(name);
    fs::create_dir(path.parent().expect("a directory")).expect("a directory");
    std::os::unix::fs::symlink("nowhere", path).expect("a link");
}

#[test]
fn absolute_paths_stay_what_they_are() {
    let chain = format!("{CERTS}/server.pem");
    let directory = directory(&chain, &format!("{CERTS}/server-key.pem"));
    assert!(load(directory.path()).is_ok());
}

#[test]
fn missing_files_are_all_named() {
    let directory = directory("chain.pem", "key.pem");
    let missing = "No such file or directory (os error 2)";
    assert_eq!(
        problems(directory.path()),
        [
            (
                5,
                CHAIN,
                format!("`listener.tls.certificates.chain`: cannot read DIR/chain.pem: {missing}")
            ),
            (
                5,
                CHAIN + 19,
                format!("`listener.tls.certificates.key`: cannot read DIR/key.pem: {missing}")
            ),
        ]
    );
}

#[test]
fn the_file_at_fault_is_pointed_at() {
    let chain_at = |chain: &str| (5, CHAIN, chain.to_owned());
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let read = |name: &str| fs::read_to_string(Path::new(CERTS).join(name)).expect("a file");
    let (chain, key) = (read("server.pem"), read("server-key.pem"));
    let key_at = |key: &str| (5, CHAIN + 19, key.to_owned());
    let garbage = |label: &str| format!("-----BEGIN {label}-----\n!!!\n-----END {label}-----\n");
    let not_a_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (chain, key, expected) in [
        (
            String::new(),
            key.clone(),
            chain_at(
                "DIR/chain.pem: there is no certificate in the chain file; it starts with \
                 -----BEGIN CERTIFICATE-----",
            ),
        ),
        (
            key.clone(),
            key.clone(),
            chain_at(
                "DIR/chain.pem: there is no certificate in the chain file; it starts with \
                 -----BEGIN CERTIFICATE-----",
            ),
        ),
        (
            garbage("CERTIFICATE"),
            key.clone(),
            chain_at("DIR/chain.pem: the certificate chain is not PEM: "),
        ),
        (
            VERSION_1.into(),
            key.clone(),
            chain_at("DIR/chain.pem: the first certificate of the chain is of version 1, which no"),
        ),
        (
            chain.clone(),
            String::new(),
            key_at(
                "DIR/key.pem: there is no private key in the key file; PKCS#8, PKCS#1 and SEC1 \
                 are read, unencrypted",
            ),
        ),
        (
            chain.clone(),
            garbage("PRIVATE KEY"),
            key_at("DIR/key.pem: the private key is not PEM: "),
        ),
        (
            chain.clone(),
            not_a_key.into(),
            key_at("DIR/key.pem: the private key cannot be used"),
        ),
        (
            chain.clone(),
            read("client-key.pem"),
            key_at(
                "DIR/key.pem: the private key does not belong to the first certificate of the \
                 chain",
            ),
        ),
    ] {
        fs::write(path.join("chain.pem"), chain).expect("a file");
        fs::write(path.join("key.pem"), key).expect("a file");
        let [(line, column, message)] = &problems(path)[..] else {
            panic!("one problem, found {:?}", problems(path));
        };
        assert_eq!((*line, *column), (expected.0, expected.1), "{message}");
        assert!(message.starts_with(&expected.2), "{message}");
    }
    fs::write(path.join("chain.pem"), read("server.pem")).expect("a file");
    fs::write(path.join("key.pem"), read("server-key.pem")).expect("a file");
    assert!(load(path).is_ok());
}

/// Two digits of a year are one of 1950 to 2049 (RFC 5280 §4.1.2.5.1).
#[test]
fn a_certificate_of_before_1970_is_expired_and_nothing_else() {
    let directory = directory("chain.pem", "key.pem");
    let key = rcgen::KeyPair::generate().expect("a key");
    for (from, until) in [(1950, 1951), (1960, 1969), (1969, 1970), (1950, 2049)] {
        let mut params = rcgen::CertificateParams::new(["it.example".into()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(directory.path().join("chain.pem"), certificate.pem()).expect("a file");
        fs::write(directory.path().join("key.pem"), key.serialize_pem()).expect("a file");
        let config = load(directory.path()).expect("a configuration");
        let expired: Vec<_> = config.expired().iter().map(|it| &it.message).collect();
        match until {
            2049 => assert!(expired.is_empty(), "{expired:?}"),
            _ => {
                let expected = format!("the certificate expired on {until}-01-01T00:00:00Z");
                assert!(expired[0].ends_with(&expected), "{expired:?}");
            }
        }
        let summary = config.summary().to_string();
        let expected = format!("it.example; ECDSA 256; until {until}-01-01T00:00:00Z");
        assert!(summary.contains(&expected), "{summary}");
    }
}

/// As `openssl x509 -req` makes it that is given no extensions.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBGDCBvwIUQpiYIJ8C6fW+I6KGnOrrEsC0TJAwCgYIKoZIzj0EAwIwDjEMMAoG
A1UEAwwDb2xkMCAXDTI2MTEyNTA3NDQ0NFoYDzIxMjYxMTAxMDc0NDQ0WjAOMQww
CgYDVQQDDANvbGQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQR1c2H++JdYGfp
WInCaXMRi4afMPO47bC8Wnn9GU0hjsf8MvEzKWC2jksZ74wIMvEak7udLQhek+F5
n3R4VZU+MAoGCCqGSM49BAMCA0gAMEUCIAF5IsFIIIWZbFTlEQ+H2mLEhpe2mza1
wt2hspb4qEowAiEAmoiprsNVJsQWRw1o2IHiAEFtZPZ3wRbQfsvcLHnRMQk=
-----END CERTIFICATE-----
";

#[test]
fn no_private_key_is_in_a_message() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let key = fs::read_to_string(Path::new(CERTS).join("server-key.pem")).expect("a file");
    let secret = key.lines().nth(1).expect("a line");
    for (chain, key) in [(&key, &key), (&key, &key.replace("KEY", "KEX"))] {
        fs::write(path.join("chain.pem"), chain).expect("a file");
        fs::write(path.join("key.pem"), key).expect("a file");
        let error = load(path).expect_err("a problem").to_string();
        assert!(!error.contains(&secret[..8]), "{error}");
    }
}

#[test]
fn what_is_missing_in_an_entry_is_said() {
    let entry = |entry: &str| format!("{LISTENER}[listener.tls]\n{entry}\n{BACKEND}");
    let one = "{ chain = \"certs/server.pem\", key = \"certs/server-key.pem\" }";
    for (text, expected) in [
        (
            entry(""),
            vec!["4:1: a TLS listener needs `certificates = [ { chain = \"…\", key = \"…\" } ]`"],
        ),
        (
            entry("certificates = []"),
            vec!["4:1: a TLS listener needs `certificates = [ { chain = \"…\", key = \"…\" } ]`"],
        ),
        (
            entry("certificates = [{}]"),
            vec![
                "5:17: `listener.tls.certificates` needs the key `chain`",
                "5:17: `listener.tls.certificates` needs the key `key`",
            ],
        ),
        (
            entry("certificates = [{ chain = \"\", key = 5 }]"),
            vec![
                "5:27: `listener.tls.certificates.chain`: expected a path, found nothing",
                "5:37: `listener.tls.certificates.key`: expected a string, found an integer",
            ],
        ),
        (entry(&format!("certificates = [\n{one},\n{one}]")), vec![]),
        (
            entry(&format!("certificates = [{one}]\nocsp = 5")),
            vec!["6:8: `listener.tls.ocsp`: expected a string, found an integer"],
        ),
    ] {
        assert_eq!(super::problems(&text), expected, "{text}");
    }
}
