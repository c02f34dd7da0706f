//! The state of a backend's address, by order of an operator.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::info;

use super::access::Author;
use super::answer::{self, Answer, Refusal};
use super::query;
use crate::address::Address;
use crate::backend::AddressState;
use crate::proxy::UnknownAddress;
use crate::supervisor::SupervisorHandle;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    state: String,
}

/// Changes the state of an address. `path` is `NAME/addresses/ADDRESS`.
pub(super) fn set(
    handle: &SupervisorHandle,
    path: &str,
    body: &[u8],
    author: Author,
) -> Result<Answer, Refusal> {
    let (backend, text) = path.split_once("/addresses/").unwrap_or((path, ""));
    let (backend, text) = (query::segment(backend)?, query::segment(text)?);
    let state = state(body)?;
    let Ok(address) = text.parse::<Address>() else {
        let unknown = UnknownAddress::unreadable(handle.state(), &backend, &text);
        return Err(unknown.into());
    };
    let changed = handle.set_address_state(&backend, &address, state)?;
    let (open, killed) = (changed.open, changed.killed);
    info!(
        %author, backend, %address, %state, open, killed,
        "state of an address changed through the admin API"
    );
    let answer = json!({
        "backend": backend,
        "address": address.to_string(),
        "state": state.as_str(),
        "connections": open,
        "killed": killed,
    });
    Ok(answer::json(StatusCode::OK, &answer))
}

fn state(body: &[u8]) -> Result<AddressState, Refusal> {
    const EXPECTED: &str =
        "expected {\"state\":\"up\"}, {\"state\":\"drain\"} or {\"state\":\"down\"}";
    let wrong = |error| Refusal::bad(format!("{EXPECTED} as the body: {error}"));
    // A map first: serde takes a list for a struct as well.
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(wrong)?;
    let order: Order = serde_json::from_value(body.into()).map_err(wrong)?;
    let state = order.state.parse();
    state.map_err(|_| Refusal::bad(format!("{EXPECTED}, found {:?}", order.state)))
}

impl From<UnknownAddress> for Refusal {
    fn from(unknown: UnknownAddress) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", unknown.to_string())
    }
}
