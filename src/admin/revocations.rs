//! Revokes identities, lists the revocations, and removes them.

use hyper::StatusCode;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};

use super::access::Author;
use super::answer::{Answer, Refusal, json};
use crate::revocations::{Revocation, RevokeError, Revoked};
use crate::supervisor::SupervisorHandle;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    identity: String,
}

/// A revocation as the API shows it.
#[derive(Serialize)]
struct Row {
    id: String,
    identity: String,
    created: String,
}

#[derive(Serialize)]
struct Made {
    #[serde(flatten)]
    row: Row,
    /// Open connections that were told to end.
    ended: usize,
    /// Whether it survives a restart.
    stored: bool,
}

/// All revocations, the oldest first.
pub(super) fn list(handle: &SupervisorHandle) -> Answer {
    let rows = handle.revocations().into_iter().map(Row::from);
    let rows: Vec<Row> = rows.collect();
    json(StatusCode::OK, &json!({ "revocations": rows }))
}

/// Revokes an identity: 201, or 200 if it was revoked before.
pub(super) async fn revoke(
    handle: &SupervisorHandle,
    body: &Bytes,
    author: Author,
) -> Result<Answer, Refusal> {
    let Request { identity } = serde_json::from_slice(body).map_err(|error| {
        Refusal::bad(format!(
            "the body: {error}; write JSON such as {{\"identity\":\"cn:alice\"}}"
        ))
    })?;
    let Revoked {
        revocation,
        is_new,
        is_stored,
        ended,
    } = handle.revoke(&identity).await?;
    let identity = &revocation.identity;
    info!(%author, identity, ended, "identity revoked through the admin API");
    if !is_stored {
        warn!(
            identity,
            "the revocation ends with this process; set `runtime.directory` to store it"
        );
    }
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let made = Made {
        row: revocation.into(),
        ended,
        stored: is_stored,
    };
    Ok(json(status, &made))
}

/// Removes a revocation, and shows what it was.
pub(super) async fn remove(
    handle: &SupervisorHandle,
    id: &str,
    author: Author,
) -> Result<Answer, Refusal> {
    let wrong = |_| Refusal::bad(format!("expected the UUID of a revocation, found {id:?}"));
    let removed = handle.remove_revocation(id.parse().map_err(wrong)?).await?;
    let Some(revocation) = removed else {
        let message = format!("no revocation has the id {id}; `vestibule revoke --list` shows all");
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", message));
    };
    let identity = &revocation.identity;
    info!(%author, identity, "revocation removed through the admin API");
    Ok(json(StatusCode::OK, &Row::from(revocation)))
}

impl From<Revocation> for Row {
    fn from(revocation: Revocation) -> Self {
        Self {
            id: revocation.id.to_string(),
            identity: revocation.identity,
            created: humantime::format_rfc3339_millis(revocation.created).to_string(),
        }
    }
}

impl From<RevokeError> for Refusal {
    fn from(error: RevokeError) -> Self {
        let message = error.to_string();
        match error {
            RevokeError::Identity { .. } => Self::bad(message),
            RevokeError::Full { .. } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "full", message)
            }
            RevokeError::Store { .. } => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "not_stored",
                format!("{message}; nothing is revoked that was not before"),
            ),
        }
    }
}
