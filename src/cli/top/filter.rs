//! What a user types to select connections: filters of the API, and words.

use serde_json::Value;

use crate::cli::admin::client::encoded;

/// Selects connections. The server applies filters such as `peer=192.0.2.7`; words are looked for in
/// the rows that it sends.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filter {
    /// As typed.
    text: String,
    pairs: Vec<(&'static str, String)>,
    /// In lower case.
    words: Vec<String>,
}

/// The filters of the API.
const KEYS: [&str; 7] = [
    "backend", "identity", "peer", "listener", "sni", "tunnel", "state",
];

impl Filter {
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut filter = Self {
            text: text.trim().to_owned(),
            ..Self::default()
        };
        for token in tokens(text) {
            match token.split_once('=') {
                None => filter.words.push(token.to_lowercase()),
                Some((key, value)) => {
                    let known = KEYS.into_iter().find(|known| *known == key);
                    let known = known.ok_or_else(|| {
                        let all = KEYS.join("=, ");
                        format!("there is no filter {key}=; there are {all}=, and plain words")
                    })?;
                    if filter.pairs.iter().any(|(key, _)| *key == known) {
                        return Err(format!("{known}= is given twice"));
                    }
                    filter.pairs.push((known, value.to_owned()));
                }
            }
        }
        Ok(filter)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether rows are selected here, and not by the server alone.
    pub(super) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// The parameters of a query.
    pub(super) fn query(&self) -> String {
        let pair = |(key, value): &(&str, String)| format!("&{key}={}", encoded(value));
        self.pairs.iter().map(pair).collect()
    }

    /// Whether each word is somewhere in the row.
    pub(super) fn matches(&self, row: &Value) -> bool {
        self.words.iter().all(|word| has(row, word))
    }
}

/// Words, in which double quotes hold spaces together.
fn tokens(text: &str) -> Vec<String> {
    let (mut all, mut token, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            c if c.is_whitespace() && !is_quoted => all.push(std::mem::take(&mut token)),
            c => token.push(c),
        }
    }
    all.push(token);
    all.retain(|token| !token.is_empty());
    all
}

fn has(value: &Value, word: &str) -> bool {
    match value {
        Value::String(text) => text.to_lowercase().contains(word),
        Value::Array(items) => items.iter().any(|it| has(it, word)),
        Value::Object(entries) => entries.values().any(|it| has(it, word)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn filters_go_to_the_server_and_words_are_looked_for_here() {
        let filter =
            Filter::parse(" peer=192.0.2.7  identity=\"cn:Alice Smith\" API ").expect("fine");
        assert_eq!(
            filter.query(),
            "&peer=192.0.2.7&identity=cn%3AAlice%20Smith"
        );
        assert!(filter.has_words() && !filter.is_empty());
        let row = json!({"id": "7f8c", "age": 3, "tls": {"sni": "api.example.com"}});
        assert!(filter.matches(&row));
        assert!(!Filter::parse("api web").expect("fine").matches(&row));
        // Names of fields are not text.
        assert!(!Filter::parse("sni").expect("fine").matches(&row));
        assert!(Filter::parse("").expect("fine").matches(&row));
    }

    #[test]
    fn a_filter_with_a_mistake_is_refused_and_never_ignored() {
        for wrong in ["per=192.0.2.7", "=x", "peer=a peer=b"] {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
    }
}
