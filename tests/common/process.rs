//! Other programs and our own commands: started, read, and ended by their process id.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{SOON, project, soon, within};

/// The command for a program that the tests need, wherever it is installed.
pub fn tool(name: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        // These directories are not on every PATH, and nginx is there.
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    match found {
        Some(file) => Command::new(file),
        None => panic!("{name} is not installed; tests/run installs it: `tests/run --quick`"),
    }
}

/// A curl that trusts certs/ca.pem and prints errors, whatever the settings of this machine are.
pub fn curl() -> Command {
    let mut command = tool("curl");
    command
        .args(["-q", "-sS", "--noproxy", "*", "--max-time", "50"])
        .args(["--cacert", &project("certs/ca.pem")]);
    command
}

/// `openssl s_client` for `localhost` at `address`, trusting certs/ca.pem.
pub fn s_client(address: &str) -> Command {
    let mut command = tool("openssl");
    command
        .args(["s_client", "-connect", address])
        .args(["-servername", "localhost", "-verify_return_error"])
        .args(["-CAfile", &project("certs/ca.pem")]);
    command
}

/// A node that finds the module `ws`.
pub fn node() -> Command {
    let directory = project("examples/node");
    let module = Path::new(&directory).join("node_modules/ws");
    assert!(
        module.is_dir(),
        "{} is missing; run `npm ci --prefix examples/node`",
        module.display()
    );
    let mut command = tool("node");
    command
        .current_dir(directory)
        .env("NODE_EXTRA_CA_CERTS", project("certs/ca.pem"));
    command
}

/// Python with the packages of tests/requirements.txt.
pub fn python() -> Command {
    python_tool("python3")
}

/// A command that one of these packages installs.
pub fn python_tool(name: &str) -> Command {
    let tool = project(&format!("target/python/bin/{name}"));
    assert!(
        Path::new(&tool).is_file(),
        "{tool} is missing; tests/run installs it: `tests/run --quick`"
    );
    Command::new(tool)
}

/// The binary under test, without arguments.
pub fn vestibule() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vestibule"))
}

/// A copy of the binary under test in this directory, named `vestibule`, which other users may run.
///
/// Another process makes it: a program is busy (ETXTBSY) while anybody has it open to write, also a child that another
/// thread has forked in the meantime.
pub async fn copy_of_vestibule(directory: &Path) -> PathBuf {
    let copy = directory.join("vestibule");
    let mut command = Command::new("cp");
    command.arg(env!("CARGO_BIN_EXE_vestibule")).arg(&copy);
    output(command).await.ok();
    copy
}

/// A PATH with the binary under test, for scripts that call it by name.
pub fn path_with_vestibule() -> std::ffi::OsString {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_vestibule"));
    let directory = binary.parent().expect("a directory").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(directory).chain(std::env::split_paths(&path));
    std::env::join_paths(paths).expect("no colon in it")
}

/// The exit status and the output of a program.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Done {
    /// Its stdout, if it succeeded.
    #[track_caller]
    pub fn ok(self) -> Vec<u8> {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    #[track_caller]
    pub fn text(self) -> String {
        String::from_utf8(self.ok()).expect("text")
    }
}

/// Runs a program to its end, with `input` as its stdin.
pub async fn run(command: Command, input: &[u8]) -> Done {
    run_within(SOON, command, input).await
}

/// Like [`run`], for a program that takes longer.
pub async fn run_within(bound: Duration, mut command: Command, input: &[u8]) -> Done {
    let what = format!("{:?}", command.as_std());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let feed = async move {
        // It may exit without reading everything; its output is what matters.
        let _ = stdin.write_all(input).await;
    };
    let ended = within(bound, &what, async {
        tokio::join!(feed, child.wait_with_output()).1
    })
    .await
    .expect("our own child");
    Done {
        code: ended.status.code(),
        out: ended.stdout,
        err: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// Runs a program to its end without input.
pub async fn output(command: Command) -> Done {
    run(command, b"").await
}

/// A program in the background. Dropping it kills the process by its id.
pub struct Process {
    child: Child,
    what: String,
    said: watch::Receiver<Said>,
    _readers: JoinSet<()>,
}

/// The output of a program so far, line by line.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub out: Vec<String>,
    pub err: Vec<String>,
}

impl Process {
    pub fn start(command: Command) -> Self {
        Self::spawn(command, Stdio::null())
    }

    /// Also returns its stdin.
    pub fn start_listening(command: Command) -> (Self, ChildStdin) {
        let mut process = Self::spawn(command, Stdio::piped());
        let stdin = process.child.stdin.take().expect("piped");
        (process, stdin)
    }

    fn spawn(mut command: Command, stdin: Stdio) -> Self {
        let what = format!("{:?}", command.as_std());
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let (sender, said) = watch::channel(Said::default());
        let mut readers = JoinSet::new();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        readers.spawn(listen(out.expect("piped"), sender.clone(), |said| {
            &mut said.out
        }));
        readers.spawn(listen(err.expect("piped"), sender, |said| &mut said.err));
        Self {
            child,
            what,
            said,
            _readers: readers,
        }
    }

    /// The first line on stdout or stderr, past or future, that contains `part`.
    pub async fn line(&self, part: &str) -> String {
        self.lines(part, 1).await.remove(0)
    }

    /// Waits for `count` lines that contain `part`, and returns them.
    pub async fn lines(&self, part: &str, count: usize) -> Vec<String> {
        match self.heard(part, count).await {
            Some(lines) => lines,
            None => panic!(
                "{} ended without {count} times {part:?}; it said {:#?}",
                self.what,
                self.said()
            ),
        }
    }

    /// Like [`Process::lines`]; `None` if it exits without them.
    pub async fn heard(&self, part: &str, count: usize) -> Option<Vec<String>> {
        let find = |said: &Said| -> Vec<String> {
            let lines = said.out.iter().chain(&said.err);
            lines.filter(|line| line.contains(part)).cloned().collect()
        };
        let mut said = self.said.clone();
        let what = format!("{count} times {part:?} from {}", self.what);
        let heard = soon(&what, said.wait_for(|said| find(said).len() >= count)).await;
        heard.ok().map(|said| find(&said))
    }

    pub fn said(&self) -> Said {
        self.said.borrow().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("not waited for")
    }

    /// The number of its child processes, including zombies.
    pub fn children(&self) -> usize {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.expect("alive").split_whitespace().count()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a pid");
        kill_process(pid, signal).expect("our own child");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    /// Its exit status and its whole output.
    pub async fn wait(mut self) -> (ExitStatus, Said) {
        let status = soon(&self.what, self.child.wait()).await;
        let mut said = self.said.clone();
        // Both pipes are read to their ends; then the channel closes.
        soon("its last words", async {
            while said.changed().await.is_ok() {}
        })
        .await;
        (status.expect("our own child"), self.said())
    }

    /// Sends SIGTERM, and returns the exit code.
    pub async fn terminate(self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait().await.0.code()
    }
}

async fn listen(
    pipe: impl AsyncRead + Unpin,
    said: watch::Sender<Said>,
    part: impl Fn(&mut Said) -> &mut Vec<String>,
) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        said.send_modify(|said| part(said).push(line));
    }
}
