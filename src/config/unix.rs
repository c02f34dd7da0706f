//! The permissions of a Unix listener.

use toml::de::DeValue;

use super::table::Table;
use super::value::{Expected, Value};
use crate::address::Address;
use crate::sys::unix::Access;
use crate::sys::users;

/// By default, only the own user may connect, or the members of `group`. `mode` overrides that.
pub(super) fn access(table: &mut Table<'_>, address: Option<&Address>) -> Access {
    let given = KEYS.map(|key| table.place(key).map(|place| (key, place)));
    let mode = table.read("mode", mode);
    let owner = table.read("owner", |value| id(value, "user", users::user));
    let group = table.read("group", |value| id(value, "group", users::group));
    if let Some(Address::Tcp { .. }) = address {
        for (key, place) in given.into_iter().flatten() {
            let message = format!("`listener.{key}`: only for `unix:` addresses; leave it out");
            table.problem_at(place, message);
        }
    }
    let default = match group {
        Some(_) => 0o660,
        None => Access::PRIVATE.mode,
    };
    Access {
        mode: mode.unwrap_or(default),
        owner,
        group,
        ..Access::PRIVATE
    }
}

fn mode(value: &Value<'_>) -> Result<u32, Expected> {
    const EXPECTED: &str = "expected an octal mode from \"0000\" to \"0777\", such as \"0660\"";
    let digits = match &value.value {
        DeValue::String(text) => text.to_string(),
        // `0o660`. A decimal 660 is ambiguous, so it is refused.
        DeValue::Integer(number) if number.radix() == 8 => number.as_str().to_owned(),
        _ => return Err(EXPECTED.into()),
    };
    let is_octal = (1..=4).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
    match u32::from_str_radix(&digits, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(mode),
        _ => Err(format!("{EXPECTED}, found {digits:?}")),
    }
}

/// A name or a number.
fn id(value: &Value<'_>, what: &str, find: impl Fn(&str) -> Option<u32>) -> Result<u32, Expected> {
    let DeValue::String(name) = &value.value else {
        return value.system_id();
    };
    let number = name.parse().ok();
    find(name)
        .or(number)
        .ok_or_else(|| format!("/etc has no {what} {name:?}; correct the name, or give its number"))
}

const KEYS: [&str; 3] = ["mode", "owner", "group"];
