//! Screens of `vestibule top`, drawn from answers of the API and keys.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Modifier;
use serde_json::{Value, json};

use super::action::Page;
use super::keys;
use super::session::{Killed, Polled};
use super::state::{Mode, Request, State};
use super::view::{self, theme::Theme};

fn status() -> Value {
    json!({
        "version": "0.1.0", "pid": 4711, "started": "2026-11-20T20:00:00Z", "uptime": 11_520.0,
        "state": "running",
        "listeners": [{"name": "https", "addresses": ["0.0.0.0:8443"], "tls": true}],
        "backends": [
            {"name": "web", "kind": "dialled", "connections": 1200, "addresses": [
                {"address": "tcp:10.0.0.1:80", "state": "up", "health": "up", "connections": 1200, "error": null},
            ]},
            {"name": "api", "kind": "dialled", "connections": 4, "addresses": [
                {"address": "unix:/run/api.sock", "state": "up", "health": "up", "connections": 4, "error": null},
                {"address": "tcp:10.0.0.2:9000", "state": "up", "health": "down", "connections": 0,
                 "error": "connection refused"},
            ]},
            {"name": "jobs", "kind": "gate", "connections": 0, "addresses": []},
        ],
        "connections": {"open": 1204, "pending": 3, "waiting": 1,
            "ended": {"done": 12_345, "no_route": 12, "client_reset": 3}},
        "traffic": {"accepted": 13_564, "handshakes": 13_000, "bytes_in": 0, "bytes_out": 0},
        "limits": [
            {"name": "connections", "limit": 10_000, "used": 1204, "peak": 1300},
            {"name": "pending", "limit": 1024, "used": 3, "peak": 9},
            {"name": "handshaking", "limit": null, "used": 0, "peak": 5},
        ],
        "memory": {"resident": 52_428_800},
        "descriptors": {"open": 980, "limit": 1024},
        "certificates": [
            {"listener": "https", "names": ["api.example.com"], "days_left": 6},
            {"listener": "https", "names": ["example.com", "www.example.com"], "days_left": 74},
        ],
        "reloads": {"requested": 0, "answered": 0, "succeeded": 0, "failed": 0, "last": null},
        "last_problem": null,
    })
}

fn row(index: usize) -> Value {
    json!({
        "id": format!("{index:08x}-5d0e-4c4b-9f57-0f7c7a9f0f11"), "listener": "https",
        "peer": format!("192.0.2.{index}:51234"), "local": "192.0.2.1:8443", "backend": "web",
        "accepted_at": "2026-11-20T20:00:00.123Z", "state": "relaying",
        "bytes_in": 1024 * index, "bytes_out": 5_000_000, "age": 3723.9, "idle": 12.5,
        "tls": {"version": "1.3", "cipher": "TLS13_AES_128_GCM_SHA256", "group": "X25519",
            "sni": "example.com", "alpn": null, "resumed": false},
        "identity": {"uri": [], "dns": [], "cn": "alice", "ou": ["ops"], "sha256": "ab12"},
    })
}

fn page(count: usize) -> Value {
    let rows: Vec<Value> = (1..=count).map(row).collect();
    json!({"connections": rows, "total": 1204, "next": null})
}

fn live() -> State {
    let mut state = State::new("unix:/run/vestibule/admin.sock".into());
    for second in 0..40_u64 {
        let mut status = status();
        status["connections"]["open"] = (1204 - (40 - second) * (second % 7) * 4).into();
        status["traffic"]["bytes_out"] = (second * second * 100_000).into();
        status["traffic"]["bytes_in"] = (second * 2_000_000).into();
        status["traffic"]["handshakes"] = (second * 12).into();
        state.tick(Duration::from_secs(second));
        let page = Ok(page(30));
        state.received(Ok(Polled { status, page }));
    }
    state
}

fn press(state: &mut State, keys: &[KeyCode]) -> Option<Request> {
    let mut last = None;
    for code in keys {
        let action = keys::action(&state.mode, KeyEvent::from(*code));
        last = action.and_then(|action| state.act(action));
    }
    last
}

fn text(state: &mut State, words: &str) -> Option<Request> {
    let keys: Vec<KeyCode> = words.chars().map(KeyCode::Char).collect();
    press(state, &keys)
}

/// The lines of the screen.
fn screen(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let buffer = painted(state, width, height);
    let line = |y| {
        (0..width)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
    };
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn painted(state: &mut State, width: u16, height: u16) -> Buffer {
    let theme = Theme::plain();
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("memory");
    let drawn = terminal.draw(|frame| {
        let (rows, lines) = view::extent(frame.area(), state, theme);
        state.fit(rows, lines);
        view::draw(frame, state, theme);
    });
    drawn.expect("memory").buffer.clone()
}

fn has(screen: &[String], part: &str) -> bool {
    screen.iter().any(|line| line.contains(part))
}

#[test]
fn a_terminal_of_80_columns_shows_everything_an_operator_looks_for() {
    let lines = screen(&mut live(), 80, 24);
    println!("{}", lines.join("\n"));
    for part in [
        "vestibule 0.1.0  ready  up 3h 12m  process 4711",
        "open 1,188",
        "handshakes 12/s",
        "pending 3",
        "bytes in",
        "ended 12,360: done 12,345  no_route 12  client_reset 3",
        "1,204 of 10,000",
        "50.0 MiB",
        "980 of 1,024",
        "api 1 of 2 not up",
        "tcp:10.0.0.2:9000 down",
        "6 days api.ex",
        "30 of 1,204",
        "AGE▼   IDLE",
        "192.0.2.1:51234",
        "cn:alice",
        "q quit",
    ] {
        assert!(has(&lines, part), "{part}");
    }
}

#[test]
fn small_and_large_terminals_have_a_table_and_nothing_breaks_at_any_size() {
    let mut state = live();
    let small = screen(&mut state, 40, 10);
    println!("{}", small.join("\n"));
    for part in [
        "ready",
        "open 1,",
        "Connections",
        "PEER",
        "192.0.2.1:51234",
        "q quit",
    ] {
        assert!(has(&small, part), "{part}");
    }
    let large = screen(&mut state, 200, 60);
    println!("{}", large.join("\n"));
    for part in [
        "www.example.com",
        "LISTENER",
        "00000001 relaying",
        "192.0.2.30:51234",
    ] {
        assert!(has(&large, part), "{part}");
    }
    for mode in [Mode::Table, Mode::Help, Mode::Filter("peer=".into())] {
        state.mode = mode;
        for (width, height) in [
            (1, 1),
            (2, 2),
            (5, 3),
            (19, 7),
            (60, 18),
            (300, 4),
            (3, 100),
        ] {
            screen(&mut state, width, height);
        }
    }
}

#[test]
fn a_lost_server_is_shown_with_the_age_of_the_data_until_it_is_back() {
    let mut state = live();
    for second in [40, 41, 52] {
        state.tick(Duration::from_secs(second));
        state.received(Err("nobody answers at unix:/x".into()));
    }
    let lines = screen(&mut state, 80, 24);
    assert!(has(&lines, "LOST, data 13 s old"), "{lines:#?}");
    assert!(has(&lines, "trying again: nobody answers at unix:/x"));
    // The old data is dim, and the badge is not.
    let (painted, last) = (
        painted(&mut state, 80, 24),
        "vestibule 0.1.0   LOST".len() as u16 - 1,
    );
    let modifiers = [(last, 0), (0, 20)].map(|at| painted[at].modifier);
    assert!(!modifiers[0].contains(Modifier::DIM) && modifiers[1].contains(Modifier::DIM));
    assert!(has(&lines, "192.0.2.1:51234"));
    let (status, page) = (status(), Ok(page(3)));
    state.received(Ok(Polled { status, page }));
    let lines = screen(&mut state, 80, 24);
    assert!(has(&lines, "ready") && !has(&lines, "LOST"));
}

#[test]
fn a_kill_needs_its_y_and_goes_to_the_connection_of_the_question() {
    let mut state = live();
    press(&mut state, &[KeyCode::Down]);
    text(&mut state, "k");
    let lines = screen(&mut state, 80, 24);
    assert!(
        has(&lines, "End connection 00000002 of 192.0.2.2:51234?"),
        "{lines:#?}"
    );
    assert_eq!(text(&mut state, "n"), None);
    assert_eq!(state.mode, Mode::Table);
    text(&mut state, "k");
    // Meanwhile other connections are in its place.
    let status = status();
    let page = Ok(json!({"connections": [row(7), row(8)], "total": 2}));
    state.received(Ok(Polled { status, page }));
    let Some(Request::Kill(id)) = text(&mut state, "y") else {
        panic!("no kill");
    };
    assert!(id.starts_with("00000002-"));
    state.killed(&id, Killed::Done(1));
    assert!(has(
        &screen(&mut state, 80, 24),
        "connection 00000002 killed"
    ));
}

#[test]
fn where_writes_are_refused_no_kill_is_offered() {
    let mut state = live();
    assert!(has(&screen(&mut state, 80, 24), "k kill"));
    text(&mut state, "k");
    text(&mut state, "y");
    state.killed(
        "00000001",
        Killed::Forbidden("writes over TCP are refused".into()),
    );
    let lines = screen(&mut state, 80, 24);
    assert!(has(&lines, "writes over TCP are refused"), "{lines:#?}");
    text(&mut state, "k");
    assert_eq!(state.mode, Mode::Table);
    state.tick(Duration::from_secs(99));
    assert!(!has(&screen(&mut state, 80, 24), "k kill"));
}

#[test]
fn sorts_and_filters_are_the_servers() {
    let mut state = live();
    assert_eq!(state.query(), "/v1/connections?limit=100&sort=-age");
    assert_eq!(text(&mut state, "b"), Some(Request::Refresh));
    assert!(state.query().ends_with("&sort=-bytes"));
    text(&mut state, "b");
    assert!(state.query().ends_with("&sort=bytes"));
    text(&mut state, "/peer=192.0.2.7");
    assert!(has(&screen(&mut state, 80, 24), "/peer=192.0.2.7"));
    assert_eq!(press(&mut state, &[KeyCode::Enter]), Some(Request::Refresh));
    assert!(state.query().ends_with("&sort=bytes&peer=192.0.2.7"));
    // A mistake is said, and can be corrected.
    text(&mut state, "/ per=1");
    assert_eq!(press(&mut state, &[KeyCode::Enter]), None);
    assert!(matches!(state.mode, Mode::Filter(_)));
    assert!(has(&screen(&mut state, 80, 24), "there is no filter per="));
    press(&mut state, &[KeyCode::Esc]);
    assert!(state.query().ends_with("&peer=192.0.2.7"));
    // Words are looked for in the rows, of which there are more then.
    text(&mut state, "/");
    let erase = [KeyCode::Backspace; 14];
    press(&mut state, &erase);
    text(&mut state, "2.13:");
    press(&mut state, &[KeyCode::Enter]);
    assert!(state.query().contains("limit=1000"));
    let (status, page) = (status(), Ok(page(30)));
    state.received(Ok(Polled { status, page }));
    assert_eq!(state.rows.len(), 1);
    assert_eq!(press(&mut state, &[KeyCode::Esc]), Some(Request::Refresh));
    assert_eq!(press(&mut state, &[KeyCode::Esc]), Some(Request::Quit));
}

#[test]
fn the_cursor_stays_on_its_connection_and_asks_for_more_rows_when_it_needs_them() {
    let mut state = live();
    screen(&mut state, 80, 24);
    press(&mut state, &[KeyCode::Down, KeyCode::Down]);
    let id = state.current().expect("a row")["id"].clone();
    let (status, page) = (
        status(),
        json!({"connections": [row(9), row(3), row(2)], "total": 3}),
    );
    state.received(Ok(Polled {
        status: status.clone(),
        page: Ok(page),
    }));
    assert_eq!(
        (state.cursor, &state.current().expect("a row")["id"]),
        (1, &id)
    );
    let page = self::page(100);
    state.received(Ok(Polled {
        status,
        page: Ok(page),
    }));
    assert_eq!(press(&mut state, &[KeyCode::End]), Some(Request::Refresh));
    assert!(state.query().contains("limit=200"));
    let lines = screen(&mut state, 80, 24);
    assert!(has(&lines, "192.0.2.100:51234"), "{lines:#?}");
}

#[test]
fn details_show_all_facts_and_pages_all_backends() {
    let mut state = live();
    press(&mut state, &[KeyCode::Enter]);
    let lines = screen(&mut state, 80, 24);
    println!("{}", lines.join("\n"));
    for part in [
        "00000001-5d0e-4c4b-9f57-0f7c7a9f0f11",
        "TLS13_AES_128_GCM_SHA256",
        "4.8 MiB (5,000,000 bytes)",
        "1h 2m ago, 2026-11-20T20:00:00.123Z",
        "alice",
    ] {
        assert!(has(&lines, part), "{part}");
    }
    let status = status();
    let page = Ok(json!({"connections": [], "total": 0}));
    state.received(Ok(Polled { status, page }));
    let lines = screen(&mut state, 80, 24);
    assert!(has(&lines, "no longer in the list") && has(&lines, "alice"));
    press(&mut state, &[KeyCode::Esc, KeyCode::Tab]);
    assert_eq!(state.page, Page::Backends);
    let lines = screen(&mut state, 80, 24);
    println!("{}", lines.join("\n"));
    for part in [
        "api 1 of 2 not up 4 open",
        "down 0 open: connection refused",
        "jobs gate",
    ] {
        assert!(has(&lines, part), "{part}");
    }
    press(&mut state, &[KeyCode::Tab, KeyCode::Tab, KeyCode::Tab]);
    assert!(has(&screen(&mut state, 80, 24), "99.9 %"));
}

#[test]
fn an_address_out_of_service_is_told_from_one_that_is_down() {
    let mut state = live();
    let mut status = status();
    status["backends"][0]["addresses"][0]["state"] = "drain".into();
    let page = Ok(page(1));
    state.received(Ok(Polled { status, page }));
    let lines = screen(&mut state, 120, 24);
    assert!(has(&lines, "web up (drain by order)"), "{lines:#?}");
    assert!(has(&lines, "tcp:10.0.0.2:9000 down"), "{lines:#?}");
}

#[test]
fn what_clients_choose_cannot_control_the_terminal() {
    let mut state = live();
    let mut evil = row(1);
    evil["tls"]["sni"] = "a\u{1b}[2Jb\u{202e}c\n".into();
    evil["identity"]["cn"] = "x\u{7}\u{9b}31m".into();
    let status = status();
    let page = Ok(json!({"connections": [evil], "total": 1}));
    state.received(Ok(Polled { status, page }));
    for keys in [&[][..], &[KeyCode::Enter], &[KeyCode::Char('k')]] {
        press(&mut state, keys);
        let text = screen(&mut state, 200, 40).join("\n");
        let is_bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(is_bad), "{text:?}");
    }
}

#[test]
fn a_pause_stops_and_the_second_press_asks_at_once() {
    let mut state = live();
    assert_eq!(text(&mut state, "p"), None);
    assert!(state.is_paused && has(&screen(&mut state, 80, 24), "PAUSED"));
    assert_eq!(text(&mut state, " "), Some(Request::Refresh));
    assert!(!state.is_paused);
}
