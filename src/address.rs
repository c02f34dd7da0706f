//! Addresses to listen on or to dial: `tcp:host:port`, `host:port` or `unix:/path`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// An address as written in a configuration.
///
/// ```
/// use vestibule::Address;
///
/// let tcp: Address = "[::1]:8443".parse()?;
/// assert_eq!(tcp.to_string(), "tcp:[::1]:8443");
/// let unix: Address = "unix:/run/app.sock".parse()?;
/// assert_eq!(unix.to_string(), "unix:/run/app.sock");
/// # Ok::<(), vestibule::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A TCP host (a name or an IP address, without brackets) and port.
    Tcp {
        /// The name or IP address.
        host: String,
        /// The port; 0 lets the system choose one for a listener.
        port: u16,
    },
    /// The absolute path of a Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// Whether it always means the same place: port 0 is a new port each time.
    pub(crate) fn is_one(&self) -> bool {
        !matches!(self, Self::Tcp { port: 0, .. })
    }

    /// Whether a connection to `dialled` reaches a listener at this address, if that can be found
    /// out without a name server.
    pub(crate) fn is_reached_by(&self, dialled: &Self) -> bool {
        match (self, dialled) {
            (Self::Unix(ours), Self::Unix(path)) => ours == path,
            (Self::Tcp { host, port }, Self::Tcp { host: to, port: at }) => {
                let takes = |(ours, to): (IpAddr, IpAddr)| {
                    let to = destination(to);
                    ours == to || (to.is_loopback() && includes(ours, to))
                };
                *port != 0 && port == at && (host == to || pairs(host, to).any(takes))
            }
            (Self::Unix(_), Self::Tcp { .. }) | (Self::Tcp { .. }, Self::Unix(_)) => false,
        }
    }

    /// Whether it is impossible to listen on both.
    pub(crate) fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { host, port }, Self::Tcp { host: to, port: at }) => {
                let overlap = |(one, other): (IpAddr, IpAddr)| {
                    one == other || includes(one, other) || includes(other, one)
                };
                *port != 0 && port == at && (host == to || pairs(host, to).any(overlap))
            }
            _ => self == other,
        }
    }

    /// Whether only processes on this machine can be at the other end: a Unix socket, a loopback IP
    /// address, or the name `localhost`.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => match host.parse::<IpAddr>() {
                Ok(ip) => ip.to_canonical().is_loopback(),
                Err(_) => host == "localhost",
            },
        }
    }
}

/// All pairs of an address of one host and an address of the other. `localhost` is the only name
/// whose addresses are known here.
fn pairs(one: &str, other: &str) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let known = |host: &str| match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip.to_canonical()],
        Err(_) if host == "localhost" => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => Vec::new(),
    };
    let (one, other) = (known(one), known(other));
    one.into_iter()
        .flat_map(move |ip| other.clone().into_iter().map(move |to| (ip, to)))
}

/// A connect to the unspecified address reaches loopback.
fn destination(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Whether a socket that is bound to `ip` also covers `other`: `[::]` serves IPv4 too.
fn includes(ip: IpAddr, other: IpAddr) -> bool {
    ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4())
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_unix(path);
        }
        if text.contains("://") {
            return Err(ParseAddressError::Url);
        }
        if text.starts_with("systemd:") {
            return Err(ParseAddressError::Systemd);
        }
        if text.starts_with(['/', '.', '~']) {
            return Err(ParseAddressError::Path);
        }
        parse_tcp(text.strip_prefix("tcp:").unwrap_or(text))
    }
}

fn parse_unix(path: &str) -> Result<Address, ParseAddressError> {
    if !path.starts_with('/') {
        return Err(ParseAddressError::RelativePath);
    }
    if path.len() > LONGEST_UNIX_PATH {
        return Err(ParseAddressError::LongPath);
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn parse_tcp(text: &str) -> Result<Address, ParseAddressError> {
    let (host, port) = text.rsplit_once(':').ok_or(ParseAddressError::NoPort)?;
    // `parse` alone would also accept `+80`.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|_| digits);
    let port = port.ok_or(ParseAddressError::BadPort)?;
    let host = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inside) if inside.parse::<Ipv6Addr>().is_ok() => inside,
        Some(_) => return Err(ParseAddressError::BadHost),
        None if host.contains(':') => return Err(ParseAddressError::Brackets),
        None => host,
    };
    let name_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    // As in other programs, an empty host means every address of this machine, IPv6 and IPv4.
    let host = if host.is_empty() { "::" } else { host };
    if !host.chars().all(name_like) {
        return Err(ParseAddressError::BadHost);
    }
    Ok(Address::Tcp {
        host: host.to_owned(),
        port,
    })
}

/// Why an address is invalid. The message says how to correct it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseAddressError {
    /// It is a URL.
    #[error(
        "URLs are not supported; write the host and port, as in `127.0.0.1:8443`, or \
     `unix:/path`"
    )]
    Url,
    /// It is a path without `unix:` before it.
    #[error("write `unix:` before the path of a Unix socket, as in `unix:/run/app.sock`")]
    Path,
    /// There is no `:port` at the end.
    #[error("the port is missing; write `127.0.0.1:8443`, or `unix:/path` for a Unix socket")]
    NoPort,
    /// The port is not a number from 0 to 65535.
    #[error("the port must be a number from 0 to 65535, as in `127.0.0.1:8443`")]
    BadPort,
    /// The host is not a name and not an IP address.
    #[error("the host must be a name or an IP address, as in `localhost:8443` or `[::1]:8443`")]
    BadHost,
    /// An IPv6 address has no brackets.
    #[error("write an IPv6 address in brackets, as in `[::1]:8443`")]
    Brackets,
    /// A Unix address has a relative path.
    #[error("the path of a Unix socket must be absolute, as in `unix:/run/app.sock`")]
    RelativePath,
    /// A Unix address is longer than the kernel allows.
    #[error("the path of a Unix socket is limited to 107 bytes; use a shorter directory")]
    LongPath,
    /// Socket activation is planned, but this version does not support it.
    #[error("`systemd:` addresses are not supported in this version; use `tcp:` or `unix:`")]
    Systemd,
}

/// `sun_path` has 108 bytes with its terminating zero (unix(7)).
pub(crate) const LONGEST_UNIX_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_displayed_as_it_is_written() {
        for (text, shown) in [
            ("127.0.0.1:80", "tcp:127.0.0.1:80"),
            ("tcp:localhost:0", "tcp:localhost:0"),
            ("tcp:[2001:db8::1]:65535", "tcp:[2001:db8::1]:65535"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            // Every address of this machine.
            (":443", "tcp:[::]:443"),
            ("tcp::443", "tcp:[::]:443"),
        ] {
            assert_eq!(
                text.parse::<Address>().map(|a| a.to_string()),
                Ok(shown.to_owned())
            );
        }
    }

    #[test]
    fn the_error_for_a_wrong_address_says_how_to_correct_it() {
        use ParseAddressError::*;
        for (text, error) in [
            ("", NoPort),
            ("localhost", NoPort),
            ("http://localhost:80", Url),
            ("/run/a.sock", Path),
            ("./a.sock:80", Path),
            ("localhost:", BadPort),
            ("localhost:65536", BadPort),
            ("localhost:-1", BadPort),
            ("localhost:+80", BadPort),
            (" :80", BadHost),
            ("a b:80", BadHost),
            ("[localhost]:80", BadHost),
            ("::1:80", Brackets),
            ("unix:", RelativePath),
            ("unix:run/a.sock", RelativePath),
            ("systemd:https", Systemd),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text:?}");
        }
        let long = format!("unix:/{}", "a".repeat(LONGEST_UNIX_PATH));
        assert_eq!(long.parse::<Address>(), Err(LongPath));
        assert!(long[..long.len() - 1].parse::<Address>().is_ok());
    }

    #[test]
    fn a_listener_knows_which_addresses_reach_it_and_which_collide_with_it() {
        for (listener, other, is_reached, collides) in [
            ("127.0.0.1:80", "127.0.0.1:80", true, true),
            ("127.0.0.1:80", "127.0.0.1:81", false, false),
            ("127.0.0.1:0", "127.0.0.1:0", false, false),
            ("0.0.0.0:80", "127.0.0.1:80", true, true),
            ("0.0.0.0:80", "localhost:80", true, true),
            ("0.0.0.0:80", "192.0.2.1:80", false, true),
            ("0.0.0.0:80", "[::1]:80", false, false),
            ("[::]:80", "127.0.0.1:80", true, true),
            ("[::]:80", "0.0.0.0:80", true, true),
            ("[::]:80", "[::1]:80", true, true),
            ("[::1]:80", "localhost:80", true, true),
            ("localhost:80", "127.0.0.1:80", true, true),
            ("127.0.0.1:80", "0.0.0.0:80", true, true),
            ("app.internal:80", "app.internal:80", true, true),
            ("0.0.0.0:80", "app.internal:80", false, false),
            ("unix:/a", "unix:/a", true, true),
            ("unix:/a", "unix:/b", false, false),
            ("unix:/a", "127.0.0.1:80", false, false),
        ] {
            let parse = |text: &str| text.parse::<Address>().expect("an address");
            let (listener, other) = (parse(listener), parse(other));
            assert_eq!(
                listener.is_reached_by(&other),
                is_reached,
                "{listener} {other}"
            );
            assert_eq!(
                listener.collides_with(&other),
                collides,
                "{listener} {other}"
            );
        }
    }

    #[test]
    fn local_means_only_this_machine() {
        for (text, local) in [
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("localhost:1", true),
            ("unix:/a", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.0.2.1:1", false),
            ("example.com:1", false),
        ] {
            assert_eq!(
                text.parse::<Address>().map(|a| a.is_local()),
                Ok(local),
                "{text}"
            );
        }
    }
}
