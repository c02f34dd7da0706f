// Line charts of ten minutes, with axes and units, in SVG.

const SVG = "http://www.w3.org/2000/svg";
const SPAN = 600_000;
const MARGIN = { top: 10, right: 8, bottom: 22, left: 64 };

function svg(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Round values for an axis from 0 to at least `most`. Bytes have powers of two. */
function ticks(most, base) {
  const target = Math.max(most, base === 1024 ? 1024 : 4) / 4;
  const power = base ** Math.floor(Math.log(target) / Math.log(base));
  const steps = base === 1024 ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] : [1, 2, 5, 10];
  const step = power * steps.find((it) => it * power >= target * 0.999);
  return [0, 1, 2, 3, 4].map((it) => it * step).filter((it, at, all) => at < 2 || all[at - 1] < most);
}

class Chart {
  /** `series` are names; `base` is 10, or 1024 for bytes; `format` writes a value with its unit. */
  constructor(figure, { title, unit, series, base, format }) {
    Object.assign(this, { figure, title, series, base, format, points: [] });
    this.values = series.map((_, at) => make("span", { className: at === 0 ? "first" : "second" }));
    const heading = make("span", {}, make("strong", {}, title), ` ${unit}`);
    const legend = make("span", { className: "legend" }, ...this.values);
    this.svg = svg("svg", { role: "img" });
    figure.append(make("figcaption", {}, heading, legend), this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.read(null));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  /** `points` are `{time, values}`, the oldest first. */
  show(points) {
    this.points = points;
    this.draw();
  }

  draw() {
    const width = this.svg.clientWidth;
    const height = this.svg.clientHeight;
    if (width === 0) return;
    const plot = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    const end = this.points.length > 0 ? this.points.at(-1).time : serverNow();
    const most = Math.max(0, ...this.points.flatMap((it) => it.values));
    const axis = ticks(most, this.base);
    const top = axis.at(-1);
    this.x = (time) => plot.right - ((end - time) / SPAN) * (plot.right - plot.left);
    this.y = (value) => plot.bottom - (value / top) * (plot.bottom - plot.top);
    this.plot = plot;
    const parts = [];
    for (const value of axis) {
      const y = Math.round(this.y(value)) + 0.5;
      parts.push(svg("line", { class: "grid", x1: plot.left, x2: plot.right, y1: y, y2: y }));
      parts.push(svg("text", { x: plot.left - 8, y: y + 4, "text-anchor": "end" }, this.format(value)));
    }
    for (const [minutes, anchor] of [[10, "start"], [5, "middle"], [0, "end"]]) {
      const label = minutes === 0 ? "now" : `${minutes} min ago`;
      const x = this.x(end - minutes * 60_000);
      parts.push(svg("text", { x, y: height - 5, "text-anchor": anchor }, label));
    }
    parts.push(...this.lines());
    this.cursor = svg("line", { class: "cursor", y1: plot.top, y2: plot.bottom, visibility: "hidden" });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...parts, this.cursor);
    this.read(null);
    this.svg.setAttribute("aria-label", this.summary());
  }

  lines() {
    if (this.points.length === 0) return [];
    return this.series.flatMap((_, at) => {
      const spot = (it) => `${this.x(it.time).toFixed(1)} ${this.y(it.values[at]).toFixed(1)}`;
      const line = `M${this.points.map(spot).join("L")}`;
      const name = at === 0 ? "first" : "second";
      const drawn = [svg("path", { class: `line ${name}`, d: line })];
      if (at === 0) {
        const [from, to] = [this.points[0], this.points.at(-1)].map((it) => this.x(it.time).toFixed(1));
        drawn.unshift(svg("path", { class: "area", d: `${line}L${to} ${this.plot.bottom}L${from} ${this.plot.bottom}Z` }));
      }
      return drawn;
    });
  }

  point(event) {
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const distance = (it) => Math.abs(this.x(it.time) - x);
    this.read(this.points.reduce((best, it) => (best === null || distance(it) < distance(best) ? it : best), null));
  }

  /** Writes the values of one moment into the legend: of the cursor, or the latest. */
  read(point) {
    const shown = point ?? this.points.at(-1);
    this.series.forEach((name, at) => {
      const value = shown ? this.format(shown.values[at]) : "–";
      const when = point && at === 0 ? `${MOMENT.format(point.time).split(", ").at(-1)} · ` : "";
      say(this.values[at], `${when}${name} ${value}`);
    });
    this.cursor?.setAttribute("visibility", point ? "visible" : "hidden");
    if (point) {
      this.cursor.setAttribute("x1", this.x(point.time));
      this.cursor.setAttribute("x2", this.x(point.time));
    }
  }

  summary() {
    if (this.points.length === 0) return `${this.title}: no data yet`;
    const of = (name, at) => {
      const highest = Math.max(...this.points.map((it) => it.values[at]));
      return `${name}: now ${this.format(this.points.at(-1).values[at])}, highest ${this.format(highest)}`;
    };
    return `${this.title} in the last ten minutes. ${this.series.map(of).join(". ")}.`;
  }
}

/** The points of two values of each sample. */
function levels(samples, names) {
  return samples.map((it) => ({ time: Date.parse(it.time), values: names.map((name) => it[name]) }));
}

/** The points of two counts per second, from each sample to the next. */
function rates(samples, names) {
  return samples.slice(1).map((it, at) => {
    const before = samples[at];
    const [from, time] = [Date.parse(before.time), Date.parse(it.time)];
    const seconds = Math.max(0.001, (time - from) / 1000);
    return { time, values: names.map((name) => Math.max(0, it[name] - before[name]) / seconds) };
  });
}
