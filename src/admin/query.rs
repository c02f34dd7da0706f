//! Query strings: names and values, and the filters of connections.

use crate::admin::answer::Refusal;
use crate::id::Id;
use crate::ledger::{ConnectionFilter, ConnectionState};

/// The parameters of a query, each at most once.
///
/// # Errors
///
/// A parameter that is given twice or has a wrong percent-encoding.
pub(super) fn parameters(query: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
    let mut all: Vec<(String, String)> = Vec::new();
    let pairs = query.unwrap_or_default().split('&');
    for pair in pairs.filter(|it| !it.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        if all.iter().any(|(known, _)| *known == name) {
            return Err(Refusal::bad(format!(
                "the parameter {name:?} is given twice"
            )));
        }
        all.push((name, value));
    }
    Ok(all)
}

/// Takes the filters out of `parameters`. `None` if there is none among them.
///
/// # Errors
///
/// A value that no connection can have, because a typing error must not look like an empty list.
pub(super) fn filter(
    parameters: &mut Vec<(String, String)>,
) -> Result<Option<ConnectionFilter>, Refusal> {
    let mut filter = ConnectionFilter::all();
    let mut has_any = false;
    let mut rest = Vec::new();
    for (name, value) in parameters.drain(..) {
        filter = match name.as_str() {
            "backend" => filter.backend(value),
            "identity" => filter.identity(value),
            "listener" => filter.listener(value),
            "sni" => filter.sni(value),
            "peer" => match value.parse() {
                Ok(ip) => filter.peer(ip),
                Err(_) => {
                    let message = format!("`peer`: expected an IP address, found {value:?}");
                    return Err(Refusal::bad(message));
                }
            },
            "tunnel" => match value.parse::<Id>() {
                Ok(id) => filter.tunnel(id),
                Err(_) => {
                    let message =
                        format!("`tunnel`: expected the UUID of a connection, found {value:?}");
                    return Err(Refusal::bad(message));
                }
            },
            "state" => filter.state(state(&value)?),
            _ => {
                rest.push((name, value));
                continue;
            }
        };
        has_any = true;
    }
    *parameters = rest;
    Ok(has_any.then_some(filter))
}

/// Refuses parameters that nobody has taken: with a typing error in its name, a filter would select
/// everything.
pub(super) fn none_left(parameters: &[(String, String)]) -> Result<(), Refusal> {
    match parameters.first() {
        None => Ok(()),
        Some((name, _)) => Err(Refusal::bad(format!(
            "unknown parameter {name:?}; /v1/openapi.json lists those of this path"
        ))),
    }
}

/// Takes one parameter out.
pub(super) fn take(parameters: &mut Vec<(String, String)>, name: &str) -> Option<String> {
    let at = parameters.iter().position(|(known, _)| known == name)?;
    Some(parameters.remove(at).1)
}

fn state(word: &str) -> Result<ConnectionState, Refusal> {
    let states = [
        ConnectionState::Handshaking,
        ConnectionState::Waiting,
        ConnectionState::Relaying,
        ConnectionState::Closing,
    ];
    let found = states.into_iter().find(|state| state.as_str() == word);
    found.ok_or_else(|| {
        Refusal::bad(format!(
            "`state`: expected handshaking, waiting, relaying or closing, found {word:?}"
        ))
    })
}

/// Undoes `application/x-www-form-urlencoded`.
fn decoded(text: &str) -> Result<String, Refusal> {
    percent_decoded(text, b' ')
}

/// Undoes the percent-encoding of a segment of a path (RFC 3986 §2.1).
pub(super) fn segment(text: &str) -> Result<String, Refusal> {
    percent_decoded(text, b'+')
}

/// `plus` is the meaning of `+`.
fn percent_decoded(text: &str, plus: u8) -> Result<String, Refusal> {
    let wrong = || Refusal::bad(format!("wrong percent-encoding: {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'%', high, low, rest @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or_else(wrong);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                rest
            }
            [b'%', ..] => return Err(wrong()),
            [b'+', rest @ ..] => {
                bytes.push(plus);
                rest
            }
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_mistakes_refused() {
        let parse = |query| parameters(Some(query)).ok();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let uri = "identity=uri%3Aspiffe%3A%2F%2Fcorp%2Fweb&sni=a+b%C3%A9";
        let expected = vec![
            pair("identity", "uri:spiffe://corp/web"),
            pair("sni", "a bé"),
        ];
        assert_eq!(parse(uri), Some(expected));
        assert_eq!(parse("&&a&"), Some(vec![pair("a", "")]));
        for wrong in ["a=%", "a=%4", "a=%4g", "a=%ff", "a=1&a=2", "a=1&%61=2"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_filter_with_a_mistake_is_refused_and_never_ignored() {
        let parse = |query| {
            let mut parameters = parameters(Some(query)).expect("well-formed");
            let filter = filter(&mut parameters)?;
            none_left(&parameters)?;
            Ok::<_, Refusal>(filter.is_some())
        };
        assert_eq!(parse("").ok(), Some(false));
        let all = "backend=a&identity=cn:a&listener=b&sni=c&peer=::1&state=waiting";
        assert_eq!(parse(all).ok(), Some(true));
        for wrong in [
            "identiy=cn:a",
            "peer=localhost",
            "state=open",
            "state=",
            "backend=a&x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
