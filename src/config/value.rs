//! Reads single values, and describes what was expected if a value is wrong.

use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::document::Document;

/// A value, and its place in the text.
pub(super) struct Value<'d> {
    pub document: &'d Document<'d>,
    /// The dotted path of its key.
    pub key: String,
    pub value: DeValue<'d>,
    pub offset: usize,
}

/// The message that says what was expected.
pub(super) type Expected = String;

impl<'d> Value<'d> {
    pub(super) fn problem(&self, expected: &str) {
        self.document
            .problem(self.offset, format!("`{}`: {expected}", self.key));
    }

    /// The elements of an array.
    pub(super) fn elements(&self) -> impl Iterator<Item = Value<'d>> {
        let elements: &[Spanned<DeValue<'d>>] = match &self.value {
            DeValue::Array(elements) => elements,
            _ => &[],
        };
        elements.iter().map(|element| Value {
            document: self.document,
            key: self.key.clone(),
            offset: element.span().start,
            value: element.get_ref().clone(),
        })
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub(super) fn is_array(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    pub(super) fn string(&self) -> Result<&str, Expected> {
        match &self.value {
            DeValue::String(text) => Ok(text),
            other => Err(format!("expected a string, found {}", found(other))),
        }
    }

    /// A path that is not empty.
    pub(super) fn path(&self) -> Result<&Path, Expected> {
        match self.string()? {
            "" => Err("expected a path, found an empty string".into()),
            path => Ok(Path::new(path)),
        }
    }

    /// A string that `parse` accepts.
    pub(super) fn parsed<T, E: ToString>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, Expected> {
        let text = self.string()?;
        parse(text).map_err(|error| format!("{text:?}: {}", error.to_string()))
    }

    pub(super) fn boolean(&self) -> Result<bool, Expected> {
        match self.value {
            DeValue::Boolean(value) => Ok(value),
            DeValue::String(ref text) if matches!(&**text, "true" | "false") => {
                Err(format!("write {text} without quotes"))
            }
            ref other => Err(format!("expected true or false, found {}", found(other))),
        }
    }

    /// A whole number from 1 to `u32::MAX`.
    pub(super) fn count(&self) -> Result<usize, Expected> {
        self.count_to(u32::MAX)
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count_to(&self, most: u32) -> Result<usize, Expected> {
        let expected = format!("expected a whole number from 1 to {most}");
        let number = match &self.value {
            DeValue::Integer(number) => number,
            DeValue::String(text) if is_digits(text) => {
                return Err(format!("write {text} without quotes"));
            }
            other => return Err(format!("{expected}, found {}", found(other))),
        };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if (1..=most).contains(&number) => Ok(number as usize),
            _ => Err(format!("{expected}, found {number}")),
        }
    }

    /// A user or group id.
    pub(super) fn system_id(&self) -> Result<u32, Expected> {
        let expected = format!("expected a numeric id from 0 to {}", u32::MAX);
        let DeValue::Integer(number) = &self.value else {
            return Err(format!("{expected}, found {}", found(&self.value)));
        };
        u32::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{expected}, found {number}"))
    }

    /// A duration above zero.
    pub(super) fn duration(&self) -> Result<Duration, Expected> {
        const EXPECTED: &str = "expected a duration such as \"10s\", \"500ms\" or \"1h\"";
        match &self.value {
            DeValue::String(text) if is_digits(text) => Err(without_unit(text, "s")),
            DeValue::String(text) => match humantime::parse_duration(text) {
                Ok(duration) if !duration.is_zero() => Ok(duration),
                Ok(_) | Err(_) => Err(format!("{EXPECTED}, found {text:?}")),
            },
            DeValue::Integer(number) if is_digits(number.as_str()) => {
                Err(without_unit(number.as_str(), "s"))
            }
            other => Err(format!("{EXPECTED}, found {}", found(other))),
        }
    }

    /// A size above zero, in bytes.
    pub(super) fn size(&self) -> Result<u64, Expected> {
        const EXPECTED: &str = "expected a size such as \"64KiB\" or \"512MiB\"";
        match &self.value {
            DeValue::String(text) => match text.parse() {
                Ok(bytesize::ByteSize(bytes @ 1..)) => Ok(bytes),
                _ => Err(format!("{EXPECTED}, found {text:?}")),
            },
            DeValue::Integer(number) if is_digits(number.as_str()) => {
                Err(without_unit(number.as_str(), "B"))
            }
            other => Err(format!("{EXPECTED}, found {}", found(other))),
        }
    }

    /// The value that `read` reads, or `None` for the words that mean off.
    pub(super) fn or_off<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Expected>,
    ) -> Result<Option<T>, Expected> {
        match &self.value {
            DeValue::String(word) if word == "unlimited" || word == "none" => Ok(None),
            _ => match read(self) {
                Ok(value) => Ok(Some(value)),
                Err(_) if self.is_zero() => Err("0 is refused; \"unlimited\" turns it off".into()),
                Err(expected) => Err(format!("{expected}; \"unlimited\" turns it off")),
            },
        }
    }

    /// Whether it is 0 in any unit, which means off in other programs.
    fn is_zero(&self) -> bool {
        let text: &str = match &self.value {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            DeValue::String(text) => text,
            _ => return false,
        };
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        number.trim().parse() == Ok(0.0)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Expected> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let text: &str = match &self.value {
            DeValue::String(text) => text,
            DeValue::Float(number) if known.contains(&number.as_str()) => {
                return Err(format!("write \"{number}\", in quotes"));
            }
            other => {
                let known = known.join(", ");
                return Err(format!(
                    "expected one of the words {known}, found {}",
                    found(other)
                ));
            }
        };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        Err(match closest(text, &known) {
            Some(meant) => format!("unknown value {text:?}, did you mean {meant:?}?"),
            None => format!("unknown value {text:?}; one of: {}", known.join(", ")),
        })
    }

    /// The name of an existing item.
    pub(super) fn one_of(&self, what: &str, names: &[String]) -> Result<String, Expected> {
        let name = self.string()?;
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        // That there is no item at all was reported already.
        if known.is_empty() || known.contains(&name) {
            return Ok(name.to_owned());
        }
        Err(match closest(name, &known) {
            Some(meant) => format!("no {what} has the name {name:?}, did you mean {meant:?}?"),
            None => format!(
                "no {what} has the name {name:?}; known: {}",
                known.join(", ")
            ),
        })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn without_unit(number: &str, unit: &str) -> Expected {
    format!("{number} has no unit; write \"{number}{unit}\"")
}

pub(super) fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The known word that was probably meant: at most a third of its letters differ.
pub(super) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}
