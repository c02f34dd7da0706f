//! What each key means, in each mode.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::action::{Action, Move, SortKey};
use super::state::Mode;

/// What a key asks for. `None` if it means nothing here.
pub(super) fn action(mode: &Mode, key: KeyEvent) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    if is_control && key.code == KeyCode::Char('c') {
        return Some(Action::Quit);
    }
    match mode {
        Mode::Filter(_) => typed(key, is_control),
        Mode::Confirm { .. } => match key.code {
            KeyCode::Char('y' | 'Y') => Some(Action::Yes),
            _ => Some(Action::Cancel),
        },
        Mode::Help => Some(match key.code {
            KeyCode::Char('q') => Action::Quit,
            _ => Action::Cancel,
        }),
        Mode::Details(_) => match key.code {
            KeyCode::Char('q') => Some(Action::Quit),
            KeyCode::Esc | KeyCode::Enter => Some(Action::Cancel),
            KeyCode::Char('k') if !is_control => Some(Action::Kill),
            _ => moved(key).map(Action::Move),
        },
        Mode::Table if is_control => None,
        Mode::Table => in_table(key),
    }
}

fn in_table(key: KeyEvent) -> Option<Action> {
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Esc => Action::Leave,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('/') => Action::EditFilter,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('k') => Action::Kill,
        KeyCode::Enter => Action::Details,
        KeyCode::Char('a') => Action::Sort(SortKey::Age),
        KeyCode::Char('d') => Action::Sort(SortKey::Idle),
        KeyCode::Char('b') => Action::Sort(SortKey::Bytes),
        KeyCode::Char('i') => Action::Sort(SortKey::BytesIn),
        KeyCode::Char('o') => Action::Sort(SortKey::BytesOut),
        KeyCode::Char('s') => Action::NextSort,
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Tab | KeyCode::Right => Action::NextPage,
        KeyCode::BackTab | KeyCode::Left => Action::PreviousPage,
        _ => return moved(key).map(Action::Move),
    })
}

fn moved(key: KeyEvent) -> Option<Move> {
    Some(match key.code {
        KeyCode::Up => Move::Up,
        KeyCode::Down | KeyCode::Char('j') => Move::Down,
        KeyCode::PageUp => Move::PageUp,
        KeyCode::PageDown => Move::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Move::First,
        KeyCode::End | KeyCode::Char('G') => Move::Last,
        _ => return None,
    })
}

fn typed(key: KeyEvent, is_control: bool) -> Option<Action> {
    Some(match key.code {
        KeyCode::Enter => Action::Apply,
        KeyCode::Esc => Action::Cancel,
        KeyCode::Backspace => Action::Erase,
        KeyCode::Char('u') if is_control => Action::EraseAll,
        KeyCode::Char(c) if !is_control => Action::Type(c),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_needs_y_and_every_other_key_is_a_no() {
        let confirm = Mode::Confirm {
            id: "7f8c".into(),
            question: String::new(),
        };
        let press = |code| action(&confirm, KeyEvent::from(code));
        assert_eq!(press(KeyCode::Char('y')), Some(Action::Yes));
        for code in [
            KeyCode::Char('n'),
            KeyCode::Char('k'),
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Char(' '),
        ] {
            assert_eq!(press(code), Some(Action::Cancel), "{code:?}");
        }
    }

    #[test]
    fn ctrl_c_ends_in_every_mode_and_letters_of_a_filter_are_no_commands() {
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        let filter = Mode::Filter(String::new());
        for mode in [Mode::Table, Mode::Help, filter.clone()] {
            assert_eq!(action(&mode, interrupt), Some(Action::Quit));
        }
        let q = KeyEvent::from(KeyCode::Char('q'));
        assert_eq!(action(&filter, q), Some(Action::Type('q')));
        assert_eq!(action(&Mode::Table, q), Some(Action::Quit));
    }
}
