"""The report: the results as JSON and as a page of tables."""

import json
import statistics

import asked
import bulk
import certificates
import targets
import works
from plot import short

QUIET = 0.05  # share of one CPU that others use; above this the page begins with a warning

ACTIVE_TITLES = {"saturated-to-client": "Bulk to the client that saturates the proxy", "from-client": "Bulk from the client", "echo-1KiB-64": "Echo of 1 KiB"}
METHOD = (__file__.rpartition("/")[0] or ".") + "/method.md"


def as_json(results):
    """One sample in a line, so that two runs can be compared with diff."""
    parts = [f' "about": {json.dumps(results["about"], indent=1, ensure_ascii=False)}']
    for kind in ("samples", "memory", "scaling", "counts", "certificates"):
        lines = ",\n".join("  " + json.dumps(sample, ensure_ascii=False) for sample in results.get(kind, []))
        parts.append(f' "{kind}": [\n{lines}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def foreign(results):
    """The median share of one CPU that others used during the measurements."""
    shares = [sample["foreign"] for sample in results["samples"]]
    return statistics.median(shares) if shares else None


def markdown(results):
    """The whole page."""
    page = Page(results)
    with open(METHOD, encoding="utf-8") as method:
        parts = [page.head(), page.targets(), page.connections(), bulk.sections(page, table), bulk.counts(page, table), page.echo(), page.active(), page.sides(), page.tunnels(), page.memory(), certificates.section(page, table),
                 page.scaling(), method.read().strip(), page.busy(), page.machine()]
    return "\n\n".join(part for part in parts if part) + "\n"


class Page:
    """The sections of the page. A section without measurements is empty."""

    def __init__(self, results):
        self.results = results
        self.about = results["about"]
        self.proxies = self.about["proxies"]
        self.found = targets.medians(results)

    def head(self):
        about = self.about
        lines = [
            "# Performance",
            "",
            f"Vestibule and its peers on the same machine, in the same run: {about['date']}, commit `{about['commit']}`, with",
            "",
            f"    {about['command']}",
            "",
            "Each proxy has one worker on one core, the same certificate and the same backend behind"
            " a Unix socket, or TCP where it says so. The figures are the CPU time of its processes."
            " This command writes this page: do not edit it.",
            "",
            "![Bars for each proxy and figure](comparison.svg)",
        ]
        noise = foreign(self.results)
        if noise is not None and noise > QUIET:
            lines += ["", f"> **Not a quiet machine.** Other programs used {noise:.0%} of a CPU during these measurements (median);"
                      " caches and latencies show it."]
        return "\n".join(lines)

    def targets(self):
        rows = [[row.title, row.wanted, row.shown or "–", row.verdict] for row in targets.evaluate(self.results)]
        if all(row[3] == targets.UNKNOWN for row in rows):
            return ""
        head = ["", "wanted", "measured", ""]
        text = "## Targets\n\nRatios of medians of this run. GB/s are of wall time.\n\n" + table(head, rows)
        rows = [[row.title, row.wanted, row.shown or "–", row.verdict] for row in asked.evaluate(self.results, self.found)]
        if all(row[3] == targets.UNKNOWN for row in rows):
            return text
        return text + ("\n\nVestibule against the best of the other proxies with TLS, which may be another one in each row. Closed loop: the load"
                       " seals, opens and compares everything. Saturated: it does not (see below).\n\n" + table(head, rows))

    def connections(self):
        text = self.section(
            "New connections", works.HANDSHAKES,
            "CPU µs of the proxy for one connection: accept, handshake, dial the backend, one byte there and back, close in order.",
        )
        over_tcp = self.columns(works.over_tcp(works.HANDSHAKES[:2]))
        text += "\n\nThe same with a backend behind TCP:\n\n" + over_tcp if over_tcp else ""
        keys = self.columns([works.HANDSHAKES[0], *works.KEYS], works.MAIN)
        if any(self.has(work.name) for work in works.KEYS):
            text += "\n\nFull handshakes in TLS 1.3 by certificate and key exchange; the first column is ECDSA P-256 with X25519:\n\n" + keys
        first = {"full-1.3-1": "full, one at a time", "full-1.3": "full, 16 at a time", "resumed-1.3": "resumed, 16 at a time"}
        chosen = [name for name in first if self.has(f"{name} p50")]
        rows = [[about["label"], *(" / ".join(self.median(f"{work} {q}", name) for q in ("p50", "p99")) for work in chosen)]
                for name, about in self.proxies.items() if any((f"{work} p50", name) in self.found for work in chosen)]
        if rows:
            text += "\n\nTime to the first byte in µs, from the connect, p50 / p99, TLS 1.3:\n\n" + table(["", *(first[name] for name in chosen)], rows)
        return text

    def active(self):
        """The same works with other numbers of connections."""
        parts = []
        for name, some in works.ACTIVE.items():
            work = works.by_name(name)
            chosen = sorted([work, *some], key=lambda one: one.task["connections"])
            if name == "full-1.3" or not any(self.has(one.name) for one in some):
                continue
            rows = [[self.proxies[proxy]["label"], *(self.cell(one.name, proxy) for one in chosen)] for proxy in self.proxies if proxy in works.MAIN]
            head = ["", *(f"{one.task['connections']:,}" for one in chosen)]
            parts.append(f"{ACTIVE_TITLES[name]}, {work.unit}:\n\n" + table(head, rows))
        if not parts:
            return ""
        return "## Number of connections\n\nCPU time of the proxy by the number of active connections.\n\n" + "\n\n".join(parts)

    def echo(self):
        cost = self.section(
            "Echo", works.ECHO, "CPU µs of the proxy for a message to the backend and back. The next message follows at once.")
        parts = [cost, self.latencies(works.ECHO)]
        over_tcp = works.over_tcp(works.ECHO)
        if self.columns(over_tcp):
            parts += ["The same with a backend behind TCP:", self.columns(over_tcp), self.latencies(over_tcp)]
        return "\n\n".join(part for part in parts if part)

    def latencies(self, some):
        chosen = [work for work in some if self.has(f"{work.name} p50")]
        if not chosen:
            return ""
        rows = [
            [about["label"]] + [" / ".join(self.median(f"{work.name} {q}", name) for q in ("p50", "p99", "p999")) for work in chosen]
            for name, about in self.proxies.items()
        ]
        return "Latency of the same messages in µs, p50 / p99 / p99.9 (medians of the rounds):\n\n" + table([""] + [work.title for work in chosen], rows)

    def sides(self):
        """TLS towards the backend, with and without TLS towards the clients."""
        parts = [
            self.side("client", "Client mode", "Clients without TLS, a backend with TLS 1.3 whose certificate is verified."),
            self.side("both", "TLS to TLS", "TLS 1.3 on both sides."),
        ]
        return "\n\n".join(part for part in parts if part)

    def side(self, side, title, words):
        chosen = [work for work in works.SIDES[side] if any((work.name, name) in self.found for name in self.proxies)]
        idle = works.IDLES[side]
        names = [name for name in self.proxies if any((figure, name) in self.found for figure in [idle, *(w.name for w in chosen)])]
        if not names:
            return ""
        rows = [[self.proxies[name]["label"]] + [self.cell(work.name, name) for work in chosen] + [self.cell(idle, name)] for name in names]
        head = [""] + [f"{work.title}, {work.unit}" for work in chosen] + ["idle, KiB"]
        return f"## {title}\n\n{words} Units as above.\n\n" + table(head, rows)

    def tunnels(self):
        """Streams of tunnels beside the TLS connections that they replace."""
        columns = [(works.by_name(f"tunnel-{name}"), works.by_name(plain))
                   for name, plain in (("open", "full-1.3"), ("to-client", "to-client"), ("from-client", "from-client"), ("echo-1KiB-64", "echo-1KiB-64"))]
        names = [name for name in self.proxies if any((work.name, name) in self.found for work, _ in columns)]
        if not names:
            return ""
        idle = works.IDLES[works.TUNNEL]
        rows = []
        for name in names:
            label = self.proxies[name]["label"]
            rows.append([f"{label}, streams", *(self.cell(work.name, name) for work, _ in columns), self.cell(idle, name)])
            rows.append([f"{label}, TLS connections", *(self.cell(plain.name, name) for _, plain in columns), self.cell(works.IDLE, name)])
        head = ["", *(f"{work.title}, {work.unit}" for work, _ in columns), "idle, KiB"]
        sample = next((s for s in self.results["memory"] if s.get("side") == works.TUNNEL), {"connections": 0})
        text = ("## Tunnels\n\nA tunnel is one connection with TLS 1.3 and a client certificate; its streams are opened with CONNECT. The first four"
                " columns are of one tunnel with 16, 4, 4 and 64 streams; to open a stream is HEADERS, one byte there and back, and END_STREAM both ways."
                f" The last one is of {sample['connections']:,} streams in tunnels of {works.STREAMS_OF_A_TUNNEL}. Units as above.\n\n" + table(head, rows))
        beside = [work for work in works.TUNNELS if (f"{work.name} calm", "vestibule") in self.found]
        if beside:
            lines = [[work.title, self.median(f"{work.name} p50", "vestibule"), self.median(f"{work.name} p99", "vestibule"),
                      self.cell(f"{work.name} calm", "vestibule")] for work in beside]
            text += ("\n\n99 streams of one tunnel echo 1 KiB, one message after the other, and the hundredth does something else. Latency of the 99"
                     " in µs, and p99 relative to the same streams in the same tunnel before the hundredth was opened:\n\n"
                     + table(["the hundredth stream", "p50", "p99", "p99, relative"], lines))
        far = [[f"{ms} ms", *(self.cell(f"{work.name} rate", "vestibule") for work in pair)] for ms, pair in works.FAR.items()
               if (f"{pair[0].name} rate", "vestibule") in self.found]
        if far:
            text += ("\n\nMB per second of one stream of Vestibule's, by the time there and back between client and proxy. A stream moves one window"
                     " in that time: the client's is 4 MiB, Vestibule's grows to as much.\n\n" + table(["", "to the client", "from the client"], far))
        return text

    def memory(self):
        samples = [sample for sample in self.results["memory"] if sample.get("side", "server") == "server"]
        if not samples:
            return ""
        sample = samples[0]
        rows = [
            [about["label"], self.cell(works.IDLE, name), self.cell("idle kernel", name), self.median("idle opening", name), self.mebibytes("memory before", name), self.mebibytes("memory after", name),
             self.mebibytes("rss before", name), self.mebibytes("rss after", name)]
            for name, about in self.proxies.items()
        ]
        head = ["", "KiB for each idle connection", "kernel, KiB for each", "CPU µs to open one", "own MiB before", "own MiB more, 10 s after", "RSS MiB before", "RSS MiB after"]
        return (
            "## Memory\n\n"
            f"{sample['connections']:,} connections, each with an echo of {sample['size'] // 1024} KiB; then all are closed. \"Own\" is"
            " the anonymous and shared memory of all processes of the proxy. It does not include the pages of the program file, nor"
            " the sockets in the kernel. \"Kernel\" is what the kernel has more with the connections open: slab, stacks, page tables and"
            " TCP's buffers of the whole machine, so it includes both ends of the load, which are the same for every proxy. To open one is"
            " connect, handshake and the echo.\n\n" + table(head, rows)
        )

    def scaling(self):
        factors = targets.scaling(self.results)
        if not factors:
            return ""
        rows = []
        for name, factor in factors.items():
            work = works.SCALED[name]
            samples = [sample for sample in self.results["scaling"] if sample["work"] == name]
            figures = {n: [work.figure(s) for s in samples if s["workers"] == n] for n in (1, 2)}
            rows.append([
                work.title, *(f"{short(statistics.median(figures[n]))} {work.unit}" for n in (1, 2)),
                f"{factor.median:.2f} ({factor.low:.2f}–{factor.high:.2f})", shares(samples), *(occupied(samples, n) for n in (1, 2)),
            ])
        head = ["", "1 worker", "2 workers", "factor", "CPU time of the two", "both cores busy, 1 worker", "2 workers"]
        return (
            "## Two workers\n\n"
            "Vestibule with one worker on one core, and with two on two. With two workers on two cores, no core is left for the"
            " load. So this table compares not throughput but CPU time for each piece of work, which shows the cost of locks, shared"
            " caches and cache bouncing. The factor is twice the CPU time with one worker, divided by the CPU time with two workers. It"
            " is 2 if a second worker costs nothing. It is more than 2 if three busy threads on two cores handle larger pieces than"
            " two threads on two cores.\n\n"
            + table(head, rows)
        )

    def busy(self):
        rows = []
        for work in works.TIMED:
            samples = [sample for sample in self.results["samples"] if sample["work"] == work.name]
            if samples:
                took = sum(sample.get("took_seconds", 0) for sample in samples)
                rows.append([work.name, *(percentages(samples, kind) for kind in ("proxy_cpu_ns", "load_cpu_ns")), f"{took:.0f} s" if took else "–"])
        if not rows:
            return ""
        return ("How busy both were: CPU time divided by wall time, the smallest and the largest over all proxies and rounds; and the time of the"
                " run that each work has taken:\n\n" + table(["", "proxies", "load", "time"], rows))

    def machine(self):
        about = self.about
        rows = [[proxy["label"], proxy["version"], proxy["why"]] for proxy in self.proxies.values()]
        return (
            "## Machine and versions\n\n"
            f"{about['cpu']}, {about['cpus']} cores (proxy on {about['cpu_of_proxy']}, load on {about['cpu_of_load']}), Linux {about['kernel']},"
            f" {about['system']}, OpenSSL {about['openssl']} under HAProxy, nginx, hitch and stunnel. {about['rounds']} round{'s' if about['rounds'] > 1 else ''} of"
            f" {about['seconds']:g} s after {about['warm_up']:g} s of warm-up, {clock(about.get('took_seconds', 0))} in total."
            f" Other programs used {foreign(self.results) or 0:.0%} of a CPU in the meantime (median).\n\n"
            + table(["", "version", "configuration"], rows, "---")
        )

    def section(self, title, chosen, words):
        columns = self.columns(chosen)
        return f"## {title}\n\n{words}\n\n{columns}" if columns else ""

    def columns(self, chosen, names=None):
        """A table with the CPU time of these works, if they were measured."""
        chosen = [work for work in chosen if any(sample["work"] == work.name for sample in self.results["samples"])]
        if not chosen:
            return ""
        rows = [[about["label"]] + [self.cell(work.name, name) for work in chosen]
                for name, about in self.proxies.items() if names is None or name in names]
        return table([""] + [work.title for work in chosen], rows)

    def has(self, figure):
        return any((figure, name) in self.found for name in self.proxies)

    def cell(self, figure, name):
        """The median and, if they differ, the smallest and the largest value."""
        spread = self.found.get((figure, name))
        if spread is None:
            measured = any(s["work"] == figure and s["proxy"] == name for s in self.results["samples"])
            return works.by_name(figure).undone if measured else "–"
        if short(spread.low) == short(spread.high):
            return short(spread.median)
        return f"{short(spread.median)} ({short(spread.low)}–{short(spread.high)})"

    def median(self, figure, name):
        spread = self.found.get((figure, name))
        return f"{spread.median:,.0f}" if spread else "–"

    def scaled(self, figure, name, scale):
        """The median of a figure that has about one digit before the point."""
        spread = self.found.get((figure, name))
        return f"{spread.median * scale:,.2f}" if spread and scale * spread.median < 100 else self.median(figure, name)

    def busy_of(self, work, name):
        """How busy proxy and load were, the smallest and the largest share."""
        samples = [sample for sample in self.results["samples"] if sample["work"] == work and sample["proxy"] == name]
        return [percentages(samples, kind) for kind in ("proxy_cpu_ns", "load_cpu_ns")]

    def mebibytes(self, figure, name):
        spread = self.found.get((figure, name))
        return f"{spread.median / 1024:.1f}" if spread else "–"


def shares(samples):
    """The shares of two workers, by the CPU time of their threads."""
    parts = []
    for sample in samples:
        if sample["workers"] == 2:
            total = sum(sample["threads"].values())
            parts.append(" + ".join(f"{used / total:.0%}" for used in list(sample["threads"].values())[:2]))
    return ", ".join(parts)


def occupied(samples, workers):
    """The use of two cores by proxy and load together, over the rounds."""
    busy = [(sample["proxy_cpu_ns"] + sample["load_cpu_ns"]) / sample["wall_ns"] / 2 for sample in samples if sample["workers"] == workers]
    return f"{min(busy):.0%}–{max(busy):.0%}"


def percentages(samples, kind):
    busy = [sample[kind] / sample["wall_ns"] for sample in samples]
    return f"{min(busy):.0%}–{max(busy):.0%}"


def clock(seconds):
    return f"{seconds // 60} min {seconds % 60} s"


def table(head, rows, column="--:"):
    """A Markdown table. By default all columns except the first contain figures."""
    lines = [head, ["---"] + [column] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
