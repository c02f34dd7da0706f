//! `[backend.tls]`.

use super::listener_tls::CertificateOptions;
use super::section::Section;
use super::source::DataSource;

/// `[backend.tls]`: TLS to the addresses of a backend.
///
/// ```
/// use vestibule::options::{BackendTlsOptions, DataSource};
///
/// let tls = BackendTlsOptions::default()
///     .server_name("api.internal")
///     .ca([DataSource::file("certs/ca.pem")]);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options have an effect in a `BackendOptions`"]
pub struct BackendTlsOptions(pub(super) Section);

impl BackendTlsOptions {
    /// The name that the server's certificate must have: a DNS name or an IP address. Default: the host of
    /// each address. Unix addresses and [`BackendTarget::Gate`](super::BackendTarget::Gate) need it.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.0.set("server_name", name.into());
        self
    }

    /// The authorities of the server's certificate, in PEM, at least one. Default: those that this
    /// machine trusts.
    pub fn ca(mut self, authorities: impl IntoIterator<Item = DataSource>) -> Self {
        self.0.set_list("ca", authorities);
        self
    }

    /// The certificate for servers that ask for one. Default: none.
    pub fn certificate(mut self, certificate: CertificateOptions) -> Self {
        self.0.set("certificate", certificate.0);
        self
    }

    /// The protocols (ALPN) to offer, in order, each of 1 to 255 bytes. Default: none.
    pub fn alpn(mut self, protocols: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0
            .set_list("alpn", protocols.into_iter().map(Into::into));
        self
    }

    /// Names for the server's certificate: it must have one of them, in addition to
    /// [`server_name`](Self::server_name). The syntax is that of
    /// [`RouteOptions::identity`](super::RouteOptions::identity). Default: every valid certificate. An
    /// empty list is an error.
    pub fn allow(mut self, rules: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0.set_list("allow", rules.into_iter().map(Into::into));
        self
    }
}
