//! Revocations, for those who steer the supervisor.

use super::SupervisorHandle;
use crate::id::Id;
use crate::proxy;
use crate::revocations::{Revocation, RevokeError, Revoked};

impl SupervisorHandle {
    /// See [`Running::revoke`](crate::Running::revoke).
    ///
    /// # Errors
    ///
    /// The reason why nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. If the future is dropped after its first poll, the identity is revoked nevertheless.
    pub async fn revoke(&self, identity: &str) -> Result<Revoked, RevokeError> {
        proxy::revoke(self.state(), identity).await
    }

    /// See [`Running::revocations`](crate::Running::revocations).
    pub fn revocations(&self) -> Vec<Revocation> {
        self.state().revocations.list()
    }

    /// See [`Running::remove_revocation`](crate::Running::remove_revocation).
    ///
    /// # Errors
    ///
    /// The file of revocations cannot be written. Nothing has changed.
    ///
    /// # Cancel safety
    ///
    /// As [`Self::revoke`].
    pub async fn remove_revocation(&self, id: Id) -> Result<Option<Revocation>, RevokeError> {
        proxy::remove(self.state(), id).await
    }
}
