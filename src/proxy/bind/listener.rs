//! Binds a listener, with the sockets for each worker.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::advice;
use crate::address::Address;
use crate::config::{Config, Listener};
use crate::facts::Endpoint;
use crate::listener::Stop;
use crate::proxy::error::{BindError, PathError};
use crate::sys::unix::{Access, SocketFile};
use crate::sys::{tcp, unix};
use crate::worker::{Bound, Socket};

/// A listener that is bound.
#[derive(Debug)]
pub(in crate::proxy) struct Open {
    /// The address as configured.
    pub address: Address,
    /// The address with the port that the system chose.
    pub actual: Address,
    pub has_tls: bool,
    /// All endpoints that it is bound to.
    pub endpoints: Vec<Endpoint>,
    /// The permissions of a Unix socket.
    pub access: Access,
    pub stop: Arc<Stop>,
    pub file: Option<SocketFile>,
}

/// Binds the listener. Returns it, and the sockets of each worker.
pub(in crate::proxy) fn bind_listener(
    listener: &Listener,
    config: &Config,
    workers: usize,
) -> Result<(Open, Vec<Vec<Bound>>), BindError> {
    let stop = Arc::<Stop>::default();
    let (endpoints, file, sockets) = match &listener.address {
        Address::Tcp { host, port } => {
            let sockets = tcp::bind(host, *port, workers, config.unacknowledged);
            let sockets = sockets.map_err(|error| {
                let tcp::Unbound { address, error } = error;
                cannot(
                    listener,
                    match address {
                        Some(address) => advice::of_port(error, address),
                        None => advice::of_name(error, host),
                    },
                )
            })?;
            let addresses = sockets.iter().map(|(address, _)| Endpoint::Tcp(*address));
            (addresses.collect(), None, of_tcp(sockets, workers))
        }
        Address::Unix(path) => {
            let cannot = |error| cannot(listener, advice::of_path(error, path));
            let unix::Bound {
                listener: socket,
                file,
                ..
            } = unix::bind(path, &listener.access, unix::BACKLOG).map_err(cannot)?;
            // Unix sockets have no SO_REUSEPORT: the workers share one socket.
            let share = || {
                let socket = socket.try_clone().map_err(|error| cannot(error.into()))?;
                Ok(vec![Socket::Unix(socket, Endpoint::Unix(path.clone()))])
            };
            let sockets: Result<_, BindError> = (0..workers).map(|_| share()).collect();
            (vec![Endpoint::Unix(path.clone())], Some(file), sockets?)
        }
    };
    let actual = match endpoints.first() {
        Some(Endpoint::Tcp(address)) => Address::from(*address),
        Some(Endpoint::Unix(_)) | None => listener.address.clone(),
    };
    let open = Open {
        address: listener.address.clone(),
        actual,
        has_tls: listener.tls.is_some(),
        endpoints,
        access: listener.access.clone(),
        stop,
        file,
    };
    let bound = sockets
        .into_iter()
        .map(|sockets| open.bound(&listener.name, sockets));
    let bound = bound.collect();
    Ok((open, bound))
}

fn cannot(listener: &Listener, source: PathError) -> BindError {
    BindError::Listener {
        listener: listener.name.clone(),
        address: listener.address.clone(),
        source,
    }
}

/// Distributes the sockets: each worker gets one socket for each address.
fn of_tcp(sockets: Vec<(SocketAddr, Vec<TcpListener>)>, workers: usize) -> Vec<Vec<Socket>> {
    let mut all: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
    for (address, sockets) in sockets {
        let local = (!address.ip().is_unspecified()).then_some(Endpoint::Tcp(address));
        for (worker, socket) in all.iter_mut().zip(sockets) {
            worker.push(Socket::Tcp(socket, local.clone()));
        }
    }
    all
}

impl Open {
    fn bound(&self, name: &str, sockets: Vec<Socket>) -> Vec<Bound> {
        let name: Arc<str> = name.into();
        let bound = |socket| Bound {
            socket,
            name: Arc::clone(&name),
            stop: Arc::clone(&self.stop),
        };
        sockets.into_iter().map(bound).collect()
    }

    /// Changes the permissions of a Unix socket to those of `listener`.
    pub(in crate::proxy) fn change(&mut self, listener: &Listener) -> Result<(), BindError> {
        if let Some(file) = &self.file
            && self.access != listener.access
        {
            let changed = file.open_to(&listener.access);
            changed.map_err(|error| cannot(listener, PathError::Io(error)))?;
            self.access = listener.access.clone();
        }
        Ok(())
    }
}
