//! The lines of an offer (docs/gate.md, as streams), and what a front's refusal means.

use hyper::HeaderMap;
use hyper::header::HeaderValue;

use crate::tunnel::StatusCode;

/// What a front's refusal means for the worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It shuts down: another one may come up at its address.
    Draining,
    /// It has no room now.
    Busy,
    /// Only a change of a configuration helps.
    Wrong(String),
}

impl Refused {
    /// `backend` is the name that was asked for.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap, backend: &str) -> Self {
        let reason = headers.get(REFUSAL).map(HeaderValue::as_bytes);
        match reason {
            Some(b"draining") => Self::Draining,
            Some(b"busy") => Self::Busy,
            Some(b"unknown") => Self::Wrong(format!("it has no backend {backend:?}")),
            Some(b"forbidden") => Self::Wrong(format!(
                "it does not let this worker serve the backend {backend:?}; at the front, the listener needs \
                 `workers = true`, and the backend `to = \"gate\"` and a name of our certificate in `workers`"
            )),
            Some(b"malformed") => Self::Wrong("it does not understand the offer".into()),
            Some(_) | None => Self::Wrong(format!(
                "it refuses the offer with status {}; its listener needs `workers = true`",
                status.as_u16()
            )),
        }
    }
}

/// The header that makes a stream an offer.
pub(super) fn offer() -> HeaderMap {
    HeaderMap::from_iter([(KIND.clone(), HeaderValue::from_static("accept"))])
}

static KIND: hyper::header::HeaderName = hyper::header::HeaderName::from_static("vestibule");
const REFUSAL: &str = "vestibule-refusal";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let refused = |reason: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(reason) = reason {
                headers.insert(REFUSAL, HeaderValue::from_static(reason));
            }
            Refused::of(StatusCode::FORBIDDEN, &headers, "app")
        };
        assert_eq!(refused(Some("draining")), Refused::Draining);
        assert_eq!(refused(Some("busy")), Refused::Busy);
        for (reason, word) in [
            (Some("unknown"), "no backend \"app\""),
            (Some("forbidden"), "workers"),
            (Some("malformed"), "understand"),
            (Some("nonsense"), "403"),
            (None, "403"),
        ] {
            let Refused::Wrong(why) = refused(reason) else {
                panic!("{reason:?}")
            };
            assert!(why.contains(word), "{why}");
        }
    }
}
