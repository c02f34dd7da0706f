//! What the stages of a connection add to the metrics.

use std::sync::Arc;
use std::time::Duration;

use super::termination::{Termination, reason};
use crate::backend::{Served, Unserved};
use crate::ledger::Reason;
use crate::metrics::{BackendMetrics, Handshake, Metrics};
use crate::outcome::EndCause;
use crate::rendezvous::Resolution;
use crate::route::RouteRefusal;
use crate::tls::{HandshakeError, Secured};

/// Counts a handshake that has ended, for better or worse. One that was ended from outside, for example
/// by a kill, is not counted.
pub(super) fn shaken<IO>(
    metrics: &Metrics,
    listener: &Arc<str>,
    secured: &Result<Secured<IO>, HandshakeError<IO, RouteRefusal>>,
    took: Duration,
) {
    let (tls, result) = match secured {
        Ok(secured) => (Some(&secured.facts), "ok"),
        Err(error) => (None, word(error)),
    };
    metrics.shaken(&Handshake {
        listener,
        tls,
        result,
        took,
    });
}

fn word<IO>(error: &HandshakeError<IO, RouteRefusal>) -> &'static str {
    match error {
        HandshakeError::NotTls(_) => "not_tls",
        HandshakeError::Failed(cause, _) => match reason(cause) {
            Reason::Certificate => "certificate",
            Reason::ClientRefused => "client_refused",
            _ => "failed",
        },
        HandshakeError::Refused(RouteRefusal::NoRoute, _) => "no_route",
        HandshakeError::Refused(RouteRefusal::Denied, _) => "denied",
        HandshakeError::Gone => "client_gone",
        HandshakeError::TimedOut => "timeout",
    }
}

/// Counts a connection whose wait for a backend has ended.
pub(super) fn resolved(
    metrics: &BackendMetrics,
    obtained: &Result<Served, Termination>,
    waited: Duration,
) {
    let resolution = match obtained {
        Ok(served) => served.resolution(),
        Err(termination) => resolution(termination),
    };
    metrics.resolved(resolution, waited);
    if let Ok(Served {
        dial: Some(took), ..
    }) = obtained
    {
        metrics.dialled(*took);
    }
}

fn resolution(termination: &Termination) -> Resolution {
    match termination {
        Termination::Unserved(unserved) => match unserved {
            Unserved::TimedOut(_) | Unserved::OutOfService(Some(_)) | Unserved::Expired(_) => {
                Resolution::Expired
            }
            Unserved::Drained | Unserved::Ended(EndCause::Drained) => Resolution::Drained,
            Unserved::Refused | Unserved::OutOfService(None) | Unserved::Reset => {
                Resolution::Refused
            }
            Unserved::Ended(
                EndCause::Killed | EndCause::AddressDown | EndCause::Revoked | EndCause::Shed,
            ) => Resolution::Refused,
        },
        Termination::ClientGone => Resolution::ClientGone,
        // None of these ends a wait.
        Termination::Rejected(_)
        | Termination::Relayed(_)
        | Termination::BackendRefused
        | Termination::Lifetime
        | Termination::Ended(_) => Resolution::Refused,
    }
}
