"""The targets: how Vestibule must compare with other proxies in the same run."""

import statistics
from dataclasses import dataclass

import works

OWN = 1.15  # the maximum cost of the client side, relative to our own server side

PASS, MISS, UNKNOWN = "pass", "MISS", "not measured"


@dataclass(frozen=True)
class Row:
    """One target and its result."""

    title: str
    wanted: str
    shown: str
    verdict: str


def medians(results):
    """The median of each figure, by work and proxy. Latencies are in µs, memory is in KiB."""
    found = {}
    for sample in results["samples"]:
        work = works.by_name(sample["work"])
        key = (work.name, sample["proxy"])
        found.setdefault(key, []).append(work.figure(sample))
        if "bytes" in sample:
            # Bytes per ns are GB per s.
            found.setdefault((f"{work.name} rate", sample["proxy"]), []).append(sample["bytes"] / sample["wall_ns"] * 1e3)
            together = sample["proxy_cpu_ns"] + sample["load_cpu_ns"]
            found.setdefault((f"{work.name} together", sample["proxy"]), []).append(together / sample["bytes"] * 1e3)
            found.setdefault((f"{work.name} core", sample["proxy"]), []).append(sample["bytes"] / sample["proxy_cpu_ns"])
            if "proxy_switches" in sample:
                found.setdefault((f"{work.name} switches", sample["proxy"]), []).append(sample["proxy_switches"] / sample["bytes"] * 1e9)
        if "calm_p99_ns" in sample:
            found.setdefault((f"{work.name} calm", sample["proxy"]), []).append(sample["p99_ns"] / sample["calm_p99_ns"])
        for quantile in ("p50", "p99", "p999"):
            if f"{quantile}_ns" in sample:
                found.setdefault((f"{work.name} {quantile}", sample["proxy"]), []).append(sample[f"{quantile}_ns"] / 1e3)
    for sample in results["memory"]:
        own = {when: sample[when]["own"] / 1024 for when in ("before", "open", "after")}
        side = sample.get("side", "server")
        found.setdefault((works.IDLES[side], sample["proxy"]), []).append((own["open"] - own["before"]) / sample["connections"])
        if side != "server":
            continue
        if "kernel" in sample:
            found.setdefault((f"{works.IDLE} kernel", sample["proxy"]), []).append(sample["kernel"] / sample["connections"] / 1024)
            found.setdefault((f"{works.IDLE} opening", sample["proxy"]), []).append(sample["opening_cpu_ns"] / sample["connections"] / 1e3)
        found.setdefault(("memory before", sample["proxy"]), []).append(own["before"])
        found.setdefault(("memory after", sample["proxy"]), []).append(own["after"] - own["before"])
        found.setdefault(("rss before", sample["proxy"]), []).append(sample["before"]["rss"] / 1024)
        found.setdefault(("rss after", sample["proxy"]), []).append(sample["after"]["rss"] / 1024)
    return {key: Spread.of(values) for key, values in found.items() if None not in values}


def scaling(results):
    """The throughput of two workers relative to one, at the same CPU time for each, by work."""
    rounds = {}
    for sample in results["scaling"]:
        work = works.SCALED[sample["work"]]
        rounds.setdefault(work.name, {}).setdefault(sample["round"], {})[sample["workers"]] = work.figure(sample)
    return {name: Spread.of([2 * one[1] / one[2] for one in by.values()]) for name, by in rounds.items()}


@dataclass(frozen=True)
class Spread:
    """A median with the smallest and the largest value."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values))


def evaluate(results):
    """All targets, in order."""
    found = medians(results)
    peers = [name for name, about in results["about"]["proxies"].items()
             if about["tls"] and not name.startswith("vestibule")]

    def ratio(title, figure, reference, limit):
        ours = found.get((figure, "vestibule"))
        names = peers if reference == "best" else [reference]
        theirs = [found[figure, name].median for name in names if (figure, name) in found]
        if ours is None or not theirs:
            return Row(title, f"≤ {limit:.2f}", "", UNKNOWN)
        value = ours.median / min(theirs)
        return Row(title, f"≤ {limit:.2f}", f"{value:.2f}", PASS if value <= limit else MISS)

    def own(title, figure, *sums):
        """Relative to Vestibule's own server side: the cost of TLS towards the backend, or of both sides."""
        ours = found.get((figure, "vestibule"))
        parts = [found.get((name, "vestibule")) for name in sums]
        if ours is None or None in parts:
            return Row(title, f"≤ {OWN:.2f}", "", UNKNOWN)
        value = ours.median / sum(part.median for part in parts)
        return Row(title, f"≤ {OWN:.2f}", f"{value:.2f}", PASS if value <= OWN else MISS)

    def tunnel(title, figure, reference, limit):
        """A stream of a tunnel relative to a TLS connection of Vestibule's own."""
        ours, theirs = found.get((figure, "vestibule")), found.get((reference, "vestibule"))
        if ours is None or theirs is None:
            return Row(title, f"≤ {limit:.2f}", "", UNKNOWN)
        value = ours.median / theirs.median
        return Row(title, f"≤ {limit:.2f}", f"{value:.2f}", PASS if value <= limit else MISS)

    def most(title, figure, limit, unit=""):
        """Not a ratio of two rows."""
        ours = found.get((figure, "vestibule"))
        if ours is None:
            return Row(title, f"≤ {limit:.2f}{unit}", "", UNKNOWN)
        return Row(title, f"≤ {limit:.2f}{unit}", f"{ours.median:.2f}{unit}", PASS if ours.median <= limit else MISS)

    idle = works.IDLES[works.TUNNEL]
    rows = [
        ratio("full handshake, TLS 1.3, CPU: against Envoy", "full-1.3", "envoy", 0.62),
        ratio("full handshake, TLS 1.3, CPU: against HAProxy", "full-1.3", "haproxy", 0.36),
        ratio("bulk to the client, CPU: against Envoy", "to-client", "envoy", 0.58),
        ratio("bulk from the client, CPU: against Envoy", "from-client", "envoy", 0.78),
        ratio("1 KiB echo, 64 connections, CPU: against the best peer", "echo-1KiB-64", "best", 0.85),
        ratio("1 KiB echo, 64 connections, p99: against the best peer", "echo-1KiB-64 p99", "best", 1.00),
        ratio("memory of an idle connection: against HAProxy", works.IDLE, "haproxy", 0.27),
        ratio("bulk both ways, CPU: against HAProxy without TLS", "both-ways", "haproxy-plain", 0.85),
        # In the same direction, through the same sockets: sockets are most of the cost. A server side seals what a client side opens.
        own("client mode, bulk to the client: against the server side", "client-mode-to-client", "to-client"),
        own("client mode, bulk from the client: against the server side", "client-mode-from-client", "from-client"),
        own("client mode, memory of an idle connection: against the server side", works.IDLES["client"], works.IDLE),
        own("TLS to TLS, bulk to the client: against sealing and opening", "tls-to-tls-to-client", "to-client", "from-client"),
        own("TLS to TLS, bulk from the client: against sealing and opening", "tls-to-tls-from-client", "to-client", "from-client"),
        own("TLS to TLS, memory of an idle connection: against two server sides", works.IDLES["both"], works.IDLE, works.IDLE),
        most("tunnel, memory of an idle stream", idle, 6, " KiB"),
        tunnel("tunnel, 1 KiB echo, 64 streams, CPU: against 64 TLS connections", "tunnel-echo-1KiB-64", "echo-1KiB-64", 1.6),
        tunnel("tunnel, bulk to the client, CPU: against TLS connections", "tunnel-to-client", "to-client", 1.5),
        tunnel("tunnel, bulk from the client, CPU: against TLS connections", "tunnel-from-client", "from-client", 1.5),
        tunnel("tunnel, opening a stream, CPU: against a TLS connection", "tunnel-open", "full-1.3", 0.3),
        ratio("tunnel, memory of an idle stream: against Envoy", idle, "envoy", 0.7),
        ratio("tunnel, 1 KiB echo, 64 streams, CPU: against Envoy", "tunnel-echo-1KiB-64", "envoy", 0.7),
        ratio("tunnel, bulk to the client, CPU: against Envoy", "tunnel-to-client", "envoy", 0.7),
        ratio("tunnel, bulk from the client, CPU: against Envoy", "tunnel-from-client", "envoy", 0.7),
        ratio("tunnel, opening a stream, CPU: against Envoy", "tunnel-open", "envoy", 0.7),
        most("tunnel, p99 of 99 echoes beside a stream that its client does not read: against before", "tunnel-stalled-to-client calm", 1.5),
        most("tunnel, p99 of 99 echoes beside a stream that its backend does not read: against before", "tunnel-stalled-from-client calm", 1.5),
    ]
    factors = scaling(results)
    for name, work in works.SCALED.items():
        title = f"two workers on two cores, {work.title}: against one"
        if name not in factors:
            rows.append(Row(title, "≥ 1.80", "", UNKNOWN))
            continue
        value = factors[name].median
        rows.append(Row(title, "≥ 1.80", f"{value:.2f}", PASS if value >= 1.8 else MISS))
    return rows
