"""The effect of a flood of handshakes on established connections. Started by `benches/starve/run`."""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "compare"))
import compare  # noqa: E402
import launch  # noqa: E402
import measure  # noqa: E402
import proxies  # noqa: E402

PROXIES = ["vestibule", "haproxy", "nginx"]
ECHOES = {"work": "starve", "connections": 100, "size": 1024}
FIRST_PORT = 21600


@dataclass(frozen=True)
class Scene:
    """The kind of flood."""

    name: str
    title: str
    key: str  # of the server
    flood: dict | None = field(default=None)
    asks: bool = False  # whether the server asks for certificates


SCENES = [
    Scene("calm", "calm", "ecdsa"),
    Scene("rsa", "RSA-2048", "rsa", {"in_flight": 500}),
    Scene("ecdsa", "ECDSA P-256", "ecdsa", {"in_flight": 500}),
    Scene("large", "ECDSA, ClientHellos of 56 KB", "ecdsa", {"in_flight": 500, "hello": 56_000}),
    Scene("chains", "ECDSA, client chains of eight that are invalid", "ecdsa", {"in_flight": 500}, asks=True),
]


def main():
    arguments = parse_arguments()
    if arguments.check:
        results = json.loads((arguments.out / "starve.json").read_text())
    else:
        compare.pick_cpus(arguments)
        results = run(arguments)
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "starve.json").write_text(json.dumps(results, indent=1) + "\n")
        (arguments.out / "starve.md").write_text(report(results))
        print(f"\nwritten: {arguments.out}/starve.md and starve.json")
    missed = misses(results)
    for miss in missed:
        print(f"MISS: {miss}")
    return 1 if missed and arguments.check else 0


def parse_arguments():
    parser = argparse.ArgumentParser(prog="benches/starve/run", description=__doc__)
    parser.add_argument("--vestibule", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--partial-out", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--proxies")
    parser.add_argument("--floods")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--cpus")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    partial = arguments.proxies or arguments.floods or arguments.quick
    arguments.out = arguments.out or (arguments.partial_out if partial else ROOT / "docs" / "performance")
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (1.0 if arguments.quick else 3.0)
    names = [scene.name for scene in SCENES]
    chosen = compare.choose(parser, "flood", arguments.floods, names)
    arguments.scenes = [scene for scene in SCENES if scene.name in chosen]
    chosen = compare.choose(parser, "proxy", arguments.proxies, PROXIES)
    everything = proxies.catalogue(arguments.vestibule, "")
    arguments.proxies = [proxy for proxy in everything if proxy.name in chosen]
    return arguments


def run(arguments):
    arguments.warm_up = 0.5
    arguments.backend = "unix"
    about = compare.about(arguments) | {"command": shlex.join(["benches/starve/run", *compare.shown_arguments()])}
    results = {"about": about, "samples": []}
    bench = measure.Bench(arguments.load, arguments.seconds, arguments.warm_up,
                          arguments.proxy_cpu, arguments.load_cpu)
    port = FIRST_PORT
    with tempfile.TemporaryDirectory(prefix="vestibule-starve.") as directory:
        directory = pathlib.Path(directory)
        os.chmod(directory, 0o711)
        files = Files(directory)
        for measured in range(arguments.rounds):
            for turn, scene in enumerate(arguments.scenes):
                for proxy in compare.rotated(arguments.proxies, measured + turn):
                    port += 1
                    results["samples"].append(sample(arguments, bench, files, scene, proxy, port, measured))
    return results


def sample(arguments, bench, files, scene, proxy, port, measured):
    """One measurement with a newly started process."""
    setting = proxies.Setting(
        directory=files.directory / f"{port}-{proxy.name}",
        port=port,
        backend=f"unix:{files.directory}/backend.sock",
        certificate=files.path(f"{scene.key}.pem"),
        key=files.path(f"{scene.key}-key.pem"),
        workers=1,
        client_ca=files.path("ca.pem") if scene.asks else None,
    )
    task = dict(ECHOES)
    if scene.flood:
        task["flood"] = dict(scene.flood)
    if scene.asks:
        task["flood"]["refused"] = {"chain": str(files.path("chain.pem")), "key": str(files.path("chain-key.pem"))}
    with launch.Running(proxy, setting, {arguments.proxy_cpu}) as running:
        answer = bench.timed(running, task)
    del answer["threads"]
    answer |= {"scene": scene.name, "proxy": proxy.name, "round": measured, "seconds": arguments.seconds}
    print(f"  {scene.name:8} {proxy.label:14} p50 {answer['p50_ns'] / 1e6:7.2f}  p99 {answer['p99_ns'] / 1e6:7.2f} ms  "
          f"{per_second(answer):7,.0f} handshakes/s  {answer['unanswered']:5} unanswered  "
          f"foreign {answer['foreign']:.0%}", flush=True)
    return answer


def per_second(answer):
    return answer["handshakes"] / answer["wall_ns"] * 1e9


class Files:
    """Keys and certificates, made for this run."""

    def __init__(self, directory):
        self.directory = directory
        for name, algorithm in (("rsa", ["rsa:2048"]), ("ecdsa", P256), ("ca", P256)):
            self.openssl("req", "-x509", "-newkey", *algorithm, "-nodes", "-days", "2", "-subj", f"/CN={name}",
                         "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem")
        self.invalid_chain()

    def path(self, name):
        return self.directory / name

    def invalid_chain(self):
        """Eight certificates. The first is signed with a wrong key under the right authority's name."""
        (self.directory / "authority.cnf").write_text("basicConstraints=critical,CA:TRUE\n")
        (self.directory / "client.cnf").write_text("basicConstraints=critical,CA:FALSE\n")
        self.openssl("req", "-x509", "-newkey", *P256, "-nodes", "-days", "2", "-subj", "/CN=ca",
                     "-keyout", "0-key.pem", "-out", "0.pem")
        for number in range(1, 9):
            self.openssl("req", "-newkey", *P256, "-nodes", "-subj", f"/CN=certificate {number}",
                         "-keyout", f"{number}-key.pem", "-out", f"{number}.csr")
            self.openssl("x509", "-req", "-in", f"{number}.csr", "-CA", f"{number - 1}.pem", "-CAkey",
                         f"{number - 1}-key.pem", "-days", "2", "-out", f"{number}.pem",
                         "-extfile", "authority.cnf" if number < 8 else "client.cnf")
        chain = "".join((self.directory / f"{number}.pem").read_text() for number in range(8, 0, -1))
        (self.directory / "chain.pem").write_text(chain)
        (self.directory / "8-key.pem").rename(self.directory / "chain-key.pem")

    def openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.directory, check=True, capture_output=True)


P256 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]


# --- Afterwards --------------------------------------------------------------------------------


def medians(results):
    """p50 and p99 in ms and handshakes per second, by scene and proxy."""
    found = {}
    for answer in results["samples"]:
        figures = (answer["p50_ns"] / 1e6, answer["p99_ns"] / 1e6, per_second(answer))
        found.setdefault((answer["scene"], answer["proxy"]), []).append(figures)
    return {key: tuple(map(statistics.median, zip(*figures))) for key, figures in found.items()}


def misses(results):
    """The scenes in which Vestibule is worse than HAProxy, or its p99 is above the bound in SPEC."""
    found, missed = medians(results), []
    calm = found.get(("calm", "vestibule"))
    for scene in SCENES:
        ours, theirs = found.get((scene.name, "vestibule")), found.get((scene.name, "haproxy"))
        if not ours or not theirs:
            continue
        for name, our, their in zip(("p50", "p99"), ours, theirs):
            if our > their:
                missed.append(f"{scene.title}: {name} {our:.2f} ms, HAProxy {their:.2f} ms")
        if ours[2] < theirs[2]:
            missed.append(f"{scene.title}: {ours[2]:,.0f} handshakes/s, HAProxy {theirs[2]:,.0f}")
        if calm and ours[1] > 2 * calm[1] + 2:
            missed.append(f"{scene.title}: p99 {ours[1]:.2f} ms is more than twice the calm {calm[1]:.2f} ms plus 2 ms")
    return missed


def report(results):
    about, found = results["about"], medians(results)
    scenes = [scene for scene in SCENES if any(scene.name == name for name, _ in found)]
    head = "| | " + " | ".join(scene.title for scene in scenes) + " |"
    rows = [head, "|" + " --- |" + " --: |" * len(scenes)]
    for name, proxy in about["proxies"].items():
        cells = []
        for scene in scenes:
            p50, p99, rate = found[scene.name, name]
            cells.append(f"{p50:.2f} / {p99:.2f}" + (f" · {rate:,.0f}/s" if scene.flood else ""))
        rows.append(f"| {proxy['label']} {proxy['version']} | " + " | ".join(cells) + " |")
    return TEXT.format(table="\n".join(rows), **about)


TEXT = """\
# Established connections in a flood of handshakes

{date}, commit `{commit}`, {cpu}, Linux {kernel}, {system}, with

    {command}

Round trips of 1 KiB on 100 established connections, in ms (p50 / p99). After the dot: the number of handshakes per second that the
proxy answered during the flood, up to the ServerHello. "Calm" is without a flood. This command writes this page: do not edit it.

{table}

## How it is measured

Each proxy has one worker on one CPU. One program on the other CPU is the clients, the backend and the flood. Each connection sends a
message every 20 ms, 5,000 a second in total, whether the last one has been answered or not. A round trip is measured from the time
when the message was due. At any time, 500 ClientHellos of the flood wait for an answer. The clients of the flood reset the connection when the
ServerHello arrives, except those with a certificate chain: they finish the handshake and are refused. The flood runs only while
the echoes have nothing to do (SCHED_IDLE), so that the echoes are on time. Every byte of every echo is compared with the expected byte.
Each figure is the median of {rounds} measurements of {seconds} s, each with a process that has just started; the proxies alternate.

[handshakes.md](handshakes.md) compares two designs that protect established connections.
"""


if __name__ == "__main__":
    began = time.monotonic()
    sys.exit(main())
