//! The ClientHello, and the decision whether the handshake continues after it.

use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::{self, AlertDescription, ServerConfig};

use super::first::fatal;
use super::{Alpn, HandshakeError, TlsAcceptor};

/// The ClientHello of a client.
pub(crate) struct Hello<'a>(ClientHello<'a>);

impl Hello<'_> {
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.0.server_name()
    }

    /// The protocols (ALPN) that the client offers (RFC 7301 §3.1).
    pub(crate) fn protocols(&self) -> Vec<&[u8]> {
        self.0.alpn().into_iter().flatten().collect()
    }
}

/// Why a handshake ends after the ClientHello.
pub(super) enum Rejection<R> {
    UnknownName(String),
    Refused(R),
}

impl<R> Rejection<R> {
    /// The alert in plaintext, as all alerts before the ServerHello. rustls has no function to send
    /// one.
    pub(super) fn alert(&self) -> [u8; 7] {
        let alert = match self {
            Self::UnknownName(_) => AlertDescription::UnrecognisedName,
            Self::Refused(_) => AlertDescription::AccessDenied,
        };
        fatal(alert)
    }

    pub(super) fn with<IO>(self, io: IO) -> HandshakeError<IO, R> {
        match self {
            Self::UnknownName(name) => {
                let cause =
                    format!("no certificate has the name that the client asked for: {name}");
                HandshakeError::Failed(rustls::Error::General(cause), io)
            }
            Self::Refused(reason) => HandshakeError::Refused(reason, io),
        }
    }
}

/// A protocol of the listener, as its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol(usize);

impl Alpn {
    pub(crate) fn names(&self) -> &[String] {
        match self {
            Self::Offered(names) | Self::OfRoutes(names) => names,
        }
    }

    pub(crate) fn name(&self, Protocol(index): Protocol) -> &str {
        &self.names()[index]
    }

    /// Offers one more protocol, after the others.
    pub(crate) fn add(&mut self, name: &str) {
        let (Self::Offered(names) | Self::OfRoutes(names)) = self;
        if !names.iter().any(|it| it == name) {
            names.push(name.to_owned());
        }
    }

    /// The protocol of this name, if the client offers it and we do.
    pub(crate) fn agreed(&self, name: &str, theirs: &[&[u8]]) -> Option<Protocol> {
        self.common(theirs).find(|it| self.name(*it) == name)
    }

    /// The protocols that the client offers too, in our order of preference (RFC 7301 §3.2).
    pub(crate) fn common(&self, theirs: &[&[u8]]) -> impl Iterator<Item = Protocol> {
        let ours = self.names().iter().enumerate();
        ours.filter(|(_, name)| theirs.contains(&name.as_bytes()))
            .map(|(index, _)| Protocol(index))
    }
}

impl TlsAcceptor {
    /// How the handshake continues, or why it does not. `local` is the address that the client
    /// connected to.
    pub(super) fn decide<R>(
        &self,
        hello: ClientHello<'_>,
        local: Option<IpAddr>,
        admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
    ) -> Result<Arc<ServerConfig>, Rejection<R>> {
        let at_address = match hello.server_name() {
            Some(_) => None,
            None => local.and_then(|address| self.hosts.at(address)),
        };
        if at_address.is_none() && !self.hosts.has(hello.server_name()) {
            let name = hello.server_name().unwrap_or("no name").to_owned();
            return Err(Rejection::UnknownName(name));
        }
        let config = match admit(&Hello(hello)).map_err(Rejection::Refused)? {
            Some(Protocol(index)) => &self.protocols[index],
            None => &self.general,
        };
        let mut config = Arc::clone(config);
        if let Some(at_address) = at_address {
            Arc::make_mut(&mut config).cert_resolver = Arc::new(at_address);
        }
        Ok(config)
    }
}

#[cfg(any(test, fuzzing))]
impl TlsAcceptor {
    /// Like [`Self::accept_from`], with nothing read before.
    pub(crate) async fn accept<IO, R>(
        &self,
        io: IO,
        deadline: crate::deadline::Deadline,
        admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
    ) -> Result<super::Secured<IO>, HandshakeError<IO, R>>
    where
        IO: crate::wire::Wire,
    {
        let beginning = super::Beginning {
            io,
            received: Vec::new(),
            local: None,
        };
        self.accept_from(beginning, deadline, admit).await
    }
}
