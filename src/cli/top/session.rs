//! A client of the admin API that keeps its connection from one request to the next.

use std::io;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use vestibule::{Address, Deadline};

use crate::cli::admin::client::{ApiError, judged};

/// One admin API, and the connection to it that is open, if there is one.
pub(super) struct Session {
    address: Address,
    open: Option<Open>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Open {
    stream: BufReader<Box<dyn Stream>>,
    host: String,
}

/// An answer as it came.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Session {
    pub(super) fn new(address: Address) -> Self {
        Self {
            address,
            open: None,
        }
    }

    /// # Errors
    ///
    /// Nobody answers, or the answer is an error.
    async fn get(&mut self, path: &str) -> Result<Value, ApiError> {
        let answer = self.request("GET", path).await?;
        judged(&self.address, answer.status, &answer.body)
    }

    /// Asks once, over a connection of its own: a request that changes something is not repeated.
    ///
    /// # Errors
    ///
    /// Nobody answers.
    async fn delete(&mut self, path: &str) -> Result<Answer, ApiError> {
        self.open = None;
        self.request("DELETE", path).await
    }

    async fn request(&mut self, method: &str, path: &str) -> Result<Answer, ApiError> {
        let answered = Deadline::after(ANSWER).bound(self.exchange(method, path));
        match answered.await {
            Ok(answer) => answer,
            Err(_) => {
                self.open = None;
                let late = anyhow!("{} did not answer within {ANSWER:?}", self.address);
                Err(ApiError::Other(late))
            }
        }
    }

    /// The server closes connections after a while: then a new one is made.
    async fn exchange(&mut self, method: &str, path: &str) -> Result<Answer, ApiError> {
        if let Some(open) = self.open.take()
            && let Ok(answer) = self.ask(open, method, path).await
        {
            return Ok(answer);
        }
        let gone = |error| ApiError::Gone(self.address.clone(), error);
        let open = Open::connect(&self.address).await.map_err(gone)?;
        let answer = self.ask(open, method, path).await;
        answer.map_err(|error| match error.downcast::<io::Error>() {
            Ok(error) => ApiError::Gone(self.address.clone(), error),
            Err(error) => ApiError::Other(error.context("wrong answer")),
        })
    }

    async fn ask(&mut self, mut open: Open, method: &str, path: &str) -> anyhow::Result<Answer> {
        let (answer, end) = open.ask(method, path).await?;
        self.open = (end == End::Stays).then_some(open);
        Ok(answer)
    }
}

/// Whether the server keeps the connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Stays,
    Closes,
}

impl Open {
    async fn connect(address: &Address) -> io::Result<Self> {
        let (stream, host): (Box<dyn Stream>, String) = match address {
            Address::Unix(path) => (
                Box::new(UnixStream::connect(path).await?),
                "localhost".into(),
            ),
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((&**host, *port)).await?;
                stream.set_nodelay(true)?;
                let host = match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                };
                (Box::new(stream), host)
            }
            other => {
                let error = format!("{other} is no address of an admin API");
                return Err(io::Error::other(error));
            }
        };
        Ok(Self {
            stream: BufReader::new(stream),
            host,
        })
    }

    async fn ask(&mut self, method: &str, path: &str) -> anyhow::Result<(Answer, End)> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nVestibule-Admin: 1\r\n\r\n",
            self.host
        );
        self.stream.write_all(request.as_bytes()).await?;
        read(&mut self.stream).await
    }
}

/// Every answer of the admin API has a length.
async fn read(stream: &mut (impl AsyncBufReadExt + Unpin)) -> anyhow::Result<(Answer, End)> {
    let mut head = String::new();
    let mut limited = stream.take(LONGEST_HEAD);
    while !head.ends_with("\r\n\r\n") {
        if limited.read_line(&mut head).await? == 0 {
            match head.is_empty() {
                true => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                false => bail!("the answer is cut short"),
            }
        }
    }
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    let status = status.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(..3));
    let status = status
        .and_then(|it| it.parse().ok())
        .context("no HTTP/1.1")?;
    let (mut length, mut end) = (None, End::Stays);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse::<usize>().ok(),
            "connection" if value.eq_ignore_ascii_case("close") => end = End::Closes,
            _ => {}
        }
    }
    let length = length.filter(|it| *it <= LONGEST_BODY);
    let mut body = vec![0; length.context("no length")?];
    stream.read_exact(&mut body).await?;
    Ok((Answer { status, body }, end))
}

/// The answers of one round.
#[derive(Debug)]
pub(super) struct Polled {
    pub status: Value,
    /// The page of connections, or why the server refuses the query.
    pub page: Result<Value, String>,
}

/// The answer to a kill.
#[derive(Debug)]
pub(super) enum Killed {
    /// The number of connections.
    Done(u64),
    /// Nobody may end connections here.
    Forbidden(String),
    Failed(String),
}

/// The first answers, and the history of the minutes before.
pub(super) async fn first(session: &mut Session, query: &str) -> Result<(Polled, Value), ApiError> {
    let history = session.get("/v1/history").await?;
    Ok((poll(session, query).await?, history))
}

/// Two requests: the status, and a page of connections.
pub(super) async fn poll(session: &mut Session, query: &str) -> Result<Polled, ApiError> {
    let status = session.get("/v1/status").await?;
    let page = match session.get(query).await {
        Ok(page) => Ok(page),
        Err(ApiError::Refused(why)) => Err(why),
        Err(error) => return Err(error),
    };
    Ok(Polled { status, page })
}

/// Ends a connection, over a connection to the API of its own.
pub(super) async fn kill(address: Address, id: &str) -> Killed {
    let mut session = Session::new(address.clone());
    let path = format!("/v1/connections/{id}");
    let answered = session.delete(&path).await;
    let (status, value) = match answered {
        Ok(answer) => (answer.status, judged(&address, answer.status, &answer.body)),
        Err(error) => (0, Err(error)),
    };
    match (status, value) {
        (_, Ok(value)) => Killed::Done(value["killed"].as_u64().unwrap_or_default()),
        (403, Err(error)) => Killed::Forbidden(error.to_string()),
        (_, Err(error)) => Killed::Failed(error.to_string()),
    }
}

const ANSWER: Duration = Duration::from_secs(10);
const LONGEST_HEAD: u64 = 16 * 1024;
/// A page of a thousand connections with long names is far below it.
const LONGEST_BODY: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_follow_each_other_on_one_connection() {
        let mut two = &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}\
            HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1"[..];
        let (first, end) = read(&mut two).await.expect("an answer");
        assert_eq!(
            (first.status, &*first.body, end),
            (200, &b"{}"[..], End::Stays)
        );
        let (second, end) = read(&mut two).await.expect("an answer");
        assert_eq!(
            (second.status, &*second.body, end),
            (403, &b"1"[..], End::Closes)
        );
        let rest = read(&mut two).await.err().expect("the end");
        assert!(rest.downcast_ref::<io::Error>().is_some());
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_short_is_no_answer() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        for cut in 0..whole.len() {
            assert!(read(&mut &whole[..cut]).await.is_err(), "{cut}");
        }
    }
}
