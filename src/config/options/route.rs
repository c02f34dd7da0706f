//! `[[route]]`.

use super::section::Section;

/// `[[route]]`: sends matching connections to a backend, or refuses them.
///
/// The first route that matches wins. A connection matches if it meets every condition, each by any
/// entry of its list. A route without conditions matches every connection. An empty list is an error.
/// If no route matches, the client is refused.
///
/// ```
/// use vestibule::options::RouteOptions;
///
/// let first = RouteOptions::deny().from(["198.51.100.0/24"]);
/// let then = RouteOptions::to("api").sni(["api.example.com"]).identity(["ou:ops"]);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options have an effect in a `ConfigBuilder`"]
pub struct RouteOptions(pub(super) Section);

impl RouteOptions {
    /// A route to the backend with this name.
    pub fn to(backend: impl Into<String>) -> Self {
        let mut section = Section::default();
        section.set("backend", backend.into());
        Self(section)
    }

    /// A route that refuses its clients.
    pub fn deny() -> Self {
        let mut section = Section::default();
        section.set("deny", true);
        Self(section)
    }

    /// Matches connections of the listeners with these names.
    pub fn listener(mut self, names: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0
            .set_list("listener", names.into_iter().map(Into::into));
        self
    }

    /// Matches the server name that the client asks for, such as `api.example.com` or `*.example.com`.
    /// `*` stands for one label, `**` for one or more.
    pub fn sni(mut self, names: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0.set_list("sni", names.into_iter().map(Into::into));
        self
    }

    /// Matches the negotiated protocol (ALPN).
    pub fn alpn(mut self, protocols: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0
            .set_list("alpn", protocols.into_iter().map(Into::into));
        self
    }

    /// Matches the client's address: networks such as `192.0.2.0/24`, or addresses.
    pub fn from(mut self, networks: impl IntoIterator<Item: ToString>) -> Self {
        self.0.set_texts("from", networks);
        self
    }

    /// Matches the host and port that a stream in a tunnel asks for, such as `db:5432` or `*.svc.example:*`. `*`
    /// stands for one label of the host or for any port, `**` for one or more labels.
    pub fn authority(mut self, names: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0
            .set_list("authority", names.into_iter().map(Into::into));
        self
    }

    /// Matches a name in the client's certificate, such as `cn:alice`, `dns:*.corp.example`,
    /// `uri:spiffe://corp/ns/*/sa/web`, `ou:ops` or `sha256:…`.
    pub fn identity(mut self, rules: impl IntoIterator<Item: Into<String>>) -> Self {
        self.0
            .set_list("identity", rules.into_iter().map(Into::into));
        self
    }
}
