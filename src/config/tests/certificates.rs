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
                "DIR/chain.pem: the chain file has no certificate, which starts with -----BEGIN CERTIFICATE-----; the file contains nothing that \
                 starts with -----BEGIN",
            ),
        ),
        (
            key.clone(),
            key.clone(),
            chain_at(
                "DIR/chain.pem contains a private key and no certificate; check whether chain and key are swapped",
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
            chain_at("DIR/chain.pem: the first certificate of the chain has version 1, which no"),
        ),
        (
            chain.clone(),
            String::new(),
            key_at(
                "DIR/key.pem: the key file has no private key; it needs an unencrypted PKCS#8, PKCS#1 or SEC1 key",
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
            key_at("DIR/key.pem: the private key is damaged"),
        ),
        (
            chain.clone(),
            read("client-key.pem"),
            key_at("DIR/key.pem: the private key belongs to no certificate of the chain"),
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
    // Of several keys in a file the one that fits counts.
    openssl(path, "ecparam -genkey -noout -name secp256k1 -out odd.pem");
    openssl(
        path,
        "genpkey -algorithm ed25519 -aes256 -pass pass:x -out secret.pem",
    );
    let of = |name: &str| fs::read_to_string(path.join(name)).expect("a file");
    let (odd, secret, other) = (of("odd.pem"), of("secret.pem"), read("client-key.pem"));
    for (keys, why) in [
        (format!("{odd}{secret}{other}{key}"), None),
        (format!("{odd}{other}"), Some("supported are RSA of 2048")),
        (format!("{other}{secret}"), Some("is encrypted; decrypt it")),
        (key.clone(), None),
    ] {
        fs::write(path.join("key.pem"), keys).expect("a file");
        match why {
            None => assert!(load(path).is_ok(), "{:?}", problems(path)),
            Some(why) => {
                let problems = problems(path);
                assert!(problems[0].2.contains(why), "{problems:?}");
            }
        }
    }
}

/// Of `openssl`, in `directory`.
fn openssl(directory: &Path, arguments: &str) {
    let mut command = std::process::Command::new("openssl");
    command.args(arguments.split_whitespace());
    let done = command.current_dir(directory).output().expect("openssl");
    assert!(done.status.success(), "{arguments}: {done:?}");
}

/// A chain of two, and its key.
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

#[test]
fn a_chain_in_the_wrong_order_says_which_certificate_comes_first() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let (own, above, key) = chain_of_two();
    let (_, _, other) = chain_of_two();
    fs::write(path.join("chain.pem"), format!("{above}{own}")).expect("a file");
    fs::write(path.join("key.pem"), &key).expect("a file");
    let [(5, CHAIN, message)] = &problems(path)[..] else {
        panic!("one problem of the chain, found {:?}", problems(path));
    };
    let expected = "the private key belongs to certificate 2 of the chain (CN=below)";
    assert!(message.contains(expected), "{message}");
    // Of several keys it is the one that fits.
    fs::write(path.join("chain.pem"), format!("{own}{above}")).expect("a file");
    fs::write(path.join("key.pem"), format!("{other}{key}")).expect("a file");
    load(path).expect("a configuration");
    // All in one file.
    for name in ["chain.pem", "key.pem"] {
        fs::write(path.join(name), format!("{key}{own}{above}")).expect("a file");
    }
    load(path).expect("a configuration");
}

#[test]
fn a_key_that_takes_a_password_says_how_to_take_it_off() {
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let (own, _, key) = chain_of_two();
    fs::write(path.join("chain.pem"), own).expect("a file");
    fs::write(path.join("plain.pem"), key).expect("a file");
    for form in ["pkcs8 -topk8", "ec -aes256"] {
        openssl(
            path,
            &format!("{form} -in plain.pem -passout pass:secret -out key.pem"),
        );
        let [(5, 46, message)] = &problems(path)[..] else {
            panic!("one problem of the key, found {:?}", problems(path));
        };
        assert!(
            message.contains("is encrypted; decrypt it with `openssl pkey "),
            "{message}"
        );
    }
}

/// Whatever webpki makes of it: that is for the peer.
#[test]
fn a_certificate_of_ours_is_served_whatever_it_has() {
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

/// What is said of a chain and key at start; those of the key come last.
fn said(directory: &Path) -> (Vec<String>, Vec<String>) {
    let config = load(directory).expect("a configuration");
    let said = |all: &[Problem]| all.iter().map(|it| it.message.clone()).collect();
    (said(config.warnings()), said(config.expired()))
}

#[test]
fn what_every_client_will_refuse_is_said() {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair,
    };
    const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);
    let key = || KeyPair::generate().expect("a key");
    let authority = |name: &str, days: u32| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let now = std::time::SystemTime::now();
        params.not_before = (now - 100 * DAY).into();
        params.not_after = (now - 100 * DAY + days * DAY).into();
        params
    };
    let root = CertifiedIssuer::self_signed(authority("root", 1000), key()).expect("a root");
    let between = |name: &str, days: u32| {
        CertifiedIssuer::signed_by(authority(name, days), key(), &root).expect("an authority")
    };
    let (good, expired, expiring) = (
        between("good", 1000),
        between("expired", 90),
        between("expiring", 105),
    );
    let own = key();
    let leaf = |issuer: &CertifiedIssuer<'_, KeyPair>, change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(["it.example".into()]).expect("a name");
        change(&mut params);
        params.signed_by(&own, issuer).expect("a certificate").pem()
    };
    let plain = |_: &mut CertificateParams| {};
    let clients_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let must_staple = |params: &mut CertificateParams| {
        let features = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
        let value = vec![0x30, 3, 2, 1, 5];
        params.custom_extensions = vec![CustomExtension::from_oid_content(features, value)];
    };
    let public = |params: &mut CertificateParams| {
        // AuthorityInfoAccess: caIssuers, http://a
        let mut value = vec![
            0x30, 0x16, 0x30, 0x14, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2, 0x86, 8,
        ];
        value.extend(b"http://a");
        let access = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
        params.custom_extensions = vec![CustomExtension::from_oid_content(access, value)];
    };
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    fs::write(path.join("key.pem"), own.serialize_pem()).expect("a file");
    fs::set_permissions(
        path.join("key.pem"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .expect("a file");
    for (chain, warning, error) in [
        (leaf(&good, &plain) + &good.pem(), "", ""),
        (leaf(&good, &plain) + &good.pem() + &root.pem(), "", ""),
        (leaf(&root, &plain), "", ""),
        (leaf(&good, &plain), "", ""),
        (
            leaf(&expired, &plain) + &expired.pem(),
            "",
            "certificate 2 of the chain (CN=expired) expired on ",
        ),
        (
            leaf(&expiring, &plain) + &expiring.pem(),
            "certificate 2 of the chain (CN=expiring) expires on ",
            "",
        ),
        (
            leaf(&good, &plain) + &root.pem(),
            "put the intermediate certificate of CN=good there",
            "",
        ),
        (
            leaf(&good, &public),
            "the certificate of the issuer CN=good is missing from the chain",
            "",
        ),
        (leaf(&root, &clients_only), "", "does not have serverAuth"),
        (leaf(&root, &must_staple), "must-staple", ""),
    ] {
        fs::write(path.join("chain.pem"), chain).expect("a file");
        let (warnings, errors) = said(path);
        for (found, expected) in [(warnings, warning), (errors, error)] {
            assert_eq!(
                found.len(),
                usize::from(!expected.is_empty()),
                "{found:?} {expected}"
            );
            assert!(
                found.iter().all(|it| it.contains(expected)),
                "{found:?} {expected}"
            );
        }
    }
    // Towards backends, with an authority that has expired.
    let text = format!(
        "{LISTENER}{BACKEND}[backend.tls]\nca = \"chain.pem\"\n\
         certificate = {{ chain = \"chain.pem\", key = \"key.pem\" }}\n"
    );
    fs::write(path.join("vestibule.toml"), text).expect("a file");
    let servers_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    fs::write(
        path.join("chain.pem"),
        leaf(&expired, &servers_only) + &expired.pem(),
    )
    .expect("a file");
    let (warnings, errors) = said(path);
    assert!(warnings.is_empty(), "{warnings:?}");
    let purpose = |it: &String| it.contains("does not have clientAuth");
    assert!(errors.iter().any(purpose), "{errors:?}");
    let authority = |it: &String| it.contains("the authority CN=expired expired on ");
    assert!(errors.iter().any(authority), "{errors:?}");
}

#[test]
fn a_private_key_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory("chain.pem", "key.pem");
    let path = directory.path();
    let (own, above, key) = chain_of_two();
    fs::write(path.join("chain.pem"), own + &above).expect("a file");
    fs::write(path.join("key.pem"), key).expect("a file");
    for (mode, who) in [
        (0o600, None),
        (0o400, None),
        (
            0o640,
            Some("its group can read the private key (mode 0640)"),
        ),
        (
            0o644,
            Some("every user of this machine can read the private key (mode 0644)"),
        ),
        (
            0o604,
            Some("every user of this machine can read the private key (mode 0604)"),
        ),
    ] {
        fs::set_permissions(path.join("key.pem"), PermissionsExt::from_mode(mode)).expect("a file");
        let (warnings, _) = said(path);
        assert_eq!(warnings.len(), usize::from(who.is_some()), "{warnings:?}");
        assert!(
            warnings.iter().all(|it| it.contains(who.unwrap_or(""))),
            "{warnings:?}"
        );
    }
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
            vec![
                "4:1: a TLS listener needs a certificate: `certificates = [ { chain = \"…\", key = \"…\" } ]`",
            ],
        ),
        (
            entry("certificates = []"),
            vec![
                "4:1: a TLS listener needs a certificate: `certificates = [ { chain = \"…\", key = \"…\" } ]`",
            ],
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
                "5:27: `listener.tls.certificates.chain`: expected a path, found an empty string",
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
