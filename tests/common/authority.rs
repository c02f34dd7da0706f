//! A certificate authority for one test. It writes PEM files into the test's directory.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    /// Writes its own certificate to `NAME.pem`.
    pub fn new(directory: &Path, name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(file(directory, name), certificate.pem()).expect("a file");
        Self {
            issuer: Issuer::new(params, key),
            directory: directory.to_owned(),
        }
    }

    /// Writes `NAME.pem` and `NAME-key.pem`, for these host names, addresses and URIs.
    pub fn issue(&self, name: &str, names: &[&str]) {
        self.sign(name, params(name, names));
    }

    /// Like [`Self::issue`], with an expired certificate.
    pub fn issue_expired(&self, name: &str, names: &[&str]) {
        let mut params = params(name, names);
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        self.sign(name, params);
    }

    /// Writes a self-signed certificate and its key, as `openssl req -x509` does, with or without
    /// CA:TRUE.
    pub fn alone(directory: &Path, name: &str, names: &[&str], is_ca: bool) {
        let mut params = params(name, names);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(file(directory, name), certificate.pem()).expect("a file");
        let key_file = file(directory, &format!("{name}-key"));
        fs::write(key_file, key.serialize_pem()).expect("a file");
    }

    fn sign(&self, name: &str, mut params: CertificateParams) {
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        fs::write(file(&self.directory, name), certificate.pem()).expect("a file");
        let key_file = file(&self.directory, &format!("{name}-key"));
        fs::write(key_file, key.serialize_pem()).expect("a file");
    }
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let mut params = CertificateParams::new(names).expect("names");
    let uris = uris
        .into_iter()
        .map(|uri| SanType::URI(uri.try_into().expect("ASCII")));
    params.subject_alt_names.extend(uris);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.pem"))
}
