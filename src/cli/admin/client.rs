//! A client of the admin API: one HTTP/1.1 request for each connection.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use vestibule::{Address, Deadline};

/// The admin API of one running Vestibule.
#[derive(Debug)]
pub(in crate::cli) struct Api {
    address: Address,
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ApiError {
    /// Nobody listens there any more, or never has.
    #[error("nobody answers at {0}; is it running? ({1})")]
    Gone(Address, std::io::Error),
    /// The answer is an error.
    #[error("{0}")]
    Refused(String),
    #[error("{0:#}")]
    Other(anyhow::Error),
}

impl Api {
    pub(super) fn at(address: Address) -> Self {
        Self { address }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.request("GET", path, "").await
    }

    pub(super) async fn post(&self, path: &str) -> Result<Value, ApiError> {
        self.request("POST", path, "").await
    }

    /// Sends a value as the body.
    pub(super) async fn post_json(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.request("POST", path, &body.to_string()).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, ApiError> {
        self.request("DELETE", path, "").await
    }

    async fn request(&self, method: &str, path: &str, body: &str) -> Result<Value, ApiError> {
        let answered = Deadline::after(ANSWER)
            .bound(self.exchange(method, path, body))
            .await;
        let (status, body) = match answered {
            Ok(answer) => answer?,
            Err(_) => {
                let late = anyhow!("{} did not answer within {ANSWER:?}", self.address);
                return Err(ApiError::Other(late));
            }
        };
        judged(&self.address, status, &body)
    }

    pub(in crate::cli) fn address(&self) -> &Address {
        &self.address
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<(u16, Vec<u8>), ApiError> {
        let gone = |error| ApiError::Gone(self.address.clone(), error);
        let (host, answer) = match &self.address {
            Address::Unix(path_of_socket) => {
                let stream = UnixStream::connect(path_of_socket).await.map_err(gone)?;
                (
                    "localhost".to_owned(),
                    talk(stream, "localhost", method, path, body).await,
                )
            }
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((&**host, *port)).await.map_err(gone)?;
                let host = match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                };
                let answer = talk(stream, &host, method, path, body).await;
                (host, answer)
            }
            other => (
                other.to_string(),
                Err(anyhow!("no address of an admin API")),
            ),
        };
        answer.map_err(|error| match error.downcast::<std::io::Error>() {
            Ok(error) => gone(error),
            Err(error) => ApiError::Other(error.context(format!("wrong answer from {host}"))),
        })
    }
}

/// The value in an answer.
///
/// # Errors
///
/// The answer is an error, or not of an admin API.
pub(in crate::cli) fn judged(
    address: &Address,
    status: u16,
    body: &[u8],
) -> Result<Value, ApiError> {
    let value: Result<Value, _> = serde_json::from_slice(body);
    match value {
        Ok(value) if (200..300).contains(&status) => Ok(value),
        Ok(value) if value["error"]["message"].is_string() => {
            let message = value["error"]["message"].as_str().unwrap_or_default();
            Err(ApiError::Refused(message.to_owned()))
        }
        Ok(_) | Err(_) => Err(ApiError::Other(anyhow!(
            "{address} answered with status {status} and is no admin API of a Vestibule"
        ))),
    }
}

/// Sends the request and reads the answer to its end.
async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    method: &str,
    path: &str,
    body: &str,
) -> anyhow::Result<(u16, Vec<u8>)> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nVestibule-Admin: 1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    parse(&answer)
}

/// The status and the body. Every answer of the admin API has a length.
fn parse(answer: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.context("no HTTP")?);
    let (head, body) = (std::str::from_utf8(head).context("no HTTP")?, &body[4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let status = status.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(..3));
    let status = status
        .and_then(|it| it.parse().ok())
        .context("no HTTP/1.1")?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    if length != Some(body.len()) {
        bail!("the answer is cut short");
    }
    Ok((status, body.to_vec()))
}

/// A value in a query string.
pub(in crate::cli) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

const ANSWER: Duration = Duration::from_secs(10);
/// A page of a thousand connections with long names is far below it.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_cut_short_is_no_answer() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(whole).ok(), Some((200, b"{}".to_vec())));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
    }

    #[test]
    fn values_are_encoded_for_a_query() {
        assert_eq!(
            encoded("uri:spiffe://a/b c&é"),
            "uri%3Aspiffe%3A%2F%2Fa%2Fb%20c%26%C3%A9"
        );
    }
}
