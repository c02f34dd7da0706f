//! Certificates are checked when they are read, and a problem points at the key of the file at fault.

mod pairs;
mod warnings;

use std::path::Path;

use tempfile::TempDir;

use super::*;

const CERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certs");

/// A directory with a configuration whose line 5 names the two files.
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

/// The problems with their places. `DIR` stands for the directory.
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

/// The column of the chain's file in the configurations of this module.
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
fn paths_that_exist_only_in_the_working_directory_are_relative_to_it() {
    // Tests run in the project's root directory.
    let directory = directory("certs/server.pem", "certs/server-key.pem");
    let config = load(directory.path()).expect("a configuration");
    assert_eq!(config.base(), Path::new(""));
    let [warning] = config.warnings() else {
        panic!("one warning, found {:?}", config.warnings());
    };
    assert!(warning.message.contains("working directory"), "{warning:?}");
    let again = directory.path().join("vestibule.toml");
    assert!(Config::from_file_in(&again, config.base()).is_ok());

    // A file that exists nowhere; and one that exists only as a link without a target.
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
fn a_file_that_is_read_again_keeps_its_base() {
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
fn absolute_paths_are_kept() {
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

/// Runs `openssl` in `directory`.
fn openssl(directory: &Path, arguments: &str) {
    let mut command = std::process::Command::new("openssl");
    command.args(arguments.split_whitespace());
    let done = command.current_dir(directory).output().expect("openssl");
    assert!(done.status.success(), "{arguments}: {done:?}");
}

/// A chain of two certificates, and its key.
fn chain_of_two() -> (String, String, String) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "above");
    let key = rcgen::KeyPair::generate().expect("a key");
    let issuer = rcgen::CertifiedIssuer::self_signed(params, key).expect("an issuer");
    let mut params = rcgen::CertificateParams::new(["it.example".into()]).expect("a name");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "below");
    let key = rcgen::KeyPair::generate().expect("a key");
    let own = params.signed_by(&key, &issuer).expect("a certificate");
    (own.pem(), issuer.pem(), key.serialize_pem())
}

/// Even if webpki would refuse it: that is decided by the peer.
#[test]
fn a_certificate_that_peers_may_refuse_is_served_all_the_same() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let long: String = (0..5000)
        .map(|n| format!(",DNS:host-{n}.example"))
        .collect();
    fs::write(
        path.join("config"),
        format!(
            "[req]\ndistinguished_name=dn\n[dn]\n[policies]\ncertificatePolicies=critical,1.2.3.4\n\
             subjectAltName=DNS:it.example\n[private]\n1.2.3.4=critical,DER:0500\n\
             subjectAltName=DNS:it.example\n[long]\nsubjectAltName=DNS:it.example{long}\n"
        ),
    )
    .expect("a file");
    for (extensions, key) in [
        ("policies", "ec -pkeyopt ec_paramgen_curve:P-256"),
        ("private", "rsa:2048"),
        ("long", "ec -pkeyopt ec_paramgen_curve:P-384"),
    ] {
        openssl(
            path,
            &format!(
                "req -x509 -config config -extensions {extensions} -newkey {key} -nodes -keyout key.pem \
                 -out chain.pem -days 100 -subj /CN=it"
            ),
        );
        let config = load(path).expect(extensions);
        assert!(config.summary().to_string().contains("it.example"));
    }
    let text = format!(
        "{LISTENER}{BACKEND}[backend.tls]\nca = \"{CERTS}/ca.pem\"\n\
         certificate = {{ chain = \"chain.pem\", key = \"key.pem\" }}\n"
    );
    fs::write(path.join("vestibule.toml"), text).expect("a file");
    openssl(
        path,
        "req -new -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=old",
    );
    openssl(
        path,
        "x509 -req -in request.pem -signkey key.pem -out chain.pem",
    );
    load(path).expect("version 1 in client mode");
}

#[test]
fn no_control_character_of_a_certificate_is_printed() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = "a\u{1b}[2Jb\nc\u{202e}d";
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    fs::write(path.join("chain.pem"), certificate.pem()).expect("a file");
    fs::write(path.join("key.pem"), key.serialize_pem()).expect("a file");
    let summary = load(path).expect("a configuration").summary().to_string();
    assert!(
        summary.contains("a\\u{1b}[2Jb\\nc\\u{202e}d; "),
        "{summary}"
    );
}

#[test]
fn a_bad_certificate_of_many_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let bundle = directory.path().join("bundle.pem");
    let good = fs::read_to_string(Path::new(CERTS).join("ca.pem")).expect("a file");
    let lines = good.lines().count();
    let bad = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    let not_base64 = "-----BEGIN CERTIFICATE-----\nM$\n-----END CERTIFICATE-----\n";
    let line = 16 * lines + 1;
    for (bad, why) in [
        (bad, format!("cannot read certificate 17 in line {line}:")),
        (
            not_base64,
            format!("the block in line {line} (-----BEGIN CERTIFICATE-----) is not base64"),
        ),
        (
            "-----BEGIN CERTIFICATE-----\n",
            format!("the block in line {line} "),
        ),
    ] {
        fs::write(
            &bundle,
            format!("{}{bad}{}", good.repeat(16), good.repeat(24)),
        )
        .expect("a file");
        let file = bundle.display();
        for text in [
            format!(
                "{LISTENER}[listener.tls]\ncertificates = [{{ chain = \"{CERTS}/server.pem\", key = \
                 \"{CERTS}/server-key.pem\" }}]\nclient_auth = \"required\"\nclient_ca = \
                 \"{file}\"\n{BACKEND}"
            ),
            format!("{LISTENER}{BACKEND}[backend.tls]\nca = \"{file}\"\n"),
        ] {
            let problems = super::problems(&text);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(&why), "{problems:?}");
        }
    }
}
