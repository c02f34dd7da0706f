//! `[listener.tls]`, and a certificate with its key.

use std::path::PathBuf;

use super::section::Section;
use super::source::DataSource;
use crate::tls::MinVersion;
use crate::tls::hosts::UnknownSni;

/// `[listener.tls]`: the TLS of a listener.
///
/// ```
/// use vestibule::options::{
///     CertificateOptions, ClientAuthMode, DataSource, ListenerTlsOptions, MinVersion,
/// };
///
/// let certificate = CertificateOptions::from_files("certs/server.pem", "certs/server-key.pem");
/// let tls = ListenerTlsOptions::new(certificate)
///     .min_version(MinVersion::Tls13)
///     .client_auth(ClientAuthMode::Required)
///     .client_ca([DataSource::file("certs/ca.pem")]);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options have an effect in a `ListenerOptions`"]
pub struct ListenerTlsOptions(pub(super) Section);

/// A certificate chain with its private key.
///
/// ```
/// use vestibule::options::{CertificateOptions, DataSource};
///
/// let read = CertificateOptions::from_files("certs/server.pem", "certs/server-key.pem");
/// let chain = include_bytes!("../../../certs/server.pem");
/// let key = include_bytes!("../../../certs/server-key.pem");
/// let given = CertificateOptions::from_pem(chain, key).ocsp(DataSource::file("staple.der"));
/// ```
#[derive(Clone, Debug)]
#[must_use = "options have an effect in a `ListenerTlsOptions` or `BackendTlsOptions`"]
pub struct CertificateOptions(pub(super) Section);

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuthMode {
    /// Clients are not asked.
    None,
    /// Clients may show a certificate. If they do, it must be valid.
    Optional,
    /// Clients must show a valid certificate.
    Required,
}

/// Whether and where sessions are resumed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionTickets {
    /// This process resumes its sessions. Its keys change every six hours.
    Rotate,
    /// No sessions are resumed: every handshake is a full one.
    None,
    /// Every process with this secret resumes the sessions: 32 random bytes or more.
    Secret(DataSource),
}

impl ListenerTlsOptions {
    /// TLS with a certificate.
    pub fn new(certificate: CertificateOptions) -> Self {
        Self(Section::default()).certificate(certificate)
    }

    /// Adds a certificate to `certificates`. One is chosen by the client's SNI, and then by what the
    /// client can verify. The first one is the default.
    pub fn certificate(mut self, certificate: CertificateOptions) -> Self {
        self.0.push("certificates", certificate.0);
        self
    }

    /// The OCSP response of the only certificate, in DER. With several, use [`CertificateOptions::ocsp`].
    pub fn ocsp(mut self, response: DataSource) -> Self {
        self.0.set("ocsp", response);
        self
    }

    /// The answer to a client that asks for a name without a certificate, or for no name. Default:
    /// [`UnknownSni::First`].
    pub fn unknown_sni(mut self, unknown: UnknownSni) -> Self {
        let word = match unknown {
            UnknownSni::First => "first",
            UnknownSni::Refuse => "refuse",
        };
        self.0.set("unknown_sni", word);
        self
    }

    /// Whether clients are asked for certificates. Default: [`ClientAuthMode::None`]. The other modes
    /// need [`client_ca`](Self::client_ca).
    pub fn client_auth(mut self, mode: ClientAuthMode) -> Self {
        let word = match mode {
            ClientAuthMode::None => "none",
            ClientAuthMode::Optional => "optional",
            ClientAuthMode::Required => "required",
        };
        self.0.set("client_auth", word);
        self
    }

    /// The authorities of client certificates, in PEM. Default: none.
    pub fn client_ca(mut self, authorities: impl IntoIterator<Item = DataSource>) -> Self {
        self.0.set_list("client_ca", authorities);
        self
    }

    /// Revocation lists, in PEM or DER. Default: none.
    pub fn crl(mut self, lists: impl IntoIterator<Item = DataSource>) -> Self {
        self.0.set_list("crl", lists);
        self
    }

    /// The protocols (ALPN) to offer, in order, each of 1 to 255 bytes. Default, and with an empty list:
    /// those that the routes of the listener name.
    pub fn alpn(mut self, protocols: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0
            .set_list("alpn", protocols.into_iter().map(Into::into));
        self
    }

    /// The lowest version of TLS. Default: [`MinVersion::Tls12`].
    pub fn min_version(mut self, version: MinVersion) -> Self {
        let word = match version {
            MinVersion::Tls12 => "1.2",
            MinVersion::Tls13 => "1.3",
        };
        self.0.set("min_version", word);
        self
    }

    /// Whether sessions are resumed. Default: [`SessionTickets::Rotate`].
    pub fn tickets(mut self, tickets: SessionTickets) -> Self {
        match tickets {
            SessionTickets::Rotate => self.0.set("tickets", "rotate"),
            SessionTickets::None => self.0.set("tickets", "none"),
            SessionTickets::Secret(secret) => {
                let mut shared = Section::default();
                shared.set("secret_file", secret);
                self.0.set("tickets", shared);
            }
        }
        self
    }
}

impl CertificateOptions {
    /// The chain and the private key, both in PEM. The first certificate of the chain belongs to the
    /// key. The key is unencrypted PKCS#8, PKCS#1 or SEC1: RSA of 2048 bits or more, ECDSA on P-256,
    /// P-384 or P-521, or Ed25519.
    pub fn new(chain: DataSource, key: DataSource) -> Self {
        let mut section = Section::default();
        section.set("chain", chain);
        section.set("key", key);
        Self(section)
    }

    /// As [`CertificateOptions::new`], from files.
    pub fn from_files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self::new(DataSource::file(chain), DataSource::file(key))
    }

    /// As [`CertificateOptions::new`], from memory. See [`DataSource::memory`].
    pub fn from_pem(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self::new(DataSource::memory(chain), DataSource::memory(key))
    }

    /// The OCSP response to staple, in DER. Default: none. Only for certificates of listeners.
    pub fn ocsp(mut self, response: DataSource) -> Self {
        self.0.set("ocsp", response);
        self
    }
}
