//! How `claim` and its commands end.

use crate::*;

#[tokio::test]
async fn claim_lets_its_commands_end_after_sigterm_and_takes_no_new_connection() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let vestibule = Vestibule::start(APP).await;
        let mut worker = claim(&vestibule.gate(), &["--", &whoami()]);
        let mut served = Vec::new();
        for _ in 0..2 {
            let mut client = Visitor::connect(&vestibule).await;
            client.greeting().await;
            served.push(client);
        }
        until("a third place waits", || connected(&vestibule.gate()) == 3).await;
        // The worker ignores this signal.
        worker.signal(Signal::USR1);
        worker.signal(signal);
        // The worker has handled the signal when it does not wait at the gate any more.
        until("it has left the gate", || connected(&vestibule.gate()) == 2).await;

        let mut late = Visitor::connect(&vestibule).await;
        let (_, mut socket) = soon("the late one", gate::accept(&vestibule.gate(), "app")).await;
        let word = socket.write_all(b"served by another\n").await;
        word.expect("an open connection");
        assert_eq!(late.line().await, "served by another");

        for mut client in served {
            assert!(worker.is_running(), "it left its commands behind");
            client.is_echoed().await;
            client.leave().await;
        }
        let (status, said) = worker.wait().await;
        assert_eq!(status.code(), Some(0), "{:?}", said.err);
        assert!(said.err.is_empty(), "{:?}", said.err);
        vestibule.ended("done", 2).await;
    }
}

#[tokio::test]
async fn a_wrong_backend_ends_claim_with_exit_code_2_and_advice() {
    let dialled = "[[backend]]\nname = \"web\"\nto = \"tcp:127.0.0.1:9\"\n\
                   [[route]]\nbackend = \"app\"\n";
    let vestibule = Vestibule::start(&format!("{APP}{dialled}")).await;
    for (backend, why) in [
        ("nobody", "NO unknown: no backend has this name"),
        ("web", "NO forbidden: the backend does not have"),
        ("App", "NO unknown: no backend has this name"),
    ] {
        let mut command = process::vestibule();
        command.args(["claim", "--gate"]).arg(vestibule.gate());
        command.args(["--backend", backend, "--", "cat"]);
        for command in [command, echo(&vestibule.gate(), backend)] {
            let done = output(command).await;
            assert_eq!(done.code, Some(2), "{backend}: {}", done.err);
            assert!(done.out.is_empty(), "{backend}");
            assert_eq!(done.err.lines().count(), 1, "{}", done.err);
            let gate = vestibule.gate().display().to_string();
            for part in [&gate, backend, why, "to = \"gate\""] {
                assert!(done.err.contains(part), "no {part} in {}", done.err);
            }
        }
    }
    // The same holds for invalid arguments.
    let mut command = tool("sh");
    command.arg(project("examples/shell/echo.sh"));
    let done = output(command).await;
    assert_eq!(done.code, Some(2));
    assert!(done.err.starts_with("usage: echo.sh"), "{}", done.err);
}

#[tokio::test]
async fn a_missing_command_ends_claim_before_it_takes_a_connection() {
    let vestibule = Vestibule::start(APP).await;
    let worker = claim(&vestibule.gate(), &["--", "/nowhere/handler"]);
    let (status, said) = worker.wait().await;
    assert_eq!(status.code(), Some(2));
    assert_eq!(said.err.len(), 1, "{:?}", said.err);
    assert!(said.err[0].contains("/nowhere/handler"), "{:?}", said.err);
}

#[tokio::test]
async fn a_command_that_dies_resets_nothing_but_its_own_connection() {
    let vestibule = Vestibule::start(APP).await;
    let script = "read -r word; if [ \"$word\" = die ]; then kill -9 $$; fi; exec cat";
    let worker = claim(&vestibule.gate(), &["--", "sh", "-c", script]);
    let mut other = Visitor::connect(&vestibule).await;
    other.say("live\n").await;
    other.is_echoed().await;
    let mut client = Visitor::connect(&vestibule).await;
    client.say("die\n").await;
    client.ends().await;
    other.is_echoed().await;
    other.leave().await;
    vestibule.ended("done", 1).await;
    until("the dead one is waited for", || worker.children() == 0).await;
    let said = worker.line("was killed by").await;
    assert!(said.contains("\"sh\" of connection"), "{said}");
    assert!(said.contains("signal 9 (SIGKILL"), "{said}");
    assert_eq!(worker.terminate().await, Some(0));
}

#[tokio::test]
async fn claim_as_pid_1_reaps_orphaned_processes() {
    let vestibule = Vestibule::start(APP).await;
    // The inner shell exits and leaves its `sleep` behind.
    let script = "sh -c 'sleep 600 <&- >&- &'; exec cat";
    let mut command = tool("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    command.arg(env!("CARGO_BIN_EXE_vestibule"));
    command.args(["claim", "--gate"]).arg(vestibule.gate());
    command.args(["--backend", "app", "--", "sh", "-c", script]);
    let unshare = Process::start(command);
    let mut client = Visitor::connect(&vestibule).await;
    client.is_echoed().await;
    let init = children(unshare.pid())[0];
    // The orphan is a shell until it executes `sleep`.
    let is_sleep = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "sleep\n")
    };
    let mut orphan = None;
    until("it has inherited", || {
        orphan = children(init).into_iter().find(is_sleep);
        orphan.is_some()
    })
    .await;
    let orphan = orphan.expect("a sleep");
    let orphan = Pid::from_raw(orphan.cast_signed()).expect("a pid");
    kill_process(orphan, Signal::TERM).expect("ours");
    // Without a wait it would stay in the list as a zombie.
    until("it is waited for", || children(init).len() == 1).await;
    client.is_echoed().await;
    client.leave().await;
    vestibule.ended("done", 1).await;
}

fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let pids = children.split_whitespace().map(|pid| pid.parse());
    pids.collect::<Result<_, _>>().expect("numbers")
}
