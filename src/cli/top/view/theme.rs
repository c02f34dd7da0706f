//! Colours and emphasis: readable on light and dark terminals, and without colours.

use ratatui::style::{Color, Modifier, Style};

/// Text has the terminal's own colours. Where a colour needs a background, both are given.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli::top) struct Theme {
    has_colour: bool,
}

impl Theme {
    /// Without colours if NO_COLOR is set (no-color.org).
    pub(in crate::cli::top) fn of_environment() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        Self {
            has_colour: !no_colour,
        }
    }

    #[cfg(test)]
    pub(in crate::cli::top) fn plain() -> Self {
        Self { has_colour: false }
    }

    pub(super) fn label(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of charts and bars.
    pub(super) fn graph(self) -> Style {
        self.coloured(Style::new(), Style::new().fg(Color::LightBlue))
    }

    pub(super) fn good(self) -> Style {
        self.coloured(Style::new(), Style::new().fg(Color::Green))
    }

    pub(super) fn warning(self) -> Style {
        let coloured = Style::new().fg(Color::Black).bg(Color::Yellow);
        self.coloured(self.strong().add_modifier(Modifier::UNDERLINED), coloured)
    }

    pub(super) fn bad(self) -> Style {
        let coloured = self.strong().fg(Color::White).bg(Color::Red);
        self.coloured(self.strong().add_modifier(Modifier::REVERSED), coloured)
    }

    /// Of the row with the cursor.
    pub(super) fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    fn coloured(self, without: Style, with: Style) -> Style {
        if self.has_colour { with } else { without }
    }
}
