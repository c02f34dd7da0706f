//! The paths of the admin API and their methods. openapi.json describes the same.

use hyper::{Method, StatusCode};

use super::answer::Refusal;

/// What a path is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Dashboard,
    Health,
    Readiness,
    Metrics,
    Status,
    Connections,
    Connection,
    Backends,
    Events,
    History,
    Revocations,
    Revocation,
    Address,
    Log,
    Drain,
    Reload,
    Description,
}

/// Each path, with the methods that it takes. `{…}` stands for one segment.
const ROUTES: [(&str, Route, &str); 17] = [
    ("/", Route::Dashboard, READ),
    ("/healthz", Route::Health, READ),
    ("/readyz", Route::Readiness, READ),
    ("/metrics", Route::Metrics, READ),
    ("/v1/status", Route::Status, READ),
    ("/v1/connections", Route::Connections, READ_AND_DELETE),
    ("/v1/connections/{id}", Route::Connection, READ_AND_DELETE),
    ("/v1/backends", Route::Backends, READ),
    ("/v1/events", Route::Events, READ),
    ("/v1/history", Route::History, READ),
    ("/v1/revocations", Route::Revocations, "GET, HEAD, POST"),
    ("/v1/revocations/{id}", Route::Revocation, "DELETE"),
    (ADDRESS, Route::Address, "PUT"),
    ("/v1/log", Route::Log, "GET, HEAD, PUT, DELETE"),
    ("/v1/drain", Route::Drain, "POST"),
    ("/v1/reload", Route::Reload, "POST"),
    ("/v1/openapi.json", Route::Description, READ),
];

const ADDRESS: &str = "/v1/backends/{name}/addresses/{address}";
const READ: &str = "GET, HEAD";
const READ_AND_DELETE: &str = "GET, HEAD, DELETE";

/// Whether a request changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// The route of a path, and the path from the segment for `{…}` on.
///
/// # Errors
///
/// There is no such path, or it does not take the method.
pub(super) fn find<'p>(
    method: &Method,
    path: &'p str,
) -> Result<(Route, Access, &'p str), Refusal> {
    for (pattern, route, methods) in ROUTES {
        let Some(segment) = matched(pattern, path) else {
            continue;
        };
        if !methods.split(", ").any(|it| it == method.as_str()) {
            return Err(Refusal::method(methods));
        }
        let access = match *method {
            Method::GET | Method::HEAD => Access::Read,
            _ => Access::Write,
        };
        return Ok((route, access, segment));
    }
    let message = format!("the admin API has no path {path:?}; /v1/openapi.json lists all");
    Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", message))
}

fn matched<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    match pattern.split_once('{') {
        None => (pattern == path).then_some(""),
        Some((prefix, _)) => {
            let rest = path.strip_prefix(prefix)?;
            let fits = |(expected, segment): (&str, &str)| match expected.starts_with('{') {
                true => !segment.is_empty(),
                false => segment == expected,
            };
            let expected = pattern[prefix.len()..].split('/');
            let is_whole = expected.clone().count() == rest.split('/').count();
            (is_whole && expected.zip(rest.split('/')).all(fits)).then_some(rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::admin::OPENAPI;

    #[test]
    fn the_description_has_each_path_with_its_methods_and_no_other() {
        let description: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = description["paths"].as_object().expect("paths");
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods").keys();
                let methods = methods.filter(|it| *it != "parameters");
                methods.map(move |method| (path.clone(), method.to_uppercase()))
            })
            .collect();
        let served: BTreeSet<(String, String)> = ROUTES
            .iter()
            .flat_map(|(path, _, methods)| {
                let methods = methods.split(", ").filter(|it| *it != "HEAD");
                methods.map(move |method| ((*path).to_owned(), method.to_owned()))
            })
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn paths_match_as_a_whole() {
        let found = |path| {
            find(&Method::GET, path)
                .map(|(route, _, rest)| (route, rest))
                .ok()
        };
        assert_eq!(found("/"), Some((Route::Dashboard, "")));
        assert_eq!(found("/v1/status"), Some((Route::Status, "")));
        assert_eq!(found("/v1/connections/x"), Some((Route::Connection, "x")));
        let address = "/v1/backends/app/addresses/unix:%2Frun%2Fapp.sock";
        let put = find(&Method::PUT, address).map(|(route, _, rest)| (route, rest));
        let expected = (Route::Address, "app/addresses/unix:%2Frun%2Fapp.sock");
        assert_eq!(put.ok(), Some(expected));
        for path in [
            "/v1/backends/app",
            "/v1/backends/app/addresses",
            "/v1/backends/app/addresses/",
            "/v1/backends//addresses/a",
            "/v1/backends/app/address/a",
            "/v1/backends/app/addresses/a/b",
            "",
            "//",
            "/v1/status/",
            "/v1/connections/",
            "/v1/connections/x/y",
            "v1/status",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let refused = find(&Method::PUT, "/v1/connections").expect_err("no PUT");
        let answer = refused.into_answer();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers()["allow"], "GET, HEAD, DELETE");
    }
}
