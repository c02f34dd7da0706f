"""Measurements: the load generator runs against a proxy, and its answer is a sample."""

import json
import os
import resource
import signal
import subprocess
import time

import proxies
import works

SETTLE_SECONDS = 1.5  # from the last byte until the memory is read
AFTER_SECONDS = 10  # from the last close until it is read again
LOAD_TIMEOUT = 120
ATTACH_SECONDS = 0.3
# In the context of the threads of the proxy: what they ask for, and whom they wake.
COUNTED = {"system_calls": "raw_syscalls:sys_enter", "wake_ups": "sched:sched_waking"}


class Bench:
    """The common part of all measurements."""

    def __init__(self, load, seconds, warm_up, proxy_cpu, load_cpu):
        self.load = load
        self.seconds = seconds
        self.warm_up = warm_up
        self.proxy_cpu = proxy_cpu
        self.load_cpu = load_cpu

    def task(self, running, task):
        """The complete task as an argument for the load generator."""
        setting = running.setting
        tls = task.get("tls", "1.3") if running.proxy.tls and setting.to_clients else "none"
        shown = {"chain": str(setting.certificate), "key": str(setting.key)}
        whole = {
            "target": running.target,
            "certificate": str(setting.certificate),
            "backend": setting.backend,
            "backend_tls": shown if setting.to_backend else None,
            "pids": running.pids(),
            "own": self.own(setting) if setting.side == proxies.TUNNEL else None,
            "warm_up_ms": int(self.warm_up * 1000),
            "measure_ms": int(self.seconds * 1000),
        }
        return json.dumps(whole | task | {"tls": tls})

    def own(self, setting):
        """The certificate of the clients, which are the same for each proxy."""
        certs = setting.certificate.parent
        return {"chain": str(certs / "client.pem"), "key": str(certs / "client-key.pem")}

    def start_load(self, running, task, cpus=None):
        cpus = cpus or {self.load_cpu}
        return subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, sorted(cpus))), self.load, self.task(running, task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def timed(self, running, task, cpus=None):
        """Runs a task for a given time. Returns the answer and the other load of the machine."""
        began, before, threads = time.monotonic(), MachineTime.now(running), running.threads()
        load = self.start_load(running, task, cpus)
        try:
            output, errors = load.communicate(timeout=LOAD_TIMEOUT)
        except BaseException:
            load.kill()
            load.wait()
            raise
        answer = self.answer(running, load, output, errors)
        answer["foreign"] = round(MachineTime.now(running).foreign_since(before), 4)
        answer["threads"] = thread_times(threads, running.threads())
        answer["took_seconds"] = round(time.monotonic() - began, 2)
        return answer

    def counted(self, running, task):
        """Runs a task, and counts what the proxy asks of the kernel in all of that time. RuntimeError if perf cannot."""
        pids = ",".join(map(str, running.pids()))
        counter = subprocess.Popen(["perf", "stat", "-x", ",", *(f"-e{event}" for event in COUNTED.values()), "-p", pids],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        # It says nothing when it has begun.
        time.sleep(ATTACH_SECONDS)
        try:
            if counter.poll() is None:
                answer = self.timed(running, task)
        finally:
            counter.send_signal(signal.SIGINT)
            _, text = counter.communicate(timeout=LOAD_TIMEOUT)
        counts = {line.split(",")[2]: line.split(",")[0] for line in text.splitlines() if line.count(",") > 2}
        if not all(counts.get(event, "").isdigit() for event in COUNTED.values()):
            raise RuntimeError(f"perf cannot count here, which takes root or kernel.perf_event_paranoid = -1; leave out the work"
                               f" \"{works.COUNTS}\":\n{text}")
        return {"total": answer["total"]} | {name: int(counts[event]) for name, event in COUNTED.items()}

    def answer(self, running, load, output, errors):
        running.check()
        if load.returncode != 0:
            raise RuntimeError(f"{running.proxy.label}: {errors.strip() or f'load ended with {load.returncode}'}\n"
                               f"the task: {load.args[-1]}")
        return json.loads(output.splitlines()[-1])

    def open_idle(self, running, connections, size):
        """Opens connections, echoes a message on each, and leaves them open."""
        task = {"work": "idle", "connections": connections, "size": size}
        if running.setting.side == proxies.TUNNEL:
            task["tunnels"] = -(-connections // works.STREAMS_OF_A_TUNNEL)
        load = self.start_load(running, task)
        if not load.stdout.readline():
            output, errors = load.communicate(timeout=LOAD_TIMEOUT)
            self.answer(running, load, output, errors)
        return load

    def close_idle(self, running, load):
        output, errors = load.communicate("\n", timeout=LOAD_TIMEOUT)
        return self.answer(running, load, output, errors)


class MachineTime:
    """CPU seconds of the whole machine, and of the two programs that should use it."""

    @classmethod
    def now(cls, running):
        self = cls()
        with open("/proc/stat", encoding="ascii") as stat:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
        self.busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        self.at = time.monotonic()
        self.ours = cpu_time(running)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            self.ours += usage.ru_utime + usage.ru_stime
        return self

    def foreign_since(self, before):
        """The share of one CPU that other processes or the hypervisor have used."""
        return ((self.busy - before.busy) - (self.ours - before.ours)) / (self.at - before.at)


def cpu_time(running):
    """CPU seconds of a proxy so far."""
    # As in the load generator: clock_getcpuclockid converts a pid to ~pid << 3 | 2.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in running.pids())


def kernel_memory():
    """Bytes that the kernel of this machine uses for its objects, stacks, page tables and TCP's buffers."""
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in meminfo}
    with open("/proc/net/sockstat", encoding="ascii") as sockstat:
        tcp = next(line for line in sockstat if line.startswith("TCP:")).split()
    buffers = int(tcp[tcp.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")
    return sizes["Slab"] + sizes["KernelStack"] + sizes["PageTables"] + buffers


def thread_times(before, after):
    """CPU nanoseconds of the threads that have used any, by name and id."""
    times = {}
    for thread, (name, total) in after.items():
        used = total - before.get(thread, (name, 0))[1]
        if used > 0:
            times[f"{name}/{thread}"] = used
    # stunnel has one thread for each connection; few of them matter.
    return dict(sorted(times.items(), key=lambda item: -item[1])[:8])


def memory(bench, start, chosen, connections, size, log, side):
    """Bytes per idle connection of each proxy, and the rest after they are closed.

    `start` returns a new process. The time after the close is waited for only once, for all proxies.
    """
    waiting = []
    try:
        for proxy in chosen:
            running = start(proxy, side=side)
            waiting.append((running, None, None))
            bench.close_idle(running, bench.open_idle(running, 16, size))
            time.sleep(SETTLE_SECONDS)
            sample = {"proxy": proxy.name, "side": side, "connections": connections, "size": size}
            sample["before"], kernel, cpu = running.memory(), kernel_memory(), cpu_time(running)
            load = bench.open_idle(running, connections, size)
            sample["opening_cpu_ns"] = round((cpu_time(running) - cpu) * 1e9)
            time.sleep(SETTLE_SECONDS)
            sample["open"] = running.memory()
            sample["kernel"] = kernel_memory() - kernel
            sample |= bench.close_idle(running, load)
            waiting[-1] = (running, sample, time.monotonic() + AFTER_SECONDS)
            log(proxy, f"{per_connection(sample):7.1f} KiB")
        for running, sample, due in waiting:
            time.sleep(max(0, due - time.monotonic()))
            running.check()
            sample["after"] = running.memory()
            yield sample
    finally:
        for running, *_ in waiting:
            running.stop()


def per_connection(sample):
    """KiB of a proxy's memory for each of its idle connections."""
    return (sample["open"]["own"] - sample["before"]["own"]) / sample["connections"] / 1024
