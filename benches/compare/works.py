"""The works that every proxy performs, and the figure for each of them."""

from dataclasses import dataclass, field, replace

from proxies import BOTH, CLIENT, SERVER, TUNNEL


UNIX, TCP = "unix", "tcp"
P256, P384, RSA = "p256", "p384", "rsa2048"
# For works that are variations of others.
MAIN = ("vestibule", "haproxy", "nginx", "envoy", "haproxy-plain")


@dataclass(frozen=True)
class Work:
    """A task for the load generator, and the computation of its figure."""

    name: str  # on the command line and in the results
    title: str
    unit: str  # of the CPU time per piece of work
    count: str  # the field of the answer with the amount of work
    scale: float  # from nanoseconds per piece to `unit`
    task: dict = field(default_factory=dict)
    side: str = SERVER  # the side of the proxy with TLS
    few: bool = False  # only with those of MAIN
    alone: bool = False  # only with Vestibule, in comparison with itself
    certificate: str = P256  # the kind of the proxy's
    backend: str = UNIX  # the socket that the proxy dials

    @property
    def backend_title(self):
        return "TCP" if self.backend == TCP else "a Unix socket"

    @property
    def needs_tls(self):
        """Whether it needs TLS: without TLS, it would be identical to another work."""
        return not {"sessions", "tls", "groups"}.isdisjoint(self.task) or self.certificate != P256 or self.side != SERVER

    @property
    def undone(self):
        """What to say instead of a figure, if the work was not done as named."""
        return "not resumed" if "sessions" in self.task else "not offered"

    def figure(self, sample):
        """CPU time of the proxy per piece of work; None if the work was not done as named."""
        if self.task.get("sessions") == "resumed" and not resumed(sample):
            return None
        if self.task.get("groups") == "hybrid" and sample["hybrid"] < sample["connections"]:
            return None
        return sample["proxy_cpu_ns"] / sample[self.count] * self.scale


def resumed(sample):
    """Whether the handshakes of a sample resumed sessions, if they should."""
    share = sample["resumed"] / sample["connections"]
    if 0.01 < share < 0.99:
        raise RuntimeError(f"{sample['proxy']} resumes {share:.0%} of its sessions, which is neither")
    return share >= 0.99


def _handshake(name, title, **task):
    return Work(name, title, "µs", "connections", 1e-3, {"work": "handshakes", "connections": 16, **task})


def _bulk(name, title, work):
    # ns per byte equals s per GB.
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
# The load is never the slower side: it opens nothing, and has sealed everything before.
SATURATED = [
    _bulk("saturated-to-client", "to the client", "saturated_to_client"),
    _bulk("saturated-from-client", "from the client", "saturated_from_client"),
]
ECHO = [
    _echo(size, label, connections)
    for connections in (1, 64)
    for size, label in ((64, "64 B"), (1024, "1 KiB"), (16384, "16 KiB"))
]


def over_tcp(some):
    """The same works with a backend behind TCP."""
    return [replace(work, name=f"{work.name}-tcp", backend=TCP, few=work.few or work.task.get("size") in (64, 16384)) for work in some]


def _with(connections, work):
    """The same work with another number of connections."""
    title = f"{connections:,} connection{'s' if connections > 1 else ''}"
    return replace(work, name=f"{work.name.removesuffix('-64')}-{connections}", title=title, few=True,
                   task=work.task | {"connections": connections})


# The works of the table about the number of connections, by the work that they vary.
ACTIVE = {
    "full-1.3": [_with(1, HANDSHAKES[0])],
    # Bulk not with a thousand: the sockets take gigabytes before as much goes out as comes in.
    "saturated-to-client": [_with(count, SATURATED[0]) for count in (1, 64)],
    "from-client": [_with(count, BULK[1]) for count in (1, 64)],
    "echo-1KiB-64": [_with(count, ECHO[4]) for count in (4, 1000)],
}
# Full handshakes with other keys and key exchanges than those of HANDSHAKES.
KEYS = [
    _handshake("full-1.3-rsa2048", "full, RSA-2048"),
    _handshake("full-1.3-p384", "full, P-384"),
    _handshake("full-1.3-hybrid", "full, X25519MLKEM768", groups="hybrid"),
]
KEYS = [replace(work, few=True, certificate={"full-1.3-rsa2048": RSA, "full-1.3-p384": P384}.get(work.name, P256)) for work in KEYS]
OVER_TCP = over_tcp(HANDSHAKES[:2] + BULK + SATURATED + ECHO)


def _beside(side, name):
    """The works that are also measured with TLS on other sides."""
    chosen = [HANDSHAKES[0], *BULK, ECHO[4]]
    return [replace(work, name=f"{name}-{work.name}", side=side) for work in chosen]


CLIENT_MODE = _beside(CLIENT, "client-mode")
TLS_TO_TLS = _beside(BOTH, "tls-to-tls")


def _in_tunnels(work, tunnels=1, name=None, title=None, alone=False, **task):
    """The same work, with connections that are streams."""
    task = work.task | {"tunnels": tunnels} | task
    return replace(work, name=f"tunnel-{name or work.name}", title=title or work.title, task=task, side=TUNNEL, alone=alone)


# What the hundredth stream of a tunnel does while the others echo; the name of the load generator for it.
BESIDE = {
    "stalled-to-client": ("one that its client does not read", "unread_by_client"),
    "stalled-from-client": ("one that its backend does not read", "unread_by_backend"),
    "beside-to-client": ("one with bulk to the client", "to_client"),
    "beside-from-client": ("one with bulk from the client", "from_client"),
}
# The time there and back between client and proxy.
DELAYS = (2, 10, 50)
FAR = {
    ms: [_in_tunnels(work, name=f"{work.name}-{ms}ms", title=f"{work.title}, {ms} ms", connections=1, one_way_ms=ms // 2, alone=True) for work in BULK[:2]]
    for ms in DELAYS
}
TUNNELS = [
    _in_tunnels(HANDSHAKES[0], name="open", title="open and close"),
    _in_tunnels(BULK[0]),
    _in_tunnels(BULK[1]),
    _in_tunnels(ECHO[4], title="1 KiB, 64 streams"),
    *(work for pair in FAR.values() for work in pair),
    *(_in_tunnels(ECHO[4], name=name, title=title, connections=99, beside=beside, alone=True) for name, (title, beside) in BESIDE.items()),
]
SIDES = {SERVER: HANDSHAKES + BULK + SATURATED + ECHO + OVER_TCP + KEYS + [work for some in ACTIVE.values() for work in some], CLIENT: CLIENT_MODE, BOTH: TLS_TO_TLS, TUNNEL: TUNNELS}
TIMED = [work for some in SIDES.values() for work in some]

# Without CPU time: memory, by the side of TLS; and Vestibule alone on one and on two cores.
IDLE = "idle"
IDLES = {SERVER: IDLE, CLIENT: f"client-mode-{IDLE}", BOTH: f"tls-to-tls-{IDLE}", TUNNEL: f"tunnel-{IDLE}"}
# The number of streams for each tunnel that is held open.
STREAMS_OF_A_TUNNEL = 100
SCALING = "scaling"
COUNTED = BULK + SATURATED + over_tcp(BULK + SATURATED) + [ECHO[4], *over_tcp([ECHO[4]])]
COUNTS = "counts"
CERTIFICATES = "certificates"
NAMES = [work.name for work in TIMED] + [*IDLES.values(), SCALING, COUNTS, CERTIFICATES]


def pieces(work, total):
    """The number that counts of a work are divided by: GB, or round trips."""
    return total / 1e9 if work.count == "bytes" else total


def by_name(name):
    """The timed work with this name."""
    return next(work for work in TIMED if work.name == name)


def _scaled(name, title, connections):
    work = by_name(name)
    task = work.task | {"connections": connections}
    return replace(work, title=f"{title}, {connections} connections", task=task)


# More connections than elsewhere, for one worker and for two: a hash distributes them over the workers,
# and both cores must be busy all the time. With 64 echoing connections they are not: three threads wait
# for each other and leave up to a quarter of two cores idle, depending on the scheduler. The measurement
# would then show the cost of wake-ups.
SCALED = {
    work.name: work
    for work in [
        _scaled("full-1.3", "full, TLS 1.3", 32),
        _scaled("to-client", "to the client", 32),
        _scaled("echo-1KiB-64", "1 KiB", 256),
    ]
}
