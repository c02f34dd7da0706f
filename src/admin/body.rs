//! The body of a request, within its bounds.

use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::{Body, Bytes, Incoming};

use super::REQUEST;
use super::answer::Refusal;
use crate::deadline::Deadline;

/// Reads a body to its end.
pub(super) async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let read = Limited::new(body, LONGEST_BODY).collect();
    match Deadline::after(REQUEST).bound(read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body is limited to {LONGEST_BODY} bytes"),
        )),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            format!("the body did not arrive within {REQUEST:?}"),
        )),
    }
}

const LONGEST_BODY: usize = 64 * 1024;
