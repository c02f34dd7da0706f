//! Warnings about certificates that are served all the same.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use super::*;

/// Signers, and a directory with their own key.
fn with_own_key() -> (Signers, tempfile::TempDir) {
    let signers = Signers::new();
    let directory = directory("chain.pem", "key.pem");
    let key = directory.path().join("key.pem");
    fs::write(&key, signers.own.serialize_pem()).expect("a file");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(key, private).expect("a file");
    (signers, directory)
}

#[test]
fn certificates_that_every_client_refuses_are_reported() {
    let (signers, directory) = with_own_key();
    let path = directory.path();
    for (chain, warning, error) in [
        (
            signers.leaf(&signers.good, plain) + &signers.good.pem(),
            "",
            "",
        ),
        (
            signers.leaf(&signers.good, plain) + &signers.good.pem() + &signers.root.pem(),
            "",
            "",
        ),
        (signers.leaf(&signers.root, plain), "", ""),
        (signers.leaf(&signers.good, plain), "", ""),
        (
            signers.leaf(&signers.expired, plain) + &signers.expired.pem(),
            "",
            "certificate 2 of the chain (CN=expired) expired on ",
        ),
        (
            signers.leaf(&signers.expiring, plain) + &signers.expiring.pem(),
            "certificate 2 of the chain (CN=expiring) expires on ",
            "",
        ),
        (
            signers.leaf(&signers.good, plain) + &signers.root.pem(),
            "put the intermediate certificate of CN=good there",
            "",
        ),
        (
            signers.leaf(&signers.good, public),
            "the certificate of the issuer CN=good is missing from the chain",
            "",
        ),
        (
            signers.leaf(&signers.root, clients_only),
            "",
            "does not have serverAuth",
        ),
        (signers.leaf(&signers.root, must_staple), "must-staple", ""),
    ] {
        fs::write(path.join("chain.pem"), chain).expect("a file");
        let (warnings, errors) = said(path);
        assert_says(&warnings, warning);
        assert_says(&errors, error);
    }
}

#[test]
fn certificates_that_every_backend_refuses_and_expired_authorities_are_reported() {
    let (signers, directory) = with_own_key();
    let path = directory.path();
    let text = format!(
        "{LISTENER}{BACKEND}[backend.tls]\nca = \"chain.pem\"\n\
         certificate = {{ chain = \"chain.pem\", key = \"key.pem\" }}\n"
    );
    fs::write(path.join("vestibule.toml"), text).expect("a file");
    fs::write(
        path.join("chain.pem"),
        signers.leaf(&signers.expired, servers_only) + &signers.expired.pem(),
    )
    .expect("a file");
    let (warnings, errors) = said(path);
    assert!(warnings.is_empty(), "{warnings:?}");
    let purpose = |it: &String| it.contains("does not have clientAuth");
    assert!(errors.iter().any(purpose), "{errors:?}");
    let authority = |it: &String| it.contains("the authority CN=expired expired on ");
    assert!(errors.iter().any(authority), "{errors:?}");
}

/// Authorities that expire at different times, and the key of the certificate that they sign.
struct Signers {
    root: CertifiedIssuer<'static, KeyPair>,
    good: CertifiedIssuer<'static, KeyPair>,
    expired: CertifiedIssuer<'static, KeyPair>,
    expiring: CertifiedIssuer<'static, KeyPair>,
    own: KeyPair,
}

impl Signers {
    fn new() -> Self {
        let key = || KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(authority("root", 1000), key()).expect("a root");
        let between = |name: &str, days: u32| {
            CertifiedIssuer::signed_by(authority(name, days), key(), &root).expect("an authority")
        };
        Self {
            good: between("good", 1000),
            expired: between("expired", 90),
            expiring: between("expiring", 105),
            own: key(),
            root,
        }
    }

    fn leaf(
        &self,
        issuer: &CertifiedIssuer<'_, KeyPair>,
        change: fn(&mut CertificateParams),
    ) -> String {
        let mut params = CertificateParams::new(["it.example".into()]).expect("a name");
        change(&mut params);
        let certificate = params.signed_by(&self.own, issuer);
        certificate.expect("a certificate").pem()
    }
}

/// A certificate that is valid for `days` days from 100 days ago.
fn authority(name: &str, days: u32) -> CertificateParams {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - 100 * DAY).into();
    params.not_after = (now - 100 * DAY + days * DAY).into();
    params
}

fn plain(_: &mut CertificateParams) {}

fn clients_only(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

fn servers_only(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
}

fn must_staple(params: &mut CertificateParams) {
    let features = &[1, 3, 6, 1, 5, 5, 7, 1, 24];
    let value = vec![0x30, 3, 2, 1, 5];
    params.custom_extensions = vec![CustomExtension::from_oid_content(features, value)];
}

fn public(params: &mut CertificateParams) {
    // AuthorityInfoAccess: caIssuers, http://a
    let mut value = vec![
        0x30, 0x16, 0x30, 0x14, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2, 0x86, 8,
    ];
    value.extend(b"http://a");
    let access = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
    params.custom_extensions = vec![CustomExtension::from_oid_content(access, value)];
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

/// A year of two digits is between 1950 and 2049 (RFC 5280 §4.1.2.5.1).
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

/// Asserts that there is one message with these words, or none if there are no words.
fn assert_says(found: &[String], expected: &str) {
    let count = usize::from(!expected.is_empty());
    assert_eq!(found.len(), count, "{found:?} {expected}");
    assert!(
        found.iter().all(|it| it.contains(expected)),
        "{found:?} {expected}"
    );
}

/// The warnings and errors for a chain and its key at start. Those for the key come last.
fn said(directory: &Path) -> (Vec<String>, Vec<String>) {
    let config = load(directory).expect("a configuration");
    let said = |all: &[Problem]| all.iter().map(|it| it.message.clone()).collect();
    (said(config.warnings()), said(config.expired()))
}
