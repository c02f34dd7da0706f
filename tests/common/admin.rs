//! The admin API, asked with curl.

use std::path::Path;

use serde_json::Value;

use super::process::{curl, output};

/// An answer of the admin API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// With lower-case names.
    pub headers: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error.
    #[track_caller]
    pub fn code(&self) -> String {
        let value = self.json();
        assert!(value["error"]["message"].is_string(), "{self:?}");
        value["error"]["code"].as_str().expect("a code").to_owned()
    }
}

/// Sends a request over a Unix socket. `flags` are more flags of curl.
pub async fn ask(socket: &Path, path: &str, flags: &[&str]) -> Answer {
    let socket = socket.display().to_string();
    let unix = ["--unix-socket", &socket];
    send(&[&unix, flags].concat(), &format!("http://localhost{path}")).await
}

/// Sends a request to a URL.
pub async fn send(flags: &[&str], url: &str) -> Answer {
    let mut command = curl();
    command.args(["-i", "-g"]).args(flags).arg(url);
    let text = output(command).await.text();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    Answer {
        status: status.expect("a status"),
        headers: head.to_lowercase(),
        body: body.to_owned(),
    }
}

pub const WRITE: [&str; 2] = ["-H", "Vestibule-Admin: 1"];
