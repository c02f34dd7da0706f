"""Compares Vestibule with its peers. Started by `benches/compare/run`, which installs what it needs."""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

import asked
import certificates
import launch
import measure
import plot
import proxies
import report
import targets
import works

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIRST_PORT = 21400  # below the ephemeral ports
IDLE_SIZE = 16 * 1024
MEMORY_ROUNDS = 2  # it hardly differs, and takes its time
NEW_KEYS = {
    works.RSA: ["-newkey", "rsa:2048"],
    works.P384: ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"],
}


def main():
    arguments = parse_arguments()
    if arguments.check or arguments.report:
        results = read(arguments.out / "results.json")
        if arguments.report:
            write(arguments.out, results)
        return conclude(results)
    pick_cpus(arguments)
    results = {"about": about(arguments), "samples": [], "memory": [], "scaling": [], "counts": [], "certificates": []}
    for measured in range(arguments.rounds):
        one_round(arguments, results, measured)
    results["about"]["took_seconds"] = round(time.monotonic() - arguments.began)
    write(arguments.out, results)
    print(f"\nwritten: {arguments.out}/README.md, results.json and comparison.svg")
    conclude(results)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(prog="benches/compare/run", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=__doc__, epilog="works: " + " ".join(works.NAMES))
    parser.add_argument("--vestibule", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--envoy", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--partial-out", required=True, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--proxies", help="names, separated by commas")
    parser.add_argument("--works", help="names, separated by commas")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--connections", type=int)
    parser.add_argument("--cpus")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    arguments.began = time.monotonic()
    partial = any((arguments.proxies, arguments.works, arguments.quick))
    # Only a complete run replaces the published results.
    arguments.out = arguments.out or (arguments.partial_out if partial else ROOT / "docs" / "performance")
    quick = arguments.quick
    arguments.rounds = arguments.rounds or (1 if quick else 3)
    arguments.seconds = arguments.seconds or (0.4 if quick else 0.8)
    arguments.warm_up = 0.15 if quick else 0.25
    arguments.connections = arguments.connections or (500 if quick else 4000)
    arguments.streams = 1000 if quick else 10_000
    everything = proxies.catalogue(arguments.vestibule, arguments.envoy)
    chosen = choose(parser, "proxy", arguments.proxies, [proxy.name for proxy in everything])
    arguments.proxies = [proxy for proxy in everything if proxy.name in chosen]
    arguments.works = choose(parser, "work", arguments.works, works.NAMES)
    return arguments


def choose(parser, what, given, known):
    chosen = given.split(",") if given else known
    for name in chosen:
        if name not in known:
            parser.error(f"no such {what}: {name}; there are {', '.join(known)}")
    return chosen


def pick_cpus(arguments):
    allowed = sorted(os.sched_getaffinity(0))
    chosen = [int(cpu) for cpu in arguments.cpus.split(",")] if arguments.cpus else allowed[:2]
    if len(chosen) != 2 or len(set(chosen)) != 2 or not set(chosen) <= set(allowed):
        sys.exit(f"compare: two CPUs are needed, one for the proxy and one for the load; there are {allowed}")
    arguments.proxy_cpu, arguments.load_cpu = chosen
    os.sched_setaffinity(0, {arguments.load_cpu})


def about(arguments):
    """Facts about the run that a reader needs, and about the machine only what matters."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["benches/compare/run", *shown_arguments()]),
        "commit": commit(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "cpu_of_proxy": arguments.proxy_cpu,
        "cpu_of_load": arguments.load_cpu,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "openssl": openssl(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "warm_up": arguments.warm_up,
        "proxies": {
            proxy.name: {"label": proxy.label, "version": launch.version(proxy), "why": proxy.why, "tls": proxy.tls}
            for proxy in arguments.proxies
        },
    }


def shown_arguments():
    """The arguments of the user. Those that `run` adds are paths of this machine."""
    hidden = ("--vestibule=", "--envoy=", "--load=", "--partial-out=")
    return [argument for argument in sys.argv[1:] if not argument.startswith(hidden)]


def commit():
    git = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"],
                         capture_output=True, text=True, check=False)
    return git.stdout.strip() or "unknown"


def openssl():
    """The TLS library of HAProxy, nginx, hitch and stunnel."""
    dpkg = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "libssl3"], capture_output=True, text=True, check=False)
    return dpkg.stdout.strip() or "unknown"


def cpu_model():
    match = re.search(r"^model name\s*:\s*(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match.group(1) if match else platform.machine()


# --- Rounds ------------------------------------------------------------------------------------


def one_round(arguments, results, measured):
    """Every work with every proxy, each time starting with another proxy."""
    bench = measure.Bench(arguments.load, arguments.seconds, arguments.warm_up,
                          arguments.proxy_cpu, arguments.load_cpu)
    print(f"\nround {measured + 1} of {arguments.rounds}, after {time.monotonic() - arguments.began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="vestibule-compare.") as directory:
        # hitch does not run as root, and must be able to open the backend's socket.
        os.chmod(directory, 0o711)
        start = Starter(arguments, pathlib.Path(directory))
        for side, some in works.SIDES.items():
            groups = {}
            for work in some:
                if work.name in arguments.works:
                    groups.setdefault((work.backend, work.certificate), []).append(work)
            for (backend, certificate), timed in groups.items():
                timed_works(arguments, results, measured, bench, start, timed, {"side": side, "backend": backend, "certificate": certificate})
        if works.SCALING in arguments.works and arguments.proxies[0].name == "vestibule":
            scaling(arguments, results, measured, bench, start)
        if works.COUNTS in arguments.works and measured == 0:
            counts(arguments, results, bench, start)
        if works.CERTIFICATES in arguments.works and measured == 0:
            hosts = certificates.make(start.directory / "hosts", certificates.FEW if arguments.quick else certificates.COUNT)
            results["certificates"] += certificates.measure(bench, start, arguments.proxies, hosts, logger(works.CERTIFICATES))
        for side, name in works.IDLES.items():
            if name not in arguments.works or measured >= MEMORY_ROUNDS:
                continue
            order = rotated(able(arguments.proxies, side), measured)
            connections = arguments.streams if side == proxies.TUNNEL else arguments.connections
            samples = measure.memory(bench, start, order, connections, IDLE_SIZE, logger(name), side)
            results["memory"] += [sample | {"round": measured} for sample in samples]


def able(chosen, side):
    """The proxies that support TLS on this side."""
    return [proxy for proxy in chosen if side in proxy.sides]


def timed_works(arguments, results, measured, bench, start, timed, how):
    with contextlib.ExitStack() as stack:
        needed = [proxy for proxy in able(arguments.proxies, how["side"]) if any(does(proxy, work) for work in timed)]
        running = [stack.enter_context(start(proxy, **how)) for proxy in needed]
        for turn, work in enumerate(timed):
            for one in rotated(running, measured + turn):
                if not does(one.proxy, work):
                    continue
                sample = {"work": work.name, "proxy": one.proxy.name, "round": measured}
                sample |= bench.timed(one, work.task)
                del sample["threads"]  # There is only one worker.
                results["samples"].append(sample)
                figure = work.figure(sample)
                text = work.undone if figure is None else f"{figure:8.1f} {work.unit}{rate(sample)}"
                logger(work.name)(one.proxy, f"{text}   foreign {sample['foreign']:.0%}")


def does(proxy, work):
    """Whether this proxy is measured with this work."""
    if work.alone:
        return proxy.name == "vestibule"
    return (proxy.tls or not work.needs_tls) and (proxy.name in works.MAIN or not work.few)


def counts(arguments, results, bench, start):
    """What the kernel does for a piece of work. Counts differ less than times: one round has to do."""
    bench = measure.Bench(bench.load, min(bench.seconds, 0.5), bench.warm_up, bench.proxy_cpu, bench.load_cpu)
    for backend in (works.UNIX, works.TCP):
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(start(proxy, backend=backend)) for proxy in arguments.proxies if proxy.name in works.MAIN]
            for work in works.COUNTED:
                if work.backend != backend:
                    continue
                for one in running:
                    sample = {"work": work.name, "proxy": one.proxy.name} | bench.counted(one, work.task)
                    results["counts"].append(sample)
                    per = works.pieces(work, sample["total"])
                    logger(f"{work.name}, counts")(one.proxy, f"{sample['system_calls'] / per:8.1f} system calls, {sample['wake_ups'] / per:8.1f} wake-ups")


def rate(sample):
    """The bytes per second of wall time, if it has moved any, and how busy both sides were."""
    if "bytes" not in sample:
        return ""
    busy = (sample[kind] / sample["wall_ns"] for kind in ("proxy_cpu_ns", "load_cpu_ns"))
    return f" {sample['bytes'] / sample['wall_ns']:6.2f} GB/s   busy {' / '.join(f'{share:.0%}' for share in busy)}"


def scaling(arguments, results, measured, bench, start):
    """Vestibule with one worker on one CPU, and with two on two CPUs, which it shares with the load."""
    both = {arguments.proxy_cpu, arguments.load_cpu}
    vestibule = arguments.proxies[0]
    with start(vestibule) as one, start(vestibule, workers=2, cpus=both) as two:
        for turn, (name, work) in enumerate(works.SCALED.items()):
            for running, cpus in rotated([(one, None), (two, both)], measured + turn):
                workers = running.setting.workers
                sample = {"work": name, "workers": workers, "round": measured}
                sample |= bench.timed(running, work.task, cpus)
                results["scaling"].append(sample)
                logger(f"{name}, {workers} workers")(vestibule, f"{work.figure(sample):8.1f} {work.unit}")


class Starter:
    """Starts proxies, each on a port and in a directory of its own."""

    def __init__(self, arguments, directory):
        self.arguments = arguments
        self.directory = directory
        self.started = 0
        # hitch needs it at its start; the load generator replaces it later.
        with socket.socket(socket.AF_UNIX) as placeholder:
            placeholder.bind(f"{directory}/backend.sock")
        self.certificates = {works.P256: (ROOT / "certs" / "server.pem", ROOT / "certs" / "server-key.pem")}

    def __call__(self, proxy, workers=1, cpus=None, side=proxies.SERVER, backend=works.UNIX, certificate=works.P256, hosts=()):
        self.started += 1
        chain, key = self.certificate(certificate)
        setting = proxies.Setting(
            directory=self.directory / f"{self.started}-{proxy.name}",
            port=FIRST_PORT + self.started,
            backend=f"unix:{self.directory}/backend.sock" if backend == works.UNIX else f"127.0.0.1:{FIRST_PORT}",
            certificate=chain,
            key=key,
            workers=workers,
            hosts=tuple(hosts),
            side=side,
            ca=ROOT / "certs" / "ca.pem",
        )
        return launch.Running(proxy, setting, cpus or {self.arguments.proxy_cpu})


    def certificate(self, kind):
        """The files of a certificate and its key, which are made when they are first needed."""
        if kind not in self.certificates:
            paths = [self.directory / f"{kind}.pem", self.directory / f"{kind}-key.pem"]
            made = subprocess.run(["openssl", "req", "-x509", *NEW_KEYS[kind], "-nodes", "-days", "30", "-subj", "/CN=localhost",
                                   "-addext", "subjectAltName = DNS:localhost", "-out", paths[0], "-keyout", paths[1]],
                                  capture_output=True, text=True, check=False)
            if made.returncode != 0:
                raise RuntimeError(f"openssl has made no certificate: {made.stderr}")
            for path in paths:
                path.chmod(0o644)  # hitch does not run as root.
            self.certificates[kind] = paths
        return self.certificates[kind]


def rotated(items, by):
    by %= len(items)
    return items[by:] + items[:by]


def logger(work):
    def log(proxy, text):
        print(f"  {work:25} {proxy.label:30} {text}", flush=True)

    return log


# --- Afterwards --------------------------------------------------------------------------------


def read(path):
    if not path.exists():
        raise RuntimeError(f"no results in {path.parent}: run this without --check and --report first, or say --out")
    return json.loads(path.read_text())


def write(directory, results):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(report.as_json(results))
    (directory / "comparison.svg").write_text(plot.draw(results))
    (directory / "README.md").write_text(report.markdown(results))


def conclude(results):
    """Prints the targets. Returns 1 if one of them was missed or not measured."""
    print()
    rows = targets.evaluate(results) + asked.evaluate(results, targets.medians(results))
    for row in rows:
        print(f"  {row.verdict:12} {row.shown:>8}  ({row.wanted})  {row.title}")
    quiet = report.foreign(results)
    if quiet is not None and quiet > report.QUIET:
        print(f"\nWARNING: others used {quiet:.0%} of a CPU during the measurements: these are not results to publish")
    return 0 if all(row.verdict == targets.PASS for row in rows) else 1


if __name__ == "__main__":
    # Handled like an interrupt, so that all started processes are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("compare: terminated"))
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(f"compare: {error}")
