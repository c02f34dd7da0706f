"""What Vestibule must show against the best of the other proxies with TLS, row by row of the same run."""

import works
from targets import MISS, PASS, UNKNOWN, Row

BULK = {"saturated-to-client": (0.60, 0.75, 1.5, 1.3), "saturated-from-client": (0.75, 0.75, 1.3, 1.3)}
ECHO = 0.75


class Best:
    """Ratios of Vestibule to the best of the peers in each figure."""

    def __init__(self, results, found):
        self.found = found
        self.peers = [name for name, about in results["about"]["proxies"].items()
                      if about["tls"] and not name.startswith("vestibule")]

    def ratio(self, figure, best=min):
        """None if it was not measured for Vestibule and one of the others."""
        ours = self.found.get((figure, "vestibule"))
        theirs = [self.found[figure, name].median for name in self.peers if (figure, name) in self.found]
        return ours.median / best(theirs) if ours and theirs else None

    def at_most(self, title, limit, *figures):
        """The largest of these ratios."""
        return row(title, "≤", limit, [self.ratio(figure) for figure in figures], max)

    def at_least(self, title, limit, *figures):
        """The smallest of these ratios, of figures that are better if they are greater."""
        return row(title, "≥", limit, [self.ratio(figure, max) for figure in figures], min)


def row(title, sign, limit, values, worst):
    wanted = f"{sign} {limit:.2f}"
    if None in values:
        return Row(title, wanted, "", UNKNOWN)
    value = worst(values)
    return Row(title, wanted, f"{value:.2f}", PASS if worst(value, limit) == limit else MISS)


def evaluate(results, found):
    """All rows, in order."""
    best = Best(results, found)
    rows = [against_envoy(found, "full handshake", "full-1.3"), against_envoy(found, "resumed handshake", "resumed-1.3")]
    for name, limits in BULK.items():
        direction = works.by_name(name).title
        for work, label, cpu, rate in zip((name, f"{name}-tcp"), ("Unix", "TCP"), limits[:2], limits[2:]):
            rows.append(best.at_most(f"saturated, {direction}, {label}: CPU", cpu, work))
            rows.append(best.at_least(f"saturated, {direction}, {label}: GB/s", rate, f"{work} rate"))
    for work in works.BULK[:2]:
        for one, label in ((work.name, "Unix"), (f"{work.name}-tcp", "TCP")):
            rows.append(best.at_most(f"closed loop, {work.title}, {label}: CPU", 0.75, one))
            rows.append(best.at_least(f"closed loop, {work.title}, {label}: GB/s", 1.0, f"{one} rate"))
    for connections in (1, 64):
        some = [work for work in works.ECHO if work.task["connections"] == connections]
        for chosen, label in ((some, "Unix"), (works.over_tcp(some), "TCP")):
            title = f"echo, {connections} connection{'s' if connections > 1 else ''}, {label}, the worst of 64 B, 1 KiB and 16 KiB"
            rows.append(best.at_most(f"{title}: CPU", ECHO, *(work.name for work in chosen)))
            for quantile in ("p50", "p99"):
                rows.append(best.at_most(f"{title}: {quantile}", 1.0, *(f"{work.name} {quantile}" for work in chosen)))
    haproxy = [found.get((works.IDLE, name)) for name in ("vestibule", "haproxy")]
    rows.append(row("idle with traffic before, memory of the process: against HAProxy", "≤", 0.25,
                    [haproxy[0].median / haproxy[1].median if all(haproxy) else None], max))
    kernel = [found.get(("idle kernel", name)) for name in ("vestibule", "haproxy")]
    rows.append(row("idle with traffic before, memory of the kernel: against HAProxy", "≤", 1.0,
                    [kernel[0].median / kernel[1].median if all(kernel) else None], max))
    return rows


def against_envoy(found, title, figure):
    pair = [found.get((figure, name)) for name in ("vestibule", "envoy")]
    return row(f"{title}, ECDSA: CPU, against Envoy", "≤", 0.55, [pair[0].median / pair[1].median if all(pair) else None], max)
