//! A terminal that a test looks at and types into: tmux, with a server of its own.

use std::process::Command as Blocking;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::process::{output, tool};
use super::soon;

/// A terminal with one program. Dropping it ends its tmux, and with that the program.
pub struct Tmux {
    socket: String,
}

impl Tmux {
    /// Runs `script` in a shell, on a terminal of this size.
    pub async fn start(width: u16, height: u16, script: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir();
        let name = format!("vestibule-{}-{number}.tmux", std::process::id());
        let terminal = Self {
            socket: directory.join(name).display().to_string(),
        };
        let size = [&*format!("-x{width}"), &*format!("-y{height}")].map(str::to_owned);
        let mut start = terminal.command(&["new-session", "-d"]);
        start.args(size).args(["/bin/sh", "-c", script]);
        output(start).await.ok();
        terminal
    }

    /// Presses keys, by their names in tmux: `a`, `Enter`, `C-c`.
    pub async fn press(&self, keys: &[&str]) {
        let mut send = self.command(&["send-keys"]);
        send.args(keys);
        output(send).await.ok();
    }

    /// Types text.
    pub async fn text(&self, text: &str) {
        output(self.command(&["send-keys", "-l", text])).await.ok();
    }

    pub async fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        let words = ["resize-window", "-x", &width, "-y", &height];
        output(self.command(&words)).await.ok();
    }

    /// What the terminal shows.
    pub async fn screen(&self) -> String {
        output(self.command(&["capture-pane", "-p"])).await.text()
    }

    /// The same, and what was scrolled up before.
    pub async fn history(&self) -> String {
        output(self.command(&["capture-pane", "-p", "-S", "-"]))
            .await
            .text()
    }

    /// What it shows, with the sequences for colours.
    pub async fn coloured_screen(&self) -> String {
        output(self.command(&["capture-pane", "-p", "-e"]))
            .await
            .text()
    }

    /// Waits until the terminal shows `part`, and returns the screen.
    pub async fn shows(&self, part: &str) -> String {
        let what = format!("{part:?} on the screen");
        self.until(&what, |it| it.contains(part)).await
    }

    /// Waits until the screen is as it should be. A terminal sends no event when it has changed.
    pub async fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let found = tokio::time::timeout(super::SOON / 2, async {
            loop {
                last = self.screen().await;
                if is_so(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        if soon(what, found).await.is_err() {
            panic!("never {what}; the screen is\n{last}");
        }
        last
    }

    fn command(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = tool("tmux");
        // No settings of this machine, and a terminal that can everything.
        command
            .args(["-S", &self.socket, "-f", "/dev/null", "-u"])
            .args(words)
            .env_remove("TMUX")
            .env_remove("NO_COLOR");
        command
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let mut end = Blocking::new("tmux");
        let _ = end.args(["-S", &self.socket, "kill-server"]).output();
        let _ = std::fs::remove_file(&self.socket);
    }
}
