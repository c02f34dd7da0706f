//! A handshake after which the connection stays in rustls, as a stream.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::StartHandshake;
use tokio_rustls::rustls;

use super::first::{Reading, hello};
use super::{
    Beginning, HandshakeError, Hello, Protocol, Secured, Session, TlsAcceptor, facts, peer,
};

pub(super) async fn accept<IO, R>(
    acceptor: &TlsAcceptor,
    beginning: Beginning<IO>,
    admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
) -> Result<Secured<IO>, HandshakeError<IO, R>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let Beginning {
        mut io,
        mut received,
        local,
    } = beginning;
    let accepted = match hello(&mut io, &mut received, Reading::ByRecord).await {
        Ok(accepted) => accepted,
        Err(failure) => return Err(failure.of_hello(io)),
    };
    drop(received);
    let start = StartHandshake::from_parts(accepted, io);
    let config = match acceptor.decide(start.client_hello(), local, admit) {
        Ok(config) => config,
        Err(rejection) => {
            let mut io = start.io;
            // If the alert cannot be sent, the client is gone, and the refusal remains the same.
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

/// `None` if the stream failed and not TLS.
pub(super) fn tls_error(error: &io::Error) -> Option<rustls::Error> {
    let inner = error.get_ref()?;
    match inner.downcast_ref::<rustls::Error>() {
        Some(cause) => Some(cause.clone()),
        // If a message is too long for its buffer, rustls returns only a text, with an error kind
        // that no socket returns.
        None if error.kind() == io::ErrorKind::InvalidData => {
            Some(rustls::Error::General(inner.to_string()))
        }
        None => None,
    }
}
