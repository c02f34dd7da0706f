//! The gate's protocol: one ASCII line in each direction, then the stream.

use crate::address::Address;
use crate::facts::Facts;
use crate::id::Id;

/// The longest request in bytes, with its `\n`.
pub(crate) const LONGEST_LINE: usize = 256;

/// A request of a client of the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Claim the connection with this id.
    Claim(Id),
    /// Claim the next connection of this backend.
    Accept(String),
    /// Watch the events of this backend.
    Watch(String),
    /// Serve this backend at an address as long as the client stays connected.
    Register(String, Address),
}

impl Request {
    /// Parses a line without its `\n`.
    ///
    /// # Errors
    ///
    /// [`GateRefusal::Malformed`] if the line has none of the four forms, byte for byte.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, GateRefusal> {
        let text = std::str::from_utf8(line).map_err(|_| GateRefusal::Malformed)?;
        if !text
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        {
            return Err(GateRefusal::Malformed);
        }
        let words: Vec<&str> = text.split(' ').collect();
        if words.iter().any(|word| word.is_empty()) {
            return Err(GateRefusal::Malformed);
        }
        match words[..] {
            ["CLAIM", id] => id
                .parse()
                .map(Self::Claim)
                .map_err(|_| GateRefusal::Malformed),
            ["ACCEPT", backend] => Ok(Self::Accept(backend.to_owned())),
            ["WATCH", backend] => Ok(Self::Watch(backend.to_owned())),
            ["REGISTER", backend, address] => match address.parse() {
                Ok(address) => Ok(Self::Register(backend.to_owned(), address)),
                Err(_) => Err(GateRefusal::Malformed),
            },
            _ => Err(GateRefusal::Malformed),
        }
    }
}

/// A request of a worker in a tunnel. The name of the backend is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TunnelRequest {
    Claim(Id),
    Accept,
    Watch,
}

impl TunnelRequest {
    /// Parses the value of the field `vestibule`.
    ///
    /// # Errors
    ///
    /// [`GateRefusal::Malformed`] if it has none of the three forms, byte for byte.
    pub(crate) fn parse(value: &[u8]) -> Result<Self, GateRefusal> {
        match std::str::from_utf8(value) {
            Ok("accept") => Ok(Self::Accept),
            Ok("watch") => Ok(Self::Watch),
            Ok(text) => match text.strip_prefix("claim ").map(str::parse) {
                Some(Ok(id)) => Ok(Self::Claim(id)),
                Some(Err(_)) | None => Err(GateRefusal::Malformed),
            },
            Err(_) => Err(GateRefusal::Malformed),
        }
    }
}

/// Why a client of the gate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GateRefusal {
    /// The line does not follow the protocol, or did not arrive in time.
    #[error("malformed")]
    Malformed,
    /// No such connection waits, or it no longer waits, or there is no such backend.
    #[error("unknown")]
    Unknown,
    /// The peer's credentials, or the backend's kind, do not allow it.
    #[error("forbidden")]
    Forbidden,
    /// The gate has as many clients as it may have.
    #[error("busy")]
    Busy,
    /// Vestibule is draining.
    #[error("draining")]
    Draining,
}

impl GateRefusal {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Forbidden => "forbidden",
            Self::Busy => "busy",
            Self::Draining => "draining",
        }
    }

    /// The answer, with its line end.
    pub(crate) fn line(self) -> String {
        format!("NO {self}\n")
    }
}

/// The answer after which the socket carries the connection's plaintext.
pub(crate) fn ok_line(facts: &Facts) -> String {
    format!("OK {}\n", facts.to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7f8c1d9e-0a1b-4c2d-8e3f-405162738495";

    #[test]
    fn the_four_forms_are_read() {
        let id: Id = ID.parse().expect("an id");
        let address: Address = "unix:/run/a.sock".parse().expect("an address");
        for (line, request) in [
            (format!("CLAIM {ID}"), Request::Claim(id)),
            (format!("CLAIM {}", ID.to_uppercase()), Request::Claim(id)),
            ("ACCEPT app".into(), Request::Accept("app".into())),
            ("WATCH app".into(), Request::Watch("app".into())),
            (
                "REGISTER app unix:/run/a.sock".into(),
                Request::Register("app".into(), address),
            ),
        ] {
            assert_eq!(Request::parse(line.as_bytes()), Ok(request), "{line}");
        }
    }

    #[test]
    fn a_request_in_a_tunnel_has_three_forms_byte_for_byte() {
        let claim = format!("claim {ID}");
        for (value, request) in [
            ("accept", TunnelRequest::Accept),
            ("watch", TunnelRequest::Watch),
            (&claim, TunnelRequest::Claim(ID.parse().expect("an id"))),
        ] {
            assert_eq!(TunnelRequest::parse(value.as_bytes()), Ok(request));
            for wrong in [
                &value[..value.len() - 1],
                &value.to_uppercase(),
                &format!("{value} "),
                &format!(" {value}"),
                &format!("{value}\n"),
                &format!("{value}\u{e9}"),
            ] {
                let parsed = TunnelRequest::parse(wrong.as_bytes());
                assert_eq!(parsed, Err(GateRefusal::Malformed), "{wrong:?}");
            }
        }
        assert_eq!(
            TunnelRequest::parse(b"accept\xff"),
            Err(GateRefusal::Malformed)
        );
    }

    #[test]
    fn everything_else_is_malformed() {
        let claim = format!("CLAIM {ID}");
        let truncated = (0..claim.len()).map(|end| claim.as_bytes()[..end].to_vec());
        let wrong: [&[u8]; 14] = [
            b"",
            b" ",
            b"CLAIM",
            b"CLAIM ",
            b"claim 7f8c1d9e-0a1b-4c2d-8e3f-405162738495",
            b"CLAIM  7f8c1d9e-0a1b-4c2d-8e3f-405162738495",
            b"CLAIM 7f8c1d9e-0a1b-4c2d-8e3f-405162738495 ",
            b"CLAIM 7f8c1d9e-0a1b-4c2d-8e3f-405162738495\r",
            b"ACCEPT a b",
            b"ACCEPT \xff",
            b"ACCEPT \0",
            b"REGISTER app",
            b"REGISTER app nowhere",
            b"GET / HTTP/1.1",
        ];
        for line in wrong.into_iter().map(<[u8]>::to_vec).chain(truncated) {
            assert_eq!(
                Request::parse(&line),
                Err(GateRefusal::Malformed),
                "{line:?}"
            );
        }
    }
}
