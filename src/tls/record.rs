//! A handshake after which rustls is not needed any more: the connection consists of its keys.
//!
//! ```text
//! client: ClientHello ─► Acceptor (a copy) ─► admit ─► UnbufferedServerConnection ─┐
//! server:                                             UnbufferedClientConnection ─┴─► Keyed
//! ```
//!
//! rustls returns the keys, and a `KernelConnection` that can derive the next ones. That object is
//! opaque and cannot leave the process. So the traffic secrets, from which the next keys can be
//! derived too, are taken from the key log. The `KernelConnection` is kept only to read the tickets
//! that a server sends later.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::UnbufferedClientConnection;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::server::UnbufferedServerConnection;

use super::first::{Failure, Reading, hello};
use super::sessions::Later;
use super::unbuffered::shake_hands;
use super::{
    Beginning, HandshakeError, Hello, Protocol, Secured, Session, TlsAcceptor, chain_of, facts,
    peer,
};
use crate::record::{Keeper, Role, Start};
use crate::wire::Wire;

/// A connection after its handshake, without rustls.
pub(crate) struct Keyed<IO> {
    pub io: IO,
    pub start: Start,
}

pub(super) async fn accept<IO, R>(
    acceptor: &TlsAcceptor,
    beginning: Beginning<IO>,
    admit: impl FnOnce(&Hello<'_>) -> Result<Option<Protocol>, R>,
) -> Result<Secured<IO>, HandshakeError<IO, R>>
where
    IO: Wire,
{
    let Beginning {
        mut io,
        mut received,
        local,
    } = beginning;
    let accepted = match hello(&mut io, &mut received, Reading::Ahead).await {
        Ok(accepted) => accepted,
        Err(failure) => return Err(failure.of_hello(io)),
    };
    let hello = accepted.client_hello();
    let sni = hello.server_name().map(str::to_owned);
    let config = match acceptor.decide(hello, local, admit) {
        Ok(config) => config,
        Err(rejection) => {
            // If the alert cannot be sent, the client is gone, and the refusal remains the same.
            let _ = io.write_all(&rejection.alert()).await;
            return Err(rejection.with(io));
        }
    };
    drop(accepted);
    let connection = match UnbufferedServerConnection::new(config) {
        Ok(connection) => connection,
        Err(cause) => return Err(HandshakeError::Failed(cause, io)),
    };
    match shake_hands(connection, received, &mut io).await {
        Ok(done) => {
            let facts = facts(&done.connection, sni.as_deref());
            let peer = peer(&done.connection);
            let secrets = match done.connection.dangerous_into_kernel_connection() {
                Ok((secrets, _kernel)) => secrets,
                Err(cause) => return Err(HandshakeError::Failed(cause, io)),
            };
            let start = Start::of_server(secrets, done.traffic, done.received);
            let keyed = Keyed { io, start };
            Ok(Secured {
                facts,
                peer,
                session: Session::Record(Box::new(keyed)),
            })
        }
        Err(Failure::Io(_)) => Err(HandshakeError::Gone),
        Err(Failure::Tls(cause)) => Err(HandshakeError::Failed(cause, io)),
    }
}

/// Performs a handshake with a server. Also returns the chain of the server's certificate, and whether the server
/// has agreed on a protocol (ALPN).
pub(super) async fn connect<IO: Wire>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    mut io: IO,
) -> Result<(Keyed<IO>, Vec<CertificateDer<'static>>, bool), Failure> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(Failure::Tls)?;
    let done = shake_hands(connection, Vec::new(), &mut io).await?;
    let chain = chain_of(&done.connection);
    let has_agreed = done.connection.alpn_protocol().is_some();
    let kernel = done.connection.dangerous_into_kernel_connection();
    let (secrets, kernel) = kernel.map_err(Failure::Tls)?;
    // In TLS 1.2 the tickets are part of the handshake.
    let later = done.traffic.is_some().then(|| Later::new(kernel));
    let start = Start {
        role: Role::Client,
        secrets: Box::new(secrets),
        traffic: done.traffic,
        received: done.received,
        keeper: later.map(|later| Box::new(later) as Box<dyn Keeper>),
    };
    Ok((Keyed { io, start }, chain, has_agreed))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;
    use tokio_rustls::rustls::{self, InvalidMessage, PeerMisbehaved};

    use super::super::AcceptorSettings;
    use super::super::certs::Certificate;
    use super::super::tickets;
    use super::*;
    use crate::deadline::Deadline;

    /// The error for a client that sends this and nothing more.
    async fn refusal(said: &[u8]) -> rustls::Error {
        let certificate = Certificate::for_development().expect("it is tested");
        let secret = tickets::TicketSecret::new(&[7; 32]).expect("it is long enough");
        let acceptor = TlsAcceptor::new(&AcceptorSettings::with(certificate), &secret);
        let acceptor = acceptor.expect("a certificate and its key");
        let (ours, mut client) = duplex(1 << 20);
        client.write_all(said).await.expect("a pipe");
        let deadline = Deadline::after(Duration::from_secs(10));
        let admit = |_: &Hello<'_>| Ok::<_, ()>(None);
        match acceptor.accept(ours, deadline, admit).await {
            Err(HandshakeError::Failed(cause, _)) => cause,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("a handshake"),
        }
    }

    /// A ClientHello after two bytes for the fuzz target.
    const HELLO: &[u8] = include_bytes!("../../tests/seeds/front/hello_tls12");

    async fn refusal_after_hello(said: &[u8]) -> rustls::Error {
        refusal(&[&HELLO[2..], said].concat()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_with_too_large_a_length_fails_the_handshake() {
        let cause = refusal_after_hello(&[22, 3, 3, 0, 4, 16, 31, 0, 0]).await;
        assert_eq!(cause, InvalidMessage::HandshakePayloadTooLarge.into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_interrupted_by_another_record_fails_the_handshake() {
        let half = [22, 3, 3, 0, 4, 16, 0, 0, 66];
        let cause = refusal_after_hello(&[&half[..], &[20, 3, 3, 0, 1, 1]].concat()).await;
        let expected = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
        assert_eq!(cause, expected.into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_in_more_records_than_it_needs_fails_the_handshake_in_time() {
        // The message claims 65,535 bytes; each record has one.
        let message = [16, 0, 255, 255].into_iter().chain(std::iter::repeat(0));
        let records = message
            .take(1 << 14)
            .flat_map(|byte| [22, 3, 3, 0, 1, byte]);
        let cause = refusal_after_hello(&Vec::from_iter(records)).await;
        assert_eq!(cause, rustls::Error::General("message buffer full".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_refused_by_its_header_before_its_body_arrives() {
        let cause = refusal_after_hello(&[99, 3, 3, 0, 4]).await;
        assert_eq!(cause, InvalidMessage::InvalidContentType.into());
    }
}
