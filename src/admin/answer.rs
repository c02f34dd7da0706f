//! The answers of the admin API: JSON, and errors as `{"error":{"code":…,"message":…}}`.

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::stream::EventStream;
use crate::time_slice::SlicedText;

pub(super) type Answer = Response<Either<Full<Bytes>, EventStream>>;

/// An answer with this value as its body.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut body = SlicedText::new();
    serde_json::to_writer(&mut body, value).expect("string keys and no failing serializer");
    of_bytes(status, body.into_bytes().into())
}

/// An answer with a body that is JSON already.
pub(super) fn of_bytes(status: StatusCode, body: Bytes) -> Answer {
    of_type("application/json", status, body)
}

/// An answer with a body of this media type.
pub(super) fn of_type(media: &'static str, status: StatusCode, body: Bytes) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An answer that goes on until the client or the process ends.
pub(super) fn of_events(events: EventStream) -> Answer {
    let mut response = of_type("text/event-stream", StatusCode::OK, Bytes::new());
    *response.body_mut() = Either::Right(events);
    response
}

/// Why a request has no effect.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The methods that the path has.
    allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            allow: None,
        }
    }

    /// The request itself is wrong.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn method(allow: &'static str) -> Self {
        let message = format!("this path takes {allow}");
        Self {
            allow: Some(allow),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                message,
            )
        }
    }

    /// The whole response, for a client that has not sent its request yet.
    pub(super) fn text(&self) -> String {
        let status = self.status;
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        let body = body.to_string();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        )
    }

    pub(super) fn into_answer(self) -> Answer {
        #[derive(Serialize)]
        struct Body {
            error: Error,
        }
        #[derive(Serialize)]
        struct Error {
            code: &'static str,
            message: String,
        }
        let Self {
            status,
            code,
            message,
            allow,
        } = self;
        let error = Error { code, message };
        let mut answer = json(status, &Body { error });
        if let Some(allow) = allow {
            let headers = answer.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}
