"""What connections notice of those who look at the proxy. Started by `benches/observe/run`."""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import pty
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "compare"))
import compare  # noqa: E402
import launch  # noqa: E402
import measure  # noqa: E402
import proxies  # noqa: E402

PORT = 21700
SIZE = 1024
MESSAGES_PER_SECOND = 5000
KNOWN = 100  # connections with the identity that is queried
TALKING = 100  # connections that echo; the others are idle
GOAL = 1.10
# Chromium needs some seconds until its page is complete.
WARM_UP = 6.0


def main():
    arguments = parse_arguments()
    if arguments.check:
        results = json.loads((arguments.out / "observe.json").read_text())
    else:
        compare.pick_cpus(arguments)
        results = run(arguments)
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "observe.json").write_text(json.dumps(results, indent=1) + "\n")
        (arguments.out / "observe.md").write_text(report(results))
        print(f"\nwritten: {arguments.out}/observe.md and observe.json")
    ratio = medians(results)["ratio"]
    if ratio > GOAL:
        print(f"MISS: p99 with observers is {ratio:.2f} times the p99 without, the goal is {GOAL:.2f}")
    return 1 if ratio > GOAL and arguments.check else 0


def parse_arguments():
    parser = argparse.ArgumentParser(prog="benches/observe/run", description=__doc__)
    parser.add_argument("--vestibule", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--partial-out", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--cpus")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    partial = arguments.connections or arguments.quick
    arguments.out = arguments.out or (arguments.partial_out if partial else ROOT / "docs" / "performance")
    arguments.connections = arguments.connections or (500 if arguments.quick else 9400)
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 7)
    arguments.seconds = arguments.seconds or (1.0 if arguments.quick else 5.0)
    arguments.proxies = [proxies.Proxy("vestibule", "Vestibule", arguments.vestibule, ("--version",), vestibule)]
    return arguments


def vestibule(program, setting):
    path = setting.write("vestibule.toml", f"""\
[runtime]
workers = {setting.workers}
directory = "{setting.directory}"
log = "warn"
[limits]
connections = "unlimited"
connections_per_ip = "unlimited"
connections_per_identity = "unlimited"
pending = "unlimited"
handshaking = "unlimited"
[admin]
address = "tcp:127.0.0.1:{setting.port + 1}"
[[listener]]
name = "https"
address = "tcp:127.0.0.1:{setting.port}"
[listener.tls]
certificates = [ {{ chain = "{setting.certificate}", key = "{setting.key}" }} ]
client_auth = "optional"
client_ca = ["{setting.client_ca}"]
[[listener]]
name = "idle"
address = "tcp:127.0.0.1:{setting.port + 2}"
[listener.tls]
certificates = [ {{ chain = "{setting.certificate}", key = "{setting.key}" }} ]
[[route]]
identity = ["cn:known"]
backend = "known"
[[route]]
listener = ["idle"]
backend = "idle"
[[route]]
backend = "app"
[[backend]]
name = "idle"
to = "{setting.backend}.idle"
[[backend]]
name = "app"
to = "{setting.backend}"
[[backend]]
name = "known"
to = "{setting.backend}.known"
""")
    return [program, "run", "-c", path]


def run(arguments):
    arguments.warm_up = WARM_UP
    about = compare.about(arguments)
    about |= {"command": shlex.join(["benches/observe/run", *compare.shown_arguments()]),
              "connections": arguments.connections, "chromium": chromium_version()}
    results = {"about": about, "samples": [], "queries": []}
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vestibule-observe.")))
        certificates(directory)
        setting = proxies.Setting(
            directory=directory / "proxy",
            port=PORT,
            backend=f"unix:{directory}/backend.sock",
            certificate=directory / "server.pem",
            key=directory / "server-key.pem",
            workers=1,
            client_ca=directory / "ca.pem",
        )
        for cpu in (arguments.proxy_cpu, arguments.load_cpu):
            stack.callback(end, keep_awake(cpu))
        running = stack.enter_context(launch.Running(arguments.proxies[0], setting, {arguments.proxy_cpu}))
        bench = measure.Bench(arguments.load, arguments.seconds, WARM_UP, arguments.proxy_cpu, arguments.load_cpu)
        known = bench.start_load(running, {
            "work": "idle", "connections": KNOWN, "size": SIZE, "backend": setting.backend + ".known",
            "own": {"chain": str(directory / "known.pem"), "key": str(directory / "known-key.pem")},
        })
        stack.callback(end, known)
        if not known.stdout.readline():
            raise SystemExit(f"observe: {known.stderr.read()}")
        idle = bench.start_load(running, {
            "work": "idle", "connections": arguments.connections - KNOWN - TALKING, "size": SIZE,
            "backend": setting.backend + ".idle", "target": f"127.0.0.1:{setting.port + 2}",
        })
        stack.callback(end, idle)
        if not idle.stdout.readline():
            raise SystemExit(f"observe: {idle.stderr.read()}")
        load = bench.start_load(running, {
            "work": "starve", "connections": TALKING, "size": SIZE,
            "period_ms": 1000 * TALKING // MESSAGES_PER_SECOND, "windows": 2 * arguments.rounds,
        })
        stack.callback(end, load)
        take_turns(arguments, setting, load, results)
        answer, errors = load.communicate()
        if load.returncode != 0:
            raise SystemExit(f"observe: {errors}{answer}")
    return results


def take_turns(arguments, setting, load, results):
    """A measurement without observers, one with them, and so on."""
    admin = f"127.0.0.1:{setting.port + 1}"
    wait_for_connections(admin, arguments.connections)
    for window in range(2 * arguments.rounds):
        is_observed = window % 2 == 1
        observers = Observers(arguments, admin, setting.directory) if is_observed else contextlib.nullcontext()
        with observers:
            line = load.stdout.readline()
        if not line:
            raise SystemExit(f"observe: the load has ended: {load.stderr.read()}")
        sample = {"round": window // 2, "observed": is_observed, **json.loads(line)}
        results["samples"].append(sample)
        if is_observed:
            results["queries"] += observers.took
        print(f"  {'observed' if is_observed else 'alone   '}  p50 {sample['p50_ns'] / 1e6:6.3f}  "
              f"p99 {sample['p99_ns'] / 1e6:6.3f}  p99.9 {sample['p999_ns'] / 1e6:6.3f} ms  "
              f"{sample['round_trips']:,} round trips", flush=True)


def wait_for_connections(admin, count):
    deadline = time.monotonic() + 120
    while json.loads(ask(admin, "/v1/connections?state=relaying&limit=1"))["total"] < count:
        if time.monotonic() > deadline:
            raise SystemExit("observe: the connections are not open after two minutes")
        time.sleep(0.2)


def ask(admin, path, accept="*/*"):
    host, port = admin.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", path, headers={"Host": "localhost", "Accept": accept})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"observe: {path}: {answer.status} {body[:200]}")
    connection.close()
    return body


class Observers:
    """All who look at the proxy. They have what the load leaves of its CPU (SCHED_IDLE)."""

    def __init__(self, arguments, admin, directory):
        self.arguments = arguments
        self.admin = admin
        self.directory = directory
        self.took = []  # seconds of the queries
        self.ending = threading.Event()
        self.failure = None

    def __enter__(self):
        self.threads = [threading.Thread(target=self.repeat, args=job)
                        for job in ((1.0, self.scrape), (0.1, self.query))]
        for thread in self.threads:
            thread.start()
        self.processes = [self.chromium(), self.top()]
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()
        for process in self.processes:
            if process.poll() is not None:
                self.failure = self.failure or f"{process.args} has ended"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(self.screen)
        if self.failure:
            raise SystemExit(f"observe: {self.failure}")

    def repeat(self, seconds, job):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        due = time.monotonic()
        try:
            while not self.ending.wait(max(0, due - time.monotonic())):
                due += seconds
                job()
        except (OSError, ValueError, SystemExit) as error:
            self.failure = error

    def scrape(self):
        text = ask(self.admin, "/metrics", "application/openmetrics-text")
        if b"vestibule_connections_open" not in text:
            raise ValueError("the scrape has no connections")

    def query(self):
        began = time.monotonic()
        page = json.loads(ask(self.admin, "/v1/connections?identity=" + urllib.parse.quote("cn:known")))
        self.took.append(time.monotonic() - began)
        if len(page["connections"]) != KNOWN:
            raise ValueError(f"the query returned {len(page['connections'])} connections")

    def chromium(self):
        profile = tempfile.mkdtemp(dir=self.directory)
        return self.start(["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                           "--remote-debugging-port=0", f"--user-data-dir={profile}", f"http://{self.admin}/"],
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def top(self):
        self.screen, terminal = pty.openpty()
        process = self.start([self.arguments.vestibule, "top", "--admin", self.admin],
                             stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | {"TERM": "xterm"})
        os.close(terminal)
        self.threads.append(threading.Thread(target=self.read_screen))
        self.threads[-1].start()
        return process

    def read_screen(self):
        with contextlib.suppress(OSError):
            while not self.ending.is_set():
                os.read(self.screen, 65536)

    def start(self, command, **how):
        return subprocess.Popen(["chrt", "--idle", "0", *command], start_new_session=True, **how)


def keep_awake(cpu):
    """Spins when nothing else wants the CPU. In a virtual machine a CPU that halts may take milliseconds to wake up,
    and observers would keep it awake."""
    return subprocess.Popen(["chrt", "--idle", "0", "taskset", "-c", str(cpu), sys.executable, "-c", "while True: pass"])


def end(load):
    if load.poll() is None:
        load.kill()
    load.wait()


def certificates(directory):
    """A server's certificate, and that of the clients whose identity is queried."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)
    key = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for name in ("server", "ca"):
        openssl("req", "-x509", "-newkey", *key, "-days", "2", "-subj", f"/CN={name}",
                "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem")
    openssl("req", "-newkey", *key, "-subj", "/CN=known", "-keyout", "known-key.pem", "-out", "known.csr")
    # With an extension it is a certificate of version 3.
    (directory / "known.cnf").write_text("basicConstraints=critical,CA:FALSE\n")
    openssl("x509", "-req", "-in", "known.csr", "-extfile", "known.cnf", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-days", "2",
            "-out", "known.pem")


def chromium_version():
    found = subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=True)
    return found.stdout.split()[1]


# --- Afterwards --------------------------------------------------------------------------------


def medians(results):
    """p50, p99 and p99.9 in ms without and with observers, and the ratio of p99."""
    found = {}
    for is_observed in (False, True):
        samples = [sample for sample in results["samples"] if sample["observed"] == is_observed]
        found[is_observed] = [statistics.median(sample[name] / 1e6 for sample in samples)
                              for name in ("p50_ns", "p99_ns", "p999_ns")]
    pairs = zip(*[[sample["p99_ns"] for sample in results["samples"] if sample["observed"] == is_observed]
                  for is_observed in (True, False)])
    found["ratios"] = sorted(observed / alone for observed, alone in pairs)
    found["ratio"] = statistics.median(found["ratios"])
    return found


def report(results):
    about, found = results["about"], medians(results)
    queries = sorted(results["queries"])
    rows = [f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in found[key]) + " |"
            for name, key in (("without observers", False), ("with observers", True))]
    return TEXT.format(
        rows="\n".join(rows),
        ratio=found["ratio"],
        least=found["ratios"][0],
        most=found["ratios"][-1],
        version=about["proxies"]["vestibule"]["version"],
        known=KNOWN,
        talking=TALKING,
        rate=MESSAGES_PER_SECOND,
        pause=WARM_UP,
        query=statistics.median(queries) * 1e3,
        slow_query=queries[int(len(queries) * 0.99)] * 1e3,
        **about,
    )


TEXT = """\
# Connections while others look at them

{date}, commit `{commit}`, {cpu}, Linux {kernel}, {system}, Vestibule {version}, Chromium {chromium}, with

    {command}

Round trips of 1 KiB on {talking} of {connections:,} open connections, {rate:,} a second in total, in ms. This command writes this page: do not edit it.

| | p50 | p99 | p99.9 |
| --- | --: | --: | --: |
{rows}

The p99 with observers is {ratio:.2f} times the p99 without (median of {rounds} pairs, {least:.2f} to {most:.2f}; the goal is at most 1.10).

## How it is measured

The proxy has one worker, and all its threads are on one CPU. The clients and the backend are one program on the other CPU. The
observers are, all at the same time: a scrape of `/metrics` each second, ten queries of `/v1/connections?identity=` per second for
{known} of the connections, the dashboard in Chromium, and `vestibule top`. They use what the load leaves of its CPU (SCHED_IDLE), so
that they cost the load nothing, but the proxy has all the work that they cause. On both CPUs another program spins when nothing else
wants the CPU: in a virtual machine a CPU that halts takes up to some milliseconds to wake up, which observers would prevent. Measurements of {seconds} s alternate on the same
connections, {rounds} with observers and {rounds} without, with {pause:.0f} s between two of them. A round trip is measured from the time when the message was due, and every
byte is compared with the expected one. A query took {query:.1f} ms (median; p99 {slow_query:.1f} ms), as a new connection of a client with the lowest priority.
"""


if __name__ == "__main__":
    sys.exit(main())
