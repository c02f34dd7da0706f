//! From a socket to a client whose facts are known and whose backend is chosen.

use std::sync::Arc;

use tokio_rustls::rustls::{self, AlertDescription};
use tracing::debug;

use super::Front;
use crate::backend::Backend;
use crate::client::{self, Client};
use crate::deadline::Deadline;
use crate::facts::Facts;
use crate::ledger::Record;
use crate::limits::{Exceeded, IdentityShare};
use crate::outcome::Outcome;
use crate::route::{Query, Refusal};
use crate::setup::{Setup, Unwelcome};
use crate::sys::socket::Socket;
use crate::tls::{self, HandshakeError, Hello, Peer, Protocol, TlsAcceptor};
use crate::worker::Shared;

/// A client that was let in, and to whom.
pub(super) struct Admitted {
    pub client: Client,
    pub backend: Arc<Backend>,
    /// Its place among the connections of whoever it is.
    pub share: Option<IdentityShare>,
}

/// Why a client was not let in.
pub(super) enum Refused {
    /// There was no handshake, or not to its end.
    Handshake(HandshakeError<Socket, Refusal>),
    /// Whoever it is may not come in.
    Unwelcome(Client, Unwelcome),
    /// Whoever it is has been let in too often.
    OverLimit(Client, Exceeded),
}

pub(super) async fn admit(
    socket: Socket,
    facts: &mut Facts,
    deadline: Deadline,
    setup: &Arc<Setup>,
    shared: &Shared,
    record: &mut Record,
) -> Result<Admitted, Refused> {
    let front = facts.listener.as_ref().and_then(|it| setup.fronts.get(it));
    let refuse = |refusal, socket| Refused::Handshake(HandshakeError::Refused(refusal, socket));
    // The listener went with a reload while this one came in.
    let Some(front) = front else {
        return Err(refuse(Refusal::NoRoute, socket));
    };
    let Some(acceptor) = &front.tls else {
        return match setup.route(facts) {
            Ok(backend) => Ok(admitted(Client::plain(socket), backend, None, facts)),
            Err(refusal) => Err(refuse(refusal, socket)),
        };
    };
    let (client, peer) = secure(socket, facts, deadline, setup, front, acceptor)
        .await
        .map_err(Refused::Handshake)?;
    let Some(Peer { identity, chain }) = peer else {
        return welcome(client, facts, &[], setup, shared);
    };
    facts.identity = Some(identity);
    // Entered before the latest setup is asked: a reload that comes between would find it there.
    record.identify(facts.clone(), chain);
    let chain = record.known().map_or(&[][..], |known| &known.chain);
    welcome(client, facts, chain, setup, shared)
}

/// Asks the latest setup, and the limits, about a client whose handshake is done.
fn welcome(
    client: Client,
    facts: &mut Facts,
    chain: &[rustls::pki_types::CertificateDer<'_>],
    setup: &Arc<Setup>,
    shared: &Shared,
) -> Result<Admitted, Refused> {
    let latest = shared.setup.load();
    let was_resumed = facts.tls.as_ref().is_some_and(|tls| tls.resumed);
    let backend = match !was_resumed && Arc::ptr_eq(&latest, setup) {
        true => latest.route(facts).map_err(Unwelcome::Route),
        false => latest.admit(facts, chain),
    };
    let backend = match backend {
        Ok(backend) => backend,
        Err(unwelcome) => return Err(Refused::Unwelcome(client, unwelcome)),
    };
    let identity = facts.identity.as_ref();
    match identity
        .map(|it| shared.limits.admit_identity(it))
        .transpose()
    {
        Ok(share) => Ok(admitted(client, backend, share, facts)),
        Err(exceeded) => Err(Refused::OverLimit(client, exceeded)),
    }
}

fn admitted(
    client: Client,
    backend: &Arc<Backend>,
    share: Option<IdentityShare>,
    facts: &mut Facts,
) -> Admitted {
    facts.backend = backend.name().to_owned();
    Admitted {
        client,
        backend: Arc::clone(backend),
        share,
    }
}

/// The handshake, which goes on only where a route could come to take the client.
async fn secure(
    socket: Socket,
    facts: &mut Facts,
    deadline: Deadline,
    setup: &Setup,
    front: &Front,
    acceptor: &TlsAcceptor,
) -> Result<(Client, Option<Peer>), HandshakeError<Socket, Refusal>> {
    let admit = |hello: &Hello<'_>| choose(hello, facts, setup, front);
    let secured = acceptor.accept(socket, deadline, admit).await?;
    facts.tls = Some(secured.facts);
    let client = Client::secured(secured.session)
        .map_err(|socket| HandshakeError::Failed(tls::unknown_suite(), socket))?;
    Ok((client, secured.peer))
}

/// The first protocol with which a route could serve the client.
fn choose(
    hello: &Hello<'_>,
    facts: &Facts,
    setup: &Setup,
    front: &Front,
) -> Result<Option<Protocol>, Refusal> {
    let mut refusal = Refusal::NoRoute;
    for choice in hello.choices() {
        let query = Query {
            listener: &front.name,
            sni: hello.server_name(),
            alpn: choice.map(|(_, name)| name),
            peer: facts.peer_ip(),
            identity: None,
        };
        match setup.expect(front, &query) {
            Ok(()) => return Ok(choice.map(|(protocol, _)| protocol)),
            Err(reason) => refusal = reason,
        }
    }
    Err(refusal)
}

impl Refused {
    /// Ends the connection, with time for the alert to arrive, and says what that is called.
    pub(super) async fn outcome(self) -> Outcome {
        let (socket, outcome) = match self {
            Self::Handshake(HandshakeError::NotTls(socket)) => (socket, Outcome::NotTls),
            Self::Handshake(HandshakeError::Failed(cause, socket)) => {
                debug!(%cause, "handshake failed");
                (socket, Outcome::HandshakeFailed)
            }
            Self::Handshake(HandshakeError::Refused(refusal, socket)) => {
                (socket, Unwelcome::Route(refusal).outcome())
            }
            Self::Handshake(HandshakeError::Gone) => return Outcome::ClientGone,
            Self::Handshake(HandshakeError::TimedOut) => return Outcome::HandshakeTimeout,
            Self::Unwelcome(client, unwelcome) => {
                let alert = match &unwelcome {
                    Unwelcome::Route(_) => AlertDescription::AccessDenied,
                    Unwelcome::Certificate(cause) => {
                        debug!(%cause, "certificate refused");
                        tls::alert(cause)
                    }
                };
                client.refuse(alert).await;
                return unwelcome.outcome();
            }
            Self::OverLimit(client, limit) => {
                debug!(limit = limit.key(), "connection refused");
                client.refuse(AlertDescription::AccessDenied).await;
                return Outcome::OverLimit;
            }
        };
        client::close(socket).await;
        outcome
    }
}
