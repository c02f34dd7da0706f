"""The sections of the report about bulk: CPU time, bytes per second, and who was busy."""

import works

HEAD = ["", "CPU ms/GB", "GB/s for a full core", "GB/s of wall time", "proxy busy", "load busy", "context switches/GB"]


def sections(page, table):
    """Bulk with the load as the other side of the work, and bulk that saturates the proxy."""
    parts = [closed_loop(page, table), saturated(page, table)]
    return "\n\n".join(part for part in parts if part)


def closed_loop(page, table):
    text = page.section(
        "Bulk", works.BULK, "CPU ms of the proxy for 10⁹ bytes of payload; both ways: for the sum of both directions. Four connections. The load"
        " seals and opens what it sends and receives, and compares every byte: beside a fast proxy it is the slower side.")
    over_tcp = page.columns(works.over_tcp(works.BULK))
    if over_tcp:
        text += "\n\nThe same with a backend behind TCP:\n\n" + over_tcp
    for figure, words in (("rate", "GB per second of wall time:"), ("together", "CPU ms of the proxy and the load together for 10⁹ bytes:")):
        chosen = [work for work in works.BULK + works.over_tcp(works.BULK) if page.has(f"{work.name} {figure}")]
        if not chosen:
            continue
        scale = 1e-3 if figure == "rate" else 1
        rows = [[about["label"]] + [page.scaled(f"{work.name} {figure}", name, scale) for work in chosen] for name, about in page.proxies.items()]
        text += f"\n\n{words}\n\n" + table([""] + [f"{work.title}, {'TCP' if work.backend == works.TCP else 'Unix'}" for work in chosen], rows)
    return text


def saturated(page, table):
    parts = []
    for work in works.SATURATED:
        for one in (work, *works.over_tcp([work])):
            names = [name for name in page.proxies if (one.name, name) in page.found]
            if not names:
                continue
            rows = [[page.proxies[name]["label"], page.cell(one.name, name), page.scaled(f"{one.name} core", name, 1),
                     page.scaled(f"{one.name} rate", name, 1e-3), *page.busy_of(one.name, name), page.median(f"{one.name} switches", name)]
                    for name in names]
            parts.append(f"{work.title[0].upper()}{work.title[1:]}, backend behind {one.backend_title}:\n\n" + table(HEAD, rows))
    if not parts:
        return ""
    return ("## Bulk that saturates the proxy\n\nFour connections. The load is never the slower side: it discards what arrives without opening it, and sends what"
            " was sealed before. So the proxy is busy all the time, and its pieces are as large as it makes them.\n\n" + "\n\n".join(parts))


def counts(page, table):
    """What the proxy asks of the kernel."""
    found = {(sample["work"], sample["proxy"]): sample for sample in page.results.get("counts", [])}
    chosen = [work for work in works.COUNTED if any(work.name == name for name, _ in found)]
    if not chosen:
        return ""
    names = [name for name in page.proxies if any((work.name, name) in found for work in chosen)]
    rows = [[work.name, *(pair(work, found.get((work.name, name))) for name in names)] for work in chosen]
    return ("## System calls and wake-ups\n\nSystem calls of the proxy / wake-ups that it causes, for each GB or each round trip.\n\n"
            + table(["", *(page.proxies[name]["label"] for name in names)], rows))


def pair(work, sample):
    if not sample:
        return "–"
    per = works.pieces(work, sample["total"])
    return " / ".join(f"{sample[kind] / per:,.{0 if work.count == 'bytes' else 2}f}" for kind in ("system_calls", "wake_ups"))
