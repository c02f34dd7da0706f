//! The built-in backend that shows clients what Vestibule knows about their connection.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::DuplexStream;

use crate::drain::Drain;
use crate::facts::Facts;

/// Answers HTTP/1.1 requests until the client leaves. After a drain begins it only finishes the
/// request in progress.
pub(crate) async fn serve(stream: DuplexStream, facts: Arc<Facts>, drain: Drain) {
    let answer = service_fn(|request| {
        let response = answer(&request, &facts);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .half_close(true)
            .serve_connection(TokioIo::new(stream), answer)
    );
    // hyper answers a client that does not speak HTTP with 400. The record has the reason for the
    // end.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = drain.started() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

fn answer(request: &Request<Incoming>, facts: &Facts) -> Response<Full<Bytes>> {
    let (content_type, body) = match preferred(request.headers().get(ACCEPT)) {
        Form::Json => ("application/json", format!("{}\n", facts.to_json())),
        Form::Html => ("text/html; charset=utf-8", html(facts)),
        Form::Text => ("text/plain; charset=utf-8", text(facts)),
    };
    let mut response = Response::new(Full::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    response
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Html,
    Json,
}

/// The first known media type in the client's `Accept`; plain text if it accepts anything.
fn preferred(accept: Option<&HeaderValue>) -> Form {
    let accept = accept
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let named = accept
        .split(',')
        .find_map(|range| match range.split(';').next()?.trim() {
            "application/json" => Some(Form::Json),
            "text/html" => Some(Form::Html),
            "text/plain" => Some(Form::Text),
            _ => None,
        });
    named.unwrap_or(Form::Text)
}

/// The facts as names and values, in the order in which they are shown.
fn rows(facts: &Facts) -> Vec<(&'static str, String)> {
    let mut rows = vec![("id", facts.id.to_string())];
    let mut add = |name, value: Option<String>| rows.push((name, value.unwrap_or("none".into())));
    match &facts.tls {
        Some(tls) => {
            add("TLS version", Some(tls.version.into()));
            add("cipher", tls.cipher.map(Into::into));
            add("group", tls.group.map(Into::into));
            add("SNI", tls.sni.as_deref().map(Into::into));
            add("ALPN", tls.alpn.as_deref().map(Into::into));
            add(
                "session",
                Some(if tls.resumed { "resumed" } else { "new" }.into()),
            );
        }
        None => add("TLS version", None),
    }
    add("peer", facts.peer.as_ref().map(ToString::to_string));
    add("local", facts.local.as_ref().map(ToString::to_string));
    add("listener", facts.listener.as_deref().map(Into::into));
    add("backend", Some(facts.backend.clone()));
    // Most clients have no identity, and then there is no row for it.
    if let Some(identity) = &facts.identity {
        add("identity", Some(identity.to_string()));
    }
    add(
        "accepted",
        Some(humantime::format_rfc3339_millis(facts.accepted_at).to_string()),
    );
    rows
}

fn text(facts: &Facts) -> String {
    let mut page = String::from("Hello from Vestibule. This is your connection:\n\n");
    for (name, value) in rows(facts) {
        writeln!(page, "  {name:<12} {value}").expect("a string takes everything");
    }
    page
}

fn html(facts: &Facts) -> String {
    let mut table = String::new();
    for (name, value) in rows(facts) {
        writeln!(
            table,
            "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>",
            escape(&value)
        )
        .expect("a string takes everything");
    }
    PAGE.replace("{table}", &table)
}

/// The SNI and ALPN come from the client, and this is HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const PAGE: &str = include_str!("hello.html");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::TlsFacts;

    #[test]
    fn the_first_media_type_in_accept_is_used() {
        for (accept, form) in [
            ("*/*", Form::Text),
            ("", Form::Text),
            ("application/json", Form::Json),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Form::Html),
            ("image/png, application/json;q=0.5", Form::Json),
        ] {
            let header = HeaderValue::from_static(accept);
            assert_eq!(preferred(Some(&header)), form, "{accept}");
        }
        assert_eq!(preferred(None), Form::Text);
    }

    #[test]
    fn text_from_the_client_is_escaped() {
        let mut facts = Facts::new("hello");
        facts.tls = Some(TlsFacts {
            sni: Some("<script>&\"".into()),
            ..TlsFacts::default()
        });
        let page = html(&facts);
        assert!(page.contains("&lt;script&gt;&amp;&quot;"), "{page}");
        assert!(!page.contains("<script>"));
    }

    #[test]
    fn on_a_narrow_screen_each_value_is_below_its_name() {
        let page = html(&Facts::new("hello"));
        assert!(page.contains("name=\"viewport\" content=\"width=device-width, initial-scale=1\""));
        let (_, narrow) = page
            .split_once("@media (max-width: 32rem)")
            .expect("a rule");
        assert!(narrow.contains("th, td { display: block; }"));
    }
}
