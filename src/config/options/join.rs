//! `[[join]]`.

use super::backend_tls::BackendTlsOptions;
use super::listener_tls::CertificateOptions;
use super::section::Section;
use crate::address::Address;

/// `[[join]]`: serves connections of fronts elsewhere with a local server.
///
/// ```
/// use vestibule::Address;
/// use vestibule::options::{CertificateOptions, JoinOptions};
///
/// let front: Address = "front.example:8443".parse()?;
/// let server: Address = "127.0.0.1:8080".parse()?;
/// let certificate = CertificateOptions::from_files("worker.pem", "worker-key.pem");
/// let join = JoinOptions::new("app", [front], [server], certificate).offers(16);
/// # Ok::<(), vestibule::ParseAddressError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct JoinOptions(pub(super) Section);

impl JoinOptions {
    /// A worker of the backend that has this name at the fronts. `to` are the addresses of the local server. Both
    /// lists have at least one address. The certificate tells the fronts who this worker is.
    pub fn new(
        backend: impl Into<String>,
        fronts: impl IntoIterator<Item = Address>,
        to: impl IntoIterator<Item = Address>,
        certificate: CertificateOptions,
    ) -> Self {
        let mut section = Section::default();
        section.set("backend", backend.into());
        section.set_list("front", fronts);
        section.set_list("to", to);
        Self(section).tls(BackendTlsOptions::default().certificate(certificate))
    }

    /// The number of connections to wait for at each front, from 1 to 1000. Default: 8.
    pub fn offers(mut self, offers: usize) -> Self {
        self.0.set("offers", offers);
        self
    }

    /// TLS to the fronts, with the certificate of this worker. Default: only the certificate of [`Self::new`], and
    /// ALPN `h2`.
    pub fn tls(mut self, tls: BackendTlsOptions) -> Self {
        self.0.set("tls", tls.0);
        self
    }
}
