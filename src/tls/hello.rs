//! What a client says first, and what is made of it: a handshake to go on with, or its end.

use std::sync::Arc;

use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::{self, AlertDescription, ServerConfig};

use super::{HandshakeError, TlsAcceptor};

/// What the client said first.
pub(crate) struct Hello<'a> {
    hello: ClientHello<'a>,
    acceptor: &'a TlsAcceptor,
}

impl Hello<'_> {
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.hello.server_name()
    }

    /// Whether the protocols are those that routes name, and not the listener's own.
    pub(crate) fn is_of_routes(&self) -> bool {
        self.acceptor.needs_none
    }

    /// The protocols that it could come to be, in our order of preference (RFC 7301 §3.2); `None` is
    /// none of them, which ends the handshake where the client has to have one.
    pub(crate) fn choices(&self) -> impl Iterator<Item = Option<(Protocol, &str)>> {
        let theirs: Vec<&[u8]> = self.hello.alpn().into_iter().flatten().collect();
        let ours = self.acceptor.protocols.iter().enumerate();
        let mut common: Vec<_> = ours
            .filter(|(_, (name, _))| theirs.contains(&name.as_bytes()))
            .map(|(index, (name, _))| Some((Protocol(index), name.as_str())))
            .collect();
        if common.is_empty() || self.acceptor.needs_none {
            common.push(None);
        }
        common.into_iter()
    }
}

/// Why a handshake ends with the ClientHello.
pub(super) enum Rejection<R> {
    UnknownName(String),
    Refused(R),
}

impl<R> Rejection<R> {
    /// A fatal alert as a record of its own (RFC 8446 §6.2): before the ServerHello alerts are sent
    /// in the clear, and rustls has no call to send one.
    pub(super) fn alert(&self) -> [u8; 7] {
        let alert = match self {
            Self::UnknownName(_) => AlertDescription::UnrecognisedName,
            Self::Refused(_) => AlertDescription::AccessDenied,
        };
        [21, 3, 3, 0, 2, 2, alert.into()]
    }

    pub(super) fn with<IO>(self, io: IO) -> HandshakeError<IO, R> {
        match self {
            Self::UnknownName(name) => {
                let cause = format!("the client asked for {name}, and no certificate has it");
                HandshakeError::Failed(rustls::Error::General(cause), io)
            }
            Self::Refused(reason) => HandshakeError::Refused(reason, io),
        }
    }
}

/// One of the protocols of an acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol(usize);

impl TlsAcceptor {
    /// What the handshake is to go on with, or why it is not to.
    pub(super) fn decide<R>(
        &self,
        hello: ClientHello<'_>,
        admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
    ) -> Result<Arc<ServerConfig>, Rejection<R>> {
        if !self.hosts.has(hello.server_name()) {
            let name = hello.server_name().unwrap_or("no name").to_owned();
            return Err(Rejection::UnknownName(name));
        }
        let hello = Hello {
            hello,
            acceptor: self,
        };
        let config = match admit(&hello).map_err(Rejection::Refused)? {
            Some(Protocol(index)) => &self.protocols[index].1,
            None => &self.general,
        };
        Ok(Arc::clone(config))
    }
}
