//! Certificates for tests: authorities, what they issue, and what they revoke.

pub mod openssl;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

use self::openssl::rsa_key;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate and those above it, without the root.
    chain: String,
}

/// A certificate with its key, in PEM.
pub struct Issued {
    pub chain: String,
    pub key: String,
    pub der: Vec<u8>,
    pub serial: u64,
}

/// The owner and the properties of a certificate.
#[derive(Clone, Default)]
pub struct Subject {
    pub cn: Option<&'static str>,
    pub ou: &'static [&'static str],
    pub dns: Vec<String>,
    pub uri: &'static [&'static str],
    pub rsa: bool,
    pub expired: bool,
    /// For how many days it is valid, from now on.
    pub days: Option<u64>,
    /// Like the server certificates of public authorities: valid for 90 days, with the key usage to
    /// sign only.
    pub public: bool,
    /// May sign OCSP responses for the issuer of its certificate.
    pub responder: bool,
    /// Has a critical certificate policy.
    pub critical: bool,
}

/// The state of a certificate at an OCSP responder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status {
    Good,
    Revoked,
    Unknown,
}

impl Subject {
    pub fn named(cn: &'static str) -> Self {
        Self {
            cn: Some(cn),
            ..Self::default()
        }
    }

    pub fn host(names: &[&str]) -> Self {
        Self {
            dns: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Self::default()
        }
    }
}

impl Authority {
    pub fn root(name: &str) -> Self {
        Self::root_with(name, key())
    }

    /// With an RSA key.
    pub fn rsa_root(name: &str) -> Self {
        Self::root_with(name, KeyPair::from_pem(&rsa_key()).expect("a key"))
    }

    fn root_with(name: &str, key: KeyPair) -> Self {
        let mut params = authority(name);
        params.serial_number = Some(SerialNumber::from(ROOT));
        let issuer = CertifiedIssuer::self_signed(params, key);
        Self {
            issuer: issuer.expect("a root"),
            chain: String::new(),
        }
    }

    /// An intermediate that this authority has issued.
    pub fn intermediate(&self, name: &str) -> (Self, u64) {
        let mut params = authority(name);
        let serial = serial();
        params.serial_number = Some(SerialNumber::from(serial));
        let issuer = CertifiedIssuer::signed_by(params, key(), &self.issuer).expect("an issuer");
        let chain = format!("{}{}", issuer.pem(), self.chain);
        (Self { issuer, chain }, serial)
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Another certificate, in PEM, for an authority to which this one has issued a certificate
    /// before.
    pub fn vouch_again(&self, name: &str, other: &Self) -> String {
        let mut params = authority(name);
        params.serial_number = Some(SerialNumber::from(serial()));
        let certificate = params.signed_by(other.issuer.key(), &self.issuer);
        certificate.expect("a certificate").pem()
    }

    pub fn issue(&self, subject: &Subject) -> Issued {
        let key = match subject.rsa {
            // rcgen cannot generate RSA keys with this library; openssl can.
            true => KeyPair::from_pem(&rsa_key()).expect("a key"),
            false => key(),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(cn) = subject.cn {
            params.distinguished_name.push(DnType::CommonName, cn);
        }
        for ou in subject.ou {
            params
                .distinguished_name
                .push(DnType::OrganizationalUnitName, *ou);
        }
        let dns = subject.dns.iter();
        params.subject_alt_names = dns
            .map(|name| match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().expect("a name")),
            })
            .chain((subject.uri.iter()).map(|uri| SanType::URI((*uri).try_into().expect("a URI"))))
            .collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if subject.public {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.is_ca = IsCa::ExplicitNoCa;
            params.use_authority_key_identifier_extension = true;
        }
        if let Some(days) = subject.days.or(subject.public.then_some(90)) {
            let now = SystemTime::now();
            params.not_before = now.into();
            params.not_after = (now + Duration::from_secs(days * 24 * 60 * 60)).into();
        }
        if subject.critical {
            // certificatePolicies, with 1.2.3.4.
            let value = vec![0x30, 7, 0x30, 5, 6, 3, 0x2a, 3, 4];
            let mut policies = CustomExtension::from_oid_content(&[2, 5, 29, 32], value);
            policies.set_criticality(true);
            params.custom_extensions = vec![policies];
        }
        if subject.responder {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        }
        if subject.expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let serial = serial();
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            chain: format!("{}{}", certificate.pem(), self.chain),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
            serial,
        }
    }

    /// A certificate, in PEM, for a host with an existing key.
    pub fn certify(&self, name: &str, key: &KeyPair) -> String {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(key, &self.issuer);
        certificate.expect("a certificate").pem()
    }

    /// The authority's own certificate and key in PEM, for signing.
    pub fn signer(&self) -> Issued {
        Issued {
            chain: self.pem(),
            key: self.issuer.key().serialize_pem(),
            der: self.issuer.der().to_vec(),
            serial: ROOT,
        }
    }

    /// Another certificate with the same key.
    pub fn reissued(&self, name: &str) -> Issued {
        let mut params = authority(name);
        params.serial_number = Some(SerialNumber::from(serial()));
        let certificate = params.self_signed(self.issuer.key()).expect("a root");
        Issued {
            chain: certificate.pem(),
            key: self.issuer.key().serialize_pem(),
            der: certificate.der().to_vec(),
            serial: ROOT,
        }
    }

    /// Its revocation list with these serial numbers, in PEM.
    pub fn revocations(&self, serials: &[u64]) -> String {
        list(serials)
            .signed_by(&self.issuer)
            .expect("a list")
            .pem()
            .expect("PEM")
    }

    /// Like [`Self::revocations`], with its name in this encoding.
    pub fn revocations_as(&self, name: impl Into<DnValue>, serials: &[u64]) -> String {
        let mut params = authority("");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = Issuer::new(params, self.issuer.key());
        list(serials)
            .signed_by(&issuer)
            .expect("a list")
            .pem()
            .expect("PEM")
    }
}

fn list(serials: &[u64]) -> CertificateRevocationListParams {
    let now = date_time_ymd(2026, 1, 1);
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: now,
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: now,
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(serial()),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME-key.pem`.
    pub fn write(&self, directory: &Path, name: &str) {
        replace(&directory.join(format!("{name}.pem")), &self.chain);
        replace(&directory.join(format!("{name}-key.pem")), &self.key);
    }
}

/// Replaces a file atomically.
pub fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, content).expect("a file");
    fs::rename(&beside, path).expect("the same directory");
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

/// The serial number of a root.
const ROOT: u64 = 0x1234_5678;

fn serial() -> u64 {
    // As long as the serial numbers of public authorities.
    static NEXT: AtomicU64 = AtomicU64::new(0x4000_0000_0000_0000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
