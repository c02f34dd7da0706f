//! Revokes identities: what [`Running`] and the supervisor do for those who ask.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Running;
use crate::id::Id;
use crate::journal::{Event, EventKind};
use crate::proxy_state::ProxyState;
use crate::revocations::{Revocation, RevokeError, Revoked};

impl Running {
    /// Refuses clients with this identity from now on, and ends their open connections as
    /// [`Outcome::Revoked`](crate::Outcome::Revoked). When this returns, no such connection is admitted any
    /// more on any worker, resumed sessions included.
    ///
    /// `identity` is a pattern as in a route (`cn:alice`, `dns:*.corp.example`, `uri:…`, `ou:…`,
    /// `sha256:…`), or `serial:` and the serial number of a certificate in hexadecimal. At most 10,000 may
    /// be revoked, 100 of them with wildcards. They are stored in the runtime directory and survive a
    /// restart; [`Revoked::is_stored`] says if there is none that lasts.
    ///
    /// # Errors
    ///
    /// The reason why nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. If the future is dropped after its first poll, the identity is revoked nevertheless.
    pub async fn revoke(&self, identity: &str) -> Result<Revoked, RevokeError> {
        revoke(&self.state, identity).await
    }

    /// The revocations in force, the oldest first.
    pub fn revocations(&self) -> Vec<Revocation> {
        self.state.revocations.list()
    }

    /// Removes a revocation: clients with the identity are admitted again. Returns it, or `None` if there
    /// is none with this id.
    ///
    /// # Errors
    ///
    /// The file of revocations cannot be written. Nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// As [`Self::revoke`].
    pub async fn remove_revocation(&self, id: Id) -> Result<Option<Revocation>, RevokeError> {
        remove(&self.state, id).await
    }
}

pub(crate) async fn revoke(
    state: &Arc<ProxyState>,
    identity: &str,
) -> Result<Revoked, RevokeError> {
    let (state, identity) = (Arc::clone(state), identity.to_owned());
    blocking(move || {
        let revoked = state.revocations.revoke(&state.ledger, &identity)?;
        publish(&state, "revoked", &revoked.revocation, revoked.ended);
        Ok(revoked)
    })
    .await
}

pub(crate) async fn remove(
    state: &Arc<ProxyState>,
    id: Id,
) -> Result<Option<Revocation>, RevokeError> {
    let state = Arc::clone(state);
    blocking(move || {
        let removed = state.revocations.remove(id)?;
        if let Some(revocation) = &removed {
            publish(&state, "removed", revocation, 0);
        }
        Ok(removed)
    })
    .await
}

/// The disk may be slow, and the caller's thread may serve the gate.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RevokeError> + Send + 'static,
) -> Result<T, RevokeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(RevokeError::Store {
            path: PathBuf::new(),
            source: io::Error::other(error),
        })
    })
}

fn publish(state: &ProxyState, result: &'static str, revocation: &Revocation, ended: usize) {
    state.journal.publish(Event::now(EventKind::Revoke {
        result,
        revocation: revocation.id.to_string(),
        what: revocation.identity.clone(),
        ended,
    }));
}
