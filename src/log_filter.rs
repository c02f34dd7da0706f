//! Log filters from users. A filter that would hide lines because of a typing error is rejected.

use std::fmt;

use tracing::level_filters::LevelFilter;

/// Completes a filter for `tracing_subscriber`: targets that it does not name get the level info. Spaces
/// around directives are removed, because `tracing_subscriber` takes them for a part of names, and panics
/// at some. Returns `None` if the filter is invalid.
pub fn complete(filter: &str) -> Option<String> {
    let directives: Vec<&str> = filter.split(',').map(str::trim).collect();
    let is_well = directives.iter().all(|it| is_directive(it));
    // Of two directives for all targets, the later one counts.
    is_well.then(|| format!("info,{}", directives.join(",")))
}

/// Changes the log filter of the program that Vestibule is part of.
pub(crate) struct LogSwitch {
    configured: String,
    change: Box<Change>,
}

type Change = dyn Fn(Option<&str>) -> bool + Send + Sync;

impl LogSwitch {
    pub(crate) fn new(
        configured: String,
        change: impl Fn(Option<&str>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            configured,
            change: Box::new(change),
        }
    }

    /// The filter of the configuration.
    pub(crate) fn configured(&self) -> &str {
        &self.configured
    }

    /// Applies a filter, or the configured one. Returns false if it cannot be applied; then nothing has
    /// changed.
    pub(crate) fn change(&self, filter: Option<&str>) -> bool {
        (self.change)(filter)
    }
}

impl fmt::Debug for LogSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogSwitch").field(&self.configured).finish()
    }
}

/// A level, or a module with its level. `tracing_subscriber` would take a misspelt level for the
/// name of a module.
fn is_directive(directive: &str) -> bool {
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    // A directive for spans and fields.
    if directive.contains('[') {
        return !directive.contains(';');
    }
    match directive.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => {
            let is_ours = directive == "vestibule" || directive.starts_with("vestibule::");
            directive.is_empty() || is_level(directive) || (is_ours && is_target(directive))
        }
    }
}

/// The path of a module.
fn is_target(target: &str) -> bool {
    let is_name = |name: &str| {
        let mut characters = name.chars();
        let is_letter = |it: char| it.is_alphabetic() || it == '_';
        characters.next().is_some_and(is_letter)
            && characters.all(|it| it.is_alphanumeric() || it == '_' || it == '-')
    };
    target.split("::").all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_filter_is_rejected() {
        for filter in [
            "verbose",
            "info,verbose",
            "warning",
            "tokio",
            "info vestibule=debug",
            "info;vestibule=debug",
            "vestibule:debug",
            "vestibule=loud",
            "vestibule=",
            "=debug",
            "debug info",
            "vestibule::=debug",
        ] {
            assert_eq!(complete(filter), None, "{filter}");
        }
    }

    #[test]
    fn targets_that_a_filter_does_not_name_have_the_level_info() {
        for filter in [
            "",
            "info,",
            "INFO",
            "vestibule",
            "vestibule::gate",
            "warn, vestibule::gate=debug",
            "vestibule=debug",
            "vestibule[connection]=debug",
            "3",
            "off",
        ] {
            let complete = complete(filter).expect(filter);
            assert_eq!(complete, format!("info,{}", filter.replace(' ', "")));
        }
    }
}
