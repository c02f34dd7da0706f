"""The plot: one panel for each figure, one bar for each proxy. Shorter is better in all of them."""

import html

import targets
import works

PANELS = [
    ("full-1.3", "New connection, full TLS 1.3 handshake", "CPU µs"),
    ("resumed-1.3", "New connection, resumed TLS 1.3 session", "CPU µs"),
    ("to-client", "Bulk to the client", "CPU ms/GB"),
    ("from-client", "Bulk from the client", "CPU ms/GB"),
    ("saturated-to-client", "Bulk to the client, load never the slower side", "CPU ms/GB"),
    ("saturated-from-client", "Bulk from the client, load never the slower side", "CPU ms/GB"),
    ("saturated-to-client-tcp", "The same, to the client, backend behind TCP", "CPU ms/GB"),
    ("saturated-from-client-tcp", "The same, from the client, backend behind TCP", "CPU ms/GB"),
    ("both-ways", "Bulk both ways at once", "CPU ms/GB"),
    ("echo-1KiB-64", "Echo of 1 KiB, 64 connections", "CPU µs"),
    ("echo-1KiB-64 p99", "Echo of 1 KiB, 64 connections", "p99 latency, µs"),
    (works.IDLE, "Idle connection that has carried traffic", "memory, KiB"),
]

COLUMNS = 2
PANEL_WIDTH = 470
LABELS = 172  # width of the proxies' names
VALUES = 62  # width of the figures behind the bars
BAR, GAP = 15, 7
TITLE = 46  # height of a panel's title
MARGIN = 20
HEAD = 74

STYLE = """\
  svg { color-scheme: light dark; }
  .ground { fill: #ffffff; }
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f; }
  .head { font-size: 17px; font-weight: 600; }
  .title { font-size: 13px; font-weight: 600; }
  .quiet { fill: #59636e; }
  .ours { fill: #0b7285; }
  .ours-too { fill: #74b8c4; }
  .peer { fill: #9aa4ae; }
  .reference { fill: none; stroke: #9aa4ae; stroke-width: 1.5; stroke-dasharray: 3 2; }
  .spread { stroke: #24292f; stroke-width: 1.2; }
  .cut { stroke: #ffffff; stroke-width: 3; fill: none; }
  .strong { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; }
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .ours { fill: #3bc9db; }
    .ours-too { fill: #1c7482; }
    .peer { fill: #5b646e; }
    .reference { stroke: #7d8690; }
    .spread { stroke: #e6edf3; }
    .cut { stroke: #0d1117; }
  }
"""


def draw(results):
    """The whole picture, as the text of an SVG file."""
    found = targets.medians(results)
    names = list(results["about"]["proxies"])
    panels = []
    for figure, title, unit in PANELS:
        bars = [(name, found.get((figure, name))) for name in names]
        if any(spread for _, spread in bars):
            panels.append((title, unit, bars))
    height = TITLE + len(names) * (BAR + GAP) + MARGIN
    rows = -(-len(panels) // COLUMNS)
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH
    whole = HEAD + rows * height
    about = results["about"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" width="{width}" height="{whole}" role="img"'
        f' aria-label="Vestibule and its peers: CPU time, latency and memory">',
        f"<style>\n{STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{whole}"/>',
        text(MARGIN, 32, "Vestibule and its peers", "head"),
        text(MARGIN, 53, f"One worker on one core of {about['cpu']}; shorter is better. Medians of {about['rounds']}"
             f" round{'s' if about['rounds'] > 1 else ''}, the lines on them the least and the largest. {about['date'][:10]}", "quiet"),
    ]
    for number, panel in enumerate(panels):
        x = MARGIN + number % COLUMNS * PANEL_WIDTH
        y = HEAD + number // COLUMNS * height
        parts += draw_panel(x, y, *panel, about["proxies"])
    return "\n".join(parts + ["</svg>", ""])


def draw_panel(x, y, title, unit, bars, proxies):
    # A proxy far behind would make all other bars too small: its bar is truncated.
    ends = sorted(spread.high for _, spread in bars if spread)
    longest = min(ends[-1], 1.4 * ends[-2]) if len(ends) > 1 else ends[-1]
    room = PANEL_WIDTH - LABELS - VALUES - MARGIN
    yield text(x, y + 26, title, "title")
    yield text(x + PANEL_WIDTH - MARGIN, y + 26, unit, "quiet", "end")
    for row, (name, spread) in enumerate(bars):
        top = y + TITLE - 8 + row * (BAR + GAP)
        middle = top + BAR / 2
        ours = "strong" if name == "vestibule" else ""
        yield text(x + LABELS - 8, middle + 4, proxies[name]["label"], ours, "end")
        if not spread:
            yield text(x + LABELS, middle + 4, "–", "quiet")
            continue
        length, low, high = (room * min(value / longest, 1) for value in (spread.median, spread.low, spread.high))
        yield f'<rect class="{kind(name)}" x="{x + LABELS}" y="{top}" width="{max(length, 1):.1f}" height="{BAR}" rx="2"/>'
        if high - low > 2:
            yield f'<path class="spread" d="M{x + LABELS + low:.1f} {middle}H{x + LABELS + high:.1f}"/>'
        if spread.median > longest:
            cut = x + LABELS + room - 26
            yield f'<path class="cut" d="M{cut} {top - 1}l-5 {BAR + 2}m7 0l5 {-BAR - 2}"/>'
        yield text(x + LABELS + max(length, high) + 6, middle + 4, short(spread.median), ours)


def kind(name):
    return {"vestibule": "ours", "vestibule-stream": "ours-too", "haproxy-plain": "reference"}.get(name, "peer")


def text(x, y, words, classes="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}" text-anchor="{anchor}">{html.escape(words)}</text>'


def short(value):
    """Rounds to three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}"
