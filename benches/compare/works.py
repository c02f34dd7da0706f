"""The works: what is asked of every proxy, and the one figure that each of them yields."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Work:
    """A task for the load generator, and how its answer becomes a figure."""

    name: str  # on the command line and in the results
    title: str
    unit: str  # of the CPU time per piece of work
    count: str  # the part of the answer that says how much was done
    scale: float  # from nanoseconds per piece to `unit`
    task: dict = field(default_factory=dict)

    @property
    def needs_tls(self):
        """Whether it would be the same as another one, without TLS."""
        return "sessions" in self.task or "tls" in self.task

    def figure(self, sample):
        """CPU time of the proxy per piece of work; None where the work was not what it is called."""
        if self.task.get("sessions") == "resumed" and not resumed(sample):
            return None
        return sample["proxy_cpu_ns"] / sample[self.count] * self.scale


def resumed(sample):
    """Whether the handshakes of a sample that was to resume sessions did."""
    share = sample["resumed"] / sample["connections"]
    if 0.01 < share < 0.99:
        raise RuntimeError(f"{sample['proxy']} resumes {share:.0%} of its sessions, which is neither")
    return share >= 0.99


def _handshake(name, title, **task):
    return Work(name, title, "µs", "connections", 1e-3, {"work": "handshakes", "connections": 16, **task})


def _bulk(name, title, work):
    # ns per byte are s per GB.
    return Work(name, title, "ms/GB", "bytes", 1e3, {"work": work, "connections": 4})


def _echo(size, label, connections):
    name = f"echo-{label.replace(' ', '')}-{connections}"
    title = f"{label}, {connections} connection{'s' if connections > 1 else ''}"
    task = {"work": "echo", "size": size, "connections": connections}
    return Work(name, title, "µs", "round_trips", 1e-3, task)


HANDSHAKES = [
    _handshake("full-1.3", "full, TLS 1.3"),
    _handshake("resumed-1.3", "resumed, TLS 1.3", sessions="resumed"),
    _handshake("full-1.2", "full, TLS 1.2", tls="1.2"),
    _handshake("resumed-1.2", "resumed, TLS 1.2", tls="1.2", sessions="resumed"),
]
BULK = [
    _bulk("to-client", "to the client", "to_client"),
    _bulk("from-client", "from the client", "from_client"),
    _bulk("both-ways", "both ways at once", "both_ways"),
]
ECHO = [
    _echo(size, label, connections)
    for connections in (1, 64)
    for size, label in ((64, "64 B"), (1024, "1 KiB"), (16384, "16 KiB"))
]
TIMED = HANDSHAKES + BULK + ECHO

# Not timed: memory, and Vestibule alone on one core and on two.
IDLE = "idle"
SCALING = "scaling"
NAMES = [work.name for work in TIMED] + [IDLE, SCALING]


def by_name(name):
    """The timed work of that name."""
    return next(work for work in TIMED if work.name == name)


def _scaled(name, title, connections):
    work = by_name(name)
    task = work.task | {"connections": connections}
    return replace(work, title=f"{title}, {connections} connections", task=task)


# More connections than elsewhere, for one worker and for two: they are spread over the workers by a
# hash, and both cores are to be busy all the time. With 64 that echo they are not: three threads that
# wait for each other leave a quarter of two cores idle or none, as the scheduler has it, and what is
# paid for then is being woken.
SCALED = {
    work.name: work
    for work in [
        _scaled("full-1.3", "full, TLS 1.3", 32),
        _scaled("to-client", "to the client", 32),
        _scaled("echo-1KiB-64", "1 KiB", 256),
    ]
}
