//! Backends on TCP and Unix sockets, with a behaviour that the test defines.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::client::Socket;

/// A listener that Vestibule dials.
pub enum Backend {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Backend {
    pub async fn tcp() -> Self {
        Self::Tcp(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    pub fn unix(path: &Path) -> Self {
        Self::Unix(UnixListener::bind(path).expect("a path"), path.to_owned())
    }

    /// The address in the form of `to = "…"`.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => format!("tcp:{}", listener.local_addr().expect("bound")),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    pub async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Socket::Tcp(stream)),
            Self::Unix(listener, _) => listener
                .accept()
                .await
                .map(|(stream, _)| Socket::Unix(stream)),
        }
    }

    /// Serves every connection with `serve`, in the background, until the set is dropped.
    pub fn serve<F>(self, serve: impl Fn(Socket) -> F + Send + 'static) -> JoinSet<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok(socket) = self.accept().await {
                connections.spawn(serve(socket));
            }
        });
        tasks
    }
}
