//! A wrong configuration: `check` and `run` report every problem.

use crate::*;

#[tokio::test]
async fn check_accepts_a_good_file_and_reports_every_problem_of_a_bad_one() {
    let directory = tempdir().expect("a directory");
    let good = write(&directory, "good.toml", GOOD);
    let done = output(command(&format!("check -c {good}"))).await;
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));

    let bad = write(&directory, "bad.toml", BAD);
    let done = output(command(&format!("check -c {bad}"))).await;
    assert_eq!((done.code, done.err.as_str()), (Some(2), ""));
    assert_problems(&String::from_utf8(done.out).expect("text"), &bad);

    let done = output(command("check -c /nonexistent/vestibule.toml")).await;
    assert_eq!(done.code, Some(2));
    let out = String::from_utf8(done.out).expect("text");
    assert!(
        out.starts_with("/nonexistent/vestibule.toml:1:1: "),
        "{out}"
    );
}

#[tokio::test]
async fn run_with_a_bad_file_reports_every_problem_on_stderr_and_exits_with_2() {
    let directory = tempdir().expect("a directory");
    let bad = write(&directory, "bad.toml", BAD);
    let done = output(command(&format!("run -c {bad}"))).await;
    assert_eq!((done.code, done.out.len()), (Some(2), 0));
    assert_problems(&done.err, &bad);
}

#[tokio::test]
async fn check_finds_addresses_that_cannot_be_bound_or_lead_back_to_vestibule() {
    let second = "[[listener]]\nname = \"two\"\naddress = \"ADDRESS\"\n[[backend]]";
    let with = |first: &str, address: &str| {
        GOOD.replace("127.0.0.1:0", first)
            .replace("[[backend]]", &second.replace("ADDRESS", address))
    };
    let directory = tempdir().expect("a directory");
    let long = format!("unix:/{}", "x".repeat(107));
    for (config, place, words) in [
        (
            with("[::]:8443", "0.0.0.0:8443"),
            "12:11",
            "`[::]` also serves IPv4",
        ),
        (
            with("0.0.0.0:8443", "127.0.0.1:8443"),
            "12:11",
            "another listener uses",
        ),
        (
            with("127.0.0.1:0", "unix:/nowhere/at/all.sock"),
            "12:11",
            "run `mkdir -p /nowhere/at`",
        ),
        (with("127.0.0.1:0", &long), "12:11", "limited to 107 bytes"),
        (
            GOOD.replace("127.0.0.1:0", "0.0.0.0:8443").replace(
                "\"echo\"\nto = \"echo\"",
                "\"echo\"\nto = \"localhost:8443\"",
            ),
            "12:6",
            "is the address of the listener \"tcp\"",
        ),
        (
            with("127.0.0.1:0", "unix:/tmp/a.sock\"\nmode = \"0999"),
            "13:8",
            "expected an octal mode from \"0000\" to \"0777\", such as \"0660\", found \"0999\"",
        ),
        (
            with("127.0.0.1:0", "unix:/tmp/a.sock\"\ngroup = \"no such group"),
            "13:9",
            "/etc has no group \"no such group\"",
        ),
    ] {
        let file = write(&directory, "vestibule.toml", &config);
        let done = output(command(&format!("check -c {file}"))).await;
        let said = String::from_utf8(done.out).expect("text");
        assert_eq!((done.code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.starts_with(&format!("{file}:{place}: ")), "{said}");
        assert!(said.contains(words), "{said}");
    }
    let done = output(run_command("unix:/tmp/a.sock", "unix:/tmp/a.sock", "")).await;
    assert_eq!(done.code, Some(2));
    assert!(
        done.err.contains("is the address of --listen"),
        "{}",
        done.err
    );
}

/// Problems in lines 3, 5, 6, 9 and 12.
const BAD: &str = r#"
[runtime]
workers = 0
[limits]
conections = 5
pending = "ten"
[[listener]]
name = "tcp"
address = "tcp:127.0.0.1"
[[backend]]
name = "echo"
to = "nowhere"
"#;

fn assert_problems(said: &str, file: &str) {
    let mut places = Vec::new();
    for line in said.lines() {
        let rest = line.strip_prefix(&format!("{file}:"));
        let mut parts = rest.unwrap_or_else(|| panic!("{line}")).splitn(3, ':');
        let mut number = || {
            parts
                .next()
                .expect("a part")
                .parse::<usize>()
                .expect("a number")
        };
        let (line_number, column) = (number(), number());
        assert!(column >= 1);
        let message = parts.next().expect("a message");
        assert!(message.starts_with(' ') && message.len() > 10, "{line}");
        places.push(line_number);
    }
    assert_eq!(places, [3, 5, 6, 9, 12], "{said}");
}
