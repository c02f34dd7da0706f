//! The dashboard: one page, put together once from its parts.
//!
//! The page may load nothing but its own style and script, which the policy names by their hashes, and talk
//! to nothing but this API.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY,
};
use hyper::http::request::Parts;

use super::answer::{Answer, of_type};

struct Page {
    text: Bytes,
    tag: HeaderValue,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let script = SCRIPTS.concat();
    let text = FRAME
        .replace("/* style.css */", STYLE)
        .replace("/* script */", &script);
    let hash = digest(&SHA256, text.as_bytes());
    let tag = hash.as_ref().iter().take(8);
    let tag = tag.fold(String::new(), |mut tag, byte| {
        // Writing to a String cannot fail.
        let _ = write!(tag, "{byte:02x}");
        tag
    });
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        source(&script),
        source(STYLE)
    );
    let value = |text: String| HeaderValue::try_from(text).expect("ASCII without line ends");
    Page {
        text: text.into(),
        tag: value(format!("\"{tag}\"")),
        policy: value(policy),
    }
});

/// The page, or 304 if the client has it.
pub(super) fn page(head: &Parts) -> Answer {
    let Page { text, tag, policy } = &*PAGE;
    let known = head.headers.get_all(IF_NONE_MATCH).iter();
    let is_known = known
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .any(|it| it.trim().trim_start_matches("W/") == tag);
    let mut answer = match is_known {
        false => of_type(MEDIA, StatusCode::OK, text.clone()),
        true => of_type(MEDIA, StatusCode::NOT_MODIFIED, Bytes::new()),
    };
    let headers = answer.headers_mut();
    headers.insert(ETAG, tag.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

/// How a Content-Security-Policy names an inline style or script.
fn source(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    format!("sha256-{}", base64(hash.as_ref()))
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| chunk.get(at).copied().map_or(0, u32::from);
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_padding = digit > chunk.len();
            let index = (word >> (18 - 6 * digit)) & 0x3f;
            text.push(match is_padding {
                true => '=',
                false => char::from(ALPHABET[index as usize]),
            });
        }
    }
    text
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const MEDIA: &str = "text/html; charset=utf-8";

const FRAME: &str = include_str!("dashboard/index.html");
const STYLE: &str = include_str!("dashboard/style.css");

/// In this order: each uses those before it.
const SCRIPTS: [&str; 4] = [
    include_str!("dashboard/format.js"),
    include_str!("dashboard/chart.js"),
    include_str!("dashboard/table.js"),
    include_str!("dashboard/app.js"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_page_has_its_parts_and_names_no_other_place() {
        let text = std::str::from_utf8(&PAGE.text).expect("UTF-8");
        assert!(text.contains(STYLE));
        for script in SCRIPTS {
            assert!(text.contains(script));
            assert!(
                !script.contains("innerHTML"),
                "texts of clients are no HTML"
            );
        }
        let namespace = "http://www.w3.org/2000/svg";
        let rest = text.replace(namespace, "");
        for outside in ["http:", "https:", "src=\"", "@import", "url("] {
            assert!(!rest.contains(outside), "{outside}");
        }
    }
}
