//! What `vestibule top` knows and shows: a value that keys and answers change.

use std::time::Duration;

use serde_json::Value;
use vestibule::printable;

use super::action::{Action, Move, Order, Page, Sort, SortKey, stepped};
use super::filter::Filter;
use super::history::History;
use super::session::{Killed, Polled};

/// The whole state. Times are since the start of the command.
#[derive(Debug)]
pub(super) struct State {
    pub address: String,
    pub now: Duration,
    /// The last answer of `/v1/status`.
    pub status: Value,
    /// The connections that match, as far as they were fetched.
    pub rows: Vec<Value>,
    /// All that match the filters of the server.
    pub total: u64,
    pub history: History,
    pub link: Link,
    pub mode: Mode,
    pub page: Page,
    pub sort: Sort,
    pub filter: Filter,
    pub notice: Option<Notice>,
    pub is_paused: bool,
    /// The row of the cursor.
    pub cursor: usize,
    /// The first row that is visible.
    pub offset: usize,
    /// The first line of a page that is visible.
    pub scroll: usize,
    /// The connection that the cursor stays on. `None`: the first one, whichever it is.
    selected: Option<String>,
    /// The rows that fit on the screen.
    height: usize,
    /// The time of the last answer.
    heard: Duration,
    /// Why connections cannot be ended, if the server has said so.
    no_writes: Option<String>,
}

/// The server, as far as it was heard.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Link {
    Live,
    Lost {
        /// The last answer.
        since: Duration,
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mode {
    Table,
    Help,
    Details(Detail),
    /// The text that is being typed.
    Filter(String),
    Confirm {
        id: String,
        question: String,
    },
}

/// A connection that is shown in full.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Detail {
    pub row: Value,
    /// Whether the last list had it.
    pub is_listed: bool,
}

/// A line that is shown for a while.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notice {
    pub text: String,
    pub is_problem: bool,
    until: Duration,
}

/// What the state wants done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Request {
    Quit,
    /// A new answer, at once.
    Refresh,
    /// The end of a connection.
    Kill(String),
}

impl State {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            now: Duration::ZERO,
            status: Value::Null,
            rows: Vec::new(),
            total: 0,
            history: History::default(),
            link: Link::Live,
            mode: Mode::Table,
            page: Page::Connections,
            sort: Sort {
                key: SortKey::Age,
                order: Order::Falling,
            },
            filter: Filter::default(),
            notice: None,
            is_paused: false,
            cursor: 0,
            offset: 0,
            scroll: 0,
            selected: None,
            height: 10,
            heard: Duration::ZERO,
            no_writes: None,
        }
    }

    /// The path of the page of connections. Its size is bounded, and what is not seen is not asked for.
    pub(super) fn query(&self) -> String {
        let needed = self.cursor + self.height;
        let limit = match self.filter.has_words() {
            true => MOST,
            false => (needed / STEP * STEP + STEP).min(MOST),
        };
        let (sort, filter) = (self.sort.word(), self.filter.query());
        format!("/v1/connections?limit={limit}&sort={sort}{filter}")
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Duration) {
        self.now = now;
        if self.notice.as_ref().is_some_and(|it| it.until <= now) {
            self.notice = None;
        }
    }

    /// Takes over the history that the server has kept.
    pub(super) fn remember(&mut self, history: &Value) {
        self.history.seed(history);
    }

    /// Takes the answers of the server, or why there are none.
    pub(super) fn received(&mut self, polled: Result<Polled, String>) {
        let Polled { status, page } = match polled {
            Ok(polled) => polled,
            Err(why) => return self.lose(why),
        };
        (self.link, self.heard) = (Link::Live, self.now);
        if !self.is_paused {
            self.history.push(self.now, &status);
        }
        self.no_writes = match status["writes_allowed"].as_bool() {
            Some(false) => Some(NO_WRITES.into()),
            Some(true) => None,
            None => self.no_writes.take(),
        };
        self.status = status;
        match page {
            Ok(page) => self.list(&page),
            Err(why) => self.say_problem(&why),
        }
    }

    fn lose(&mut self, why: String) {
        let since = match self.link {
            Link::Live => self.heard,
            Link::Lost { since, .. } => since,
        };
        self.link = Link::Lost { since, why };
    }

    fn list(&mut self, page: &Value) {
        let rows = page["connections"].as_array().into_iter().flatten();
        if let Mode::Details(detail) = &mut self.mode {
            let now = rows.clone().find(|it| it["id"] == detail.row["id"]);
            detail.is_listed = now.is_some();
            detail.row = now.unwrap_or(&detail.row).clone();
        }
        let matching = rows.filter(|row| self.filter.matches(row));
        self.rows = matching.cloned().collect();
        self.total = page["total"].as_u64().unwrap_or_default();
        let selected = self.selected.as_ref();
        let at = selected.and_then(|id| self.rows.iter().position(|row| row["id"] == **id));
        self.cursor = match (at, &self.selected) {
            (Some(at), _) => at,
            (None, None) => 0,
            // It has ended: the next one is in its place.
            (None, Some(_)) => self.cursor,
        };
        self.settle();
        if self.selected.is_some() {
            self.selected = self.current().and_then(id_of);
        }
    }

    pub(super) fn killed(&mut self, id: &str, killed: Killed) {
        match killed {
            Killed::Done(0) => self.say("it was ending already"),
            Killed::Done(_) => self.say(&format!("connection {} killed", short(id))),
            Killed::Failed(why) => self.say_problem(&why),
            Killed::Forbidden(why) => {
                self.say_problem(&why);
                self.no_writes = Some(why);
            }
        }
    }

    pub(super) fn act(&mut self, action: Action) -> Option<Request> {
        match action {
            Action::Quit => return Some(Request::Quit),
            Action::Leave if self.page != Page::Connections => self.turn(Page::Connections),
            Action::Leave if self.filter.is_empty() => return Some(Request::Quit),
            Action::Leave => return self.apply(""),
            Action::Cancel => self.mode = Mode::Table,
            Action::Help => self.mode = Mode::Help,
            Action::Details => self.open_details(),
            Action::Kill => self.ask_to_kill(),
            Action::Yes => {
                if let Mode::Confirm { id, .. } = std::mem::replace(&mut self.mode, Mode::Table) {
                    return Some(Request::Kill(id));
                }
            }
            Action::Pause => {
                self.is_paused ^= true;
                return (!self.is_paused).then_some(Request::Refresh);
            }
            Action::Move(step) => return self.step(step),
            Action::Sort(key) => return self.sort_by(key),
            Action::NextSort => return self.sort_by(self.sort.key.next()),
            Action::Reverse => return self.sort_by(self.sort.key),
            Action::NextPage => self.turn(self.page.after(1)),
            Action::PreviousPage => self.turn(self.page.after(Page::ALL.len() - 1)),
            Action::EditFilter => self.mode = Mode::Filter(self.filter.text().to_owned()),
            Action::Type(c) => self.edit(|text| text.push(c)),
            Action::Erase => {
                self.edit(|text| text.truncate(text.char_indices().last().map_or(0, |(at, _)| at)))
            }
            Action::EraseAll => self.edit(String::clear),
            Action::Apply => {
                if let Mode::Filter(text) = self.mode.clone() {
                    return self.apply(&text);
                }
            }
        }
        None
    }

    /// The row of the cursor.
    pub(super) fn current(&self) -> Option<&Value> {
        self.rows.get(self.cursor)
    }

    pub(super) fn may_kill(&self) -> bool {
        self.no_writes.is_none()
    }

    /// Makes the cursor visible in a table of this height. `lines` are those of the page.
    pub(super) fn fit(&mut self, height: usize, lines: usize) {
        self.height = height.max(1);
        self.scroll = self.scroll.min(lines.saturating_sub(self.height));
        self.settle();
    }

    fn settle(&mut self) {
        self.cursor = self.cursor.min(self.rows.len().saturating_sub(1));
        let last = self.rows.len().saturating_sub(self.height);
        let lowest = self.cursor.saturating_sub(self.height - 1);
        self.offset = self.offset.clamp(lowest, self.cursor).min(last.max(lowest));
    }

    fn turn(&mut self, page: Page) {
        (self.page, self.scroll) = (page, 0);
    }

    fn step(&mut self, step: Move) -> Option<Request> {
        if self.page != Page::Connections {
            self.scroll = stepped(self.scroll, step, self.height, usize::MAX);
            return None;
        }
        let last = self.rows.len().saturating_sub(1);
        self.cursor = stepped(self.cursor, step, self.height, last).min(last);
        self.selected = match step {
            Move::First => None,
            _ => self.current().and_then(id_of),
        };
        if let Mode::Details(_) = self.mode {
            self.open_details();
        }
        self.settle();
        // More rows are there than were asked for.
        let is_at_end = self.cursor == last && (self.rows.len() as u64) < self.total;
        (is_at_end && self.rows.len() < MOST).then_some(Request::Refresh)
    }

    fn sort_by(&mut self, key: SortKey) -> Option<Request> {
        let order = match (key == self.sort.key, self.sort.order) {
            (true, Order::Falling) => Order::Rising,
            _ => Order::Falling,
        };
        self.sort = Sort { key, order };
        (self.selected, self.cursor) = (None, 0);
        Some(Request::Refresh)
    }

    fn open_details(&mut self) {
        if let Some(row) = self.current().filter(|_| self.page == Page::Connections) {
            let (row, is_listed) = (row.clone(), true);
            self.mode = Mode::Details(Detail { row, is_listed });
        }
    }

    fn ask_to_kill(&mut self) {
        if let Some(why) = self.no_writes.clone() {
            return self.say_problem(&why);
        }
        let row = match &self.mode {
            Mode::Details(detail) => Some(&detail.row),
            _ => self.current().filter(|_| self.page == Page::Connections),
        };
        let Some(row) = row else { return };
        let id = row["id"].as_str().unwrap_or_default().to_owned();
        let peer = row["peer"].as_str().unwrap_or("a local client");
        let question = format!("End connection {} of {peer}?", short(&id));
        let question = printable::line(&question);
        self.mode = Mode::Confirm { id, question };
    }

    fn edit(&mut self, change: impl FnOnce(&mut String)) {
        if let Mode::Filter(text) = &mut self.mode {
            change(text);
            text.truncate(text.floor_char_boundary(LONGEST_FILTER));
        }
    }

    fn apply(&mut self, text: &str) -> Option<Request> {
        match Filter::parse(text) {
            Ok(filter) => {
                self.filter = filter;
                self.mode = Mode::Table;
                self.notice = None;
                self.turn(Page::Connections);
                (self.selected, self.cursor) = (None, 0);
                Some(Request::Refresh)
            }
            // It stays open, to be corrected.
            Err(why) => {
                self.say_problem(&why);
                None
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.notify(text, false);
    }

    fn say_problem(&mut self, text: &str) {
        self.notify(text, true);
    }

    fn notify(&mut self, text: &str, is_problem: bool) {
        self.notice = Some(Notice {
            text: printable::line(text),
            is_problem,
            until: self.now + NOTICE,
        });
    }
}

fn id_of(row: &Value) -> Option<String> {
    row["id"].as_str().map(str::to_owned)
}

/// Enough of an id to recognise it. All of it is a capability.
pub(super) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

const NO_WRITES: &str = "this admin API takes no writes over TCP; use its Unix socket, or set \
 admin.allow_writes_over_tcp";
const NOTICE: Duration = Duration::from_secs(8);
/// The most that the API puts on a page.
const MOST: usize = 1000;
const STEP: usize = 100;
const LONGEST_FILTER: usize = 400;
