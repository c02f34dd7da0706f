//! A handshake whose connection stays in rustls, as a stream.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::server::Acceptor;

use super::{
    HandshakeError, Hello, Protocol, Secured, Session, TlsAcceptor, facts, is_not_tls, peer,
};

pub(super) async fn accept<IO, R>(
    acceptor: &TlsAcceptor,
    io: IO,
    admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
) -> Result<Secured<IO>, HandshakeError<IO, R>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut hello = LazyConfigAcceptor::new(Acceptor::default(), io);
    let start = match (&mut hello).await {
        Ok(start) => start,
        Err(error) => {
            // The acceptor has sent its alert by now.
            return Err(match (tls_error(&error), hello.take_io()) {
                (Some(cause), Some(io)) if is_not_tls(&cause) => HandshakeError::NotTls(io),
                (Some(cause), Some(io)) => HandshakeError::Failed(cause, io),
                _ => HandshakeError::Gone,
            });
        }
    };
    let config = match acceptor.decide(start.client_hello(), admit) {
        Ok(config) => config,
        Err(rejection) => {
            let mut io = start.io;
            // If the alert cannot be sent the client is gone, and the refusal stands.
            let _ = io.write_all(&rejection.alert()).await;
            return Err(rejection.with(io));
        }
    };
    match start.into_stream(config).into_fallible().await {
        Ok(stream) => {
            let connection = stream.get_ref().1;
            Ok(Secured {
                facts: facts(connection, connection.server_name()),
                peer: peer(connection),
                session: Session::Stream(Box::new(stream)),
            })
        }
        Err((error, io)) => Err(match tls_error(&error) {
            Some(cause) => HandshakeError::Failed(cause, io),
            None => HandshakeError::Gone,
        }),
    }
}

/// `None` when it is the stream that failed.
pub(super) fn tls_error(error: &io::Error) -> Option<rustls::Error> {
    let inner = error.get_ref()?;
    match inner.downcast_ref::<rustls::Error>() {
        Some(cause) => Some(cause.clone()),
        // A message that outgrows rustls's buffer is an error in words alone, of a kind that no
        // socket has.
        None if error.kind() == io::ErrorKind::InvalidData => {
            Some(rustls::Error::General(inner.to_string()))
        }
        None => None,
    }
}
