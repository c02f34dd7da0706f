"""A running proxy: its start, its processes, its end, and its version."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time

START_SECONDS = 60  # with ten thousand certificates
STOP_SECONDS = 5


class Running:
    """A proxy with its processes. End it with `stop`, or use it as a context manager."""

    def __init__(self, proxy, setting, cpus):
        self.proxy = proxy
        self.setting = setting
        self.start_seconds = None
        setting.directory.mkdir(parents=True, exist_ok=True)
        command = [str(word) for word in proxy.command(proxy.program, setting)]
        self.command = ["taskset", "-c", ",".join(map(str, sorted(cpus)))] + command
        self.output = setting.directory / "output.log"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=setting.directory,
                # A process group of its own, which `stop` ends.
                start_new_session=True,
            )
        try:
            self.wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_it_listens(self):
        began = time.monotonic()
        deadline = began + START_SECONDS
        while True:
            self.check()
            try:
                # There is no backend yet: whatever happens to this connection, it ends at once.
                socket.create_connection(("127.0.0.1", self.setting.port), timeout=1).close()
                self.start_seconds = time.monotonic() - began
                break
            except OSError:
                if time.monotonic() > deadline:
                    self.fail(f"does not listen after {START_SECONDS} s")
                time.sleep(0.01)
        # Its workers are child processes that may start a little later.
        time.sleep(0.3)
        self.check()

    def check(self):
        """Raises an error if the process has exited."""
        if self.process.poll() is not None:
            self.fail(f"ended with {self.process.returncode}")

    def fail(self, what):
        output = self.output.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.proxy.label} {what}: {' '.join(self.command)}\n{output}")

    @property
    def target(self):
        return f"127.0.0.1:{self.setting.port}"

    def pids(self):
        """The process that was started and all its descendants."""
        parents = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                text = stat.read_text()
            except OSError:
                continue
            # The command's name is in parentheses and may contain any character.
            parents[int(stat.parent.name)] = int(text.rpartition(")")[2].split()[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def memory(self):
        """Memory of all its processes in bytes, by kind. Shared memory counts once."""
        sums = {}
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                kind, size = line.split()[:2]
                sums[kind.rstrip(":")] = sums.get(kind.rstrip(":"), 0) + int(size) * 1024
        return {
            "rss": sums["Rss"],
            "pss": sums["Pss"],
            # Without mapped files, which are the program itself.
            "own": sums["Pss_Anon"] + sums["Pss_Shmem"],
        }

    def threads(self):
        """CPU nanoseconds of each thread so far, by name."""
        times = {}
        for pid in self.pids():
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                try:
                    name = (task / "comm").read_text().strip()
                    times[int(task.name)] = (name, int((task / "schedstat").read_text().split()[0]))
                except OSError:
                    continue  # It has exited meanwhile.
        return times

    def stop(self):
        """Ends the processes of the group that was started here, and no others."""
        for stop in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, stop)
            except ProcessLookupError:
                break
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            # hitch's worker exits a little after its master.
            if stop == signal.SIGTERM:
                time.sleep(0.05)
        self.process.wait()


def version(proxy):
    """The version that the program prints. Raises an error if it prints none."""
    try:
        run = subprocess.run([proxy.program, *proxy.version], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SystemExit(f"compare: {proxy.label} is not installed: {error}") from error
    found = re.search(r"\b\d+\.\d+[\w.+~-]*", run.stdout + run.stderr)
    if not found:
        raise SystemExit(f"compare: {proxy.label} does not say its version: {run.stdout + run.stderr!r}")
    return found.group()
