// Asks the server while the page is visible, and shows what it answers.

const STATUS_EVERY = 2000;
const HISTORY_EVERY = 5000;
const GIVE_UP = 5000;
const EVENTS_AGAIN = 10_000;
const MOST_EVENTS = 50;
const MOST_LINES = 40;

/** An answer of the API. Throws an Error with its status, 0 if there was no answer. */
async function ask(path, options = {}) {
  const signal = AbortSignal.timeout(GIVE_UP);
  const answer = await fetch(path, { ...options, signal, cache: "no-store" }).catch(() => null);
  if (answer === null) throw Object.assign(new Error("No answer from Vestibule"), { status: 0 });
  const date = Date.parse(answer.headers.get("date") ?? "");
  // The header has whole seconds.
  if (Math.abs(date + 500 - Date.now()) > 2500) clockOffset = date + 500 - Date.now();
  const body = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body;
  const message = body?.error?.message ?? `Vestibule answered with status ${answer.status}`;
  throw Object.assign(new Error(message), { status: answer.status });
}

const state = { status: null, since: null, lostSince: null, historyAt: 0, samples: [], notice: "" };

// --- The loop ------------------------------------------------------------------------------------

let timer = null;
let isAsking = false;
let isWanted = false;

/** One round now; if one is under way, another one after it. */
async function round() {
  if (isAsking) {
    isWanted = true;
    return;
  }
  clearTimeout(timer);
  isAsking = true;
  isWanted = false;
  try {
    const wants = [ask("/v1/status").then(showStatus), table.load()];
    if (Date.now() - state.historyAt >= HISTORY_EVERY - 500) wants.push(ask("/v1/history").then(showHistory));
    await Promise.all(wants);
    found();
  } catch (error) {
    lost(error);
  }
  isAsking = false;
  if (document.hidden) return;
  timer = setTimeout(round, isWanted ? 0 : STATUS_EVERY);
}

function found() {
  state.since = Date.now();
  if (state.lostSince !== null) {
    state.lostSince = null;
    say(byId("lost"), "");
    document.body.classList.remove("is-lost");
    follow();
  }
  document.body.classList.add("is-live");
  showLive();
}

function lost(error) {
  state.lostSince ??= Date.now();
  document.body.classList.add("is-lost");
  document.body.classList.remove("is-live");
  const last = state.since === null ? "" : ` What this page shows is from ${MOMENT.format(state.since)}.`;
  let why = error.status > 0 ? `Vestibule refuses to answer: ${error.message}.` : "No answer from Vestibule.";
  if (error.status === undefined) {
    console.error(error);
    why = "This page cannot show what Vestibule answers: reload it.";
  }
  // The same text again is not announced again.
  say(byId("lost"), `${why}${last} Trying again every two seconds.`);
  showLive();
}

function showLive() {
  let text = "Connecting…";
  if (document.hidden) text = "Paused";
  else if (state.lostSince !== null) text = `No answer for ${duration((Date.now() - state.lostSince) / 1000)}`;
  else if (state.since !== null) text = "Live";
  say(byId("live-text"), text);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    clearTimeout(sourceTimer);
    source?.close();
    showLive();
  } else {
    follow();
    round();
  }
});

setInterval(() => {
  if (document.hidden) return;
  showLive();
  if (state.lostSince === null) refreshTimes();
}, 1000);

// --- Events --------------------------------------------------------------------------------------

let source = null;
let sourceTimer = null;

function follow() {
  source?.close();
  clearTimeout(sourceTimer);
  source = new EventSource("/v1/events?kinds=refuse,limit,reload,backend");
  for (const kind of ["refuse", "limit", "reload", "backend"]) {
    source.addEventListener(kind, (event) => {
      addEvent(JSON.parse(event.data));
      if (kind !== "refuse") round();
    });
  }
  source.addEventListener("error", () => {
    // After a refusal, for example without a free place, the browser gives up.
    if (source.readyState === EventSource.CLOSED) sourceTimer = setTimeout(follow, EVENTS_AGAIN);
  });
}

function addEvent(event) {
  const list = byId("events");
  const [title, tone, detail] = describe(event);
  const text = make("span", {}, make("strong", { className: tone }, title));
  if (detail) text.append(make("span", { className: "soft" }, ` ${detail}`));
  list.prepend(make("li", {}, timeElement(event.time), text));
  while (list.children.length > MOST_EVENTS) list.lastChild.remove();
}

/** A title, its class, and details. */
function describe(event) {
  const example = event.peer ? `${event.clients === 1 ? "from" : "for example"} ${event.peer}` : null;
  const at = event.listener ? `at ${event.listener}` : null;
  const sentence = (...parts) => parts.filter(Boolean).join(", ");
  switch (event.event) {
    case "refuse": {
      const title = `${plural(event.clients, "client", "clients")} not admitted: ${plain(event.outcome)}`;
      return [title, "", sentence(event.cause, at, example)];
    }
    case "limit":
      return [`${event.limit} is reached`, "warn", sentence(plural(event.clients, "client refused", "clients refused"), at, example)];
    case "reload": {
      if (event.result !== "ok") return ["Reload failed", "bad", event.error];
      const revoked = event.revoked > 0 ? `${plural(event.revoked, "connection", "connections")} not admitted any more` : null;
      return ["Configuration reloaded", "good", revoked];
    }
    default: {
      const { backend, address, state: order, health, reason } = event;
      const ordered = order !== "up" ? `, ${ORDERS[order] ?? order}` : "";
      return [`${backend}: ${address} is ${health}${ordered}`, health === "up" && !ordered ? "good" : "bad", reason];
    }
  }
}

// --- Status --------------------------------------------------------------------------------------

function showStatus(status) {
  const before = state.status;
  state.status = status;
  const { version, pid, started } = status;
  if (before?.pid !== pid || before?.state !== status.state) {
    const parts = [`Version ${version}, process ${pid}, started `, timeElement(started)];
    if (status.state === "draining") parts.push(" · ", make("strong", { className: "warn" }, "draining"));
    byId("instance").replaceChildren(...parts);
  }
  table.writes = status.writes_allowed === true;
  table.offer("listener", status.listeners.map((it) => it.name));
  table.offer("backend", status.backends.map((it) => it.name));
  say(byId("notice"), notices(status, before).join(" "));
  showTiles();
  showBackends(status.backends);
  showLimits(status);
  showOutcomes(status.connections.ended);
  showCertificates(status.certificates);
  showListeners(status);
}

let firstVersion = null;

function notices(status) {
  firstVersion ??= status.version;
  const all = [];
  if (firstVersion !== status.version) all.push(`Vestibule is now version ${status.version}: reload this page.`);
  if (status.state === "draining") all.push("Vestibule drains: it accepts no new connections.");
  if (status.reloads.last?.result === "failed") {
    all.push(`The last reload failed, and the old configuration stays: ${status.reloads.last.problems.join("; ")}`);
  }
  if (state.notice) all.push(state.notice);
  return all;
}

function tell(text) {
  state.notice = text;
  setTimeout(() => {
    if (state.notice === text) state.notice = "";
  }, 8000);
  round();
}

/** Tiles by name, made once. */
const tiles = new Map();

function tile(name, [value, unit], note) {
  if (!tiles.has(name)) {
    const parts = { value: make("span", {}), unit: make("span", { className: "unit" }), note: make("dd", { className: "note" }) };
    tiles.set(name, parts);
    const shown = make("dd", { className: "value" }, parts.value, parts.unit);
    byId("tiles").append(make("div", { className: "tile" }, make("dt", {}, name), shown, parts.note));
  }
  const parts = tiles.get(name);
  say(parts.value, value);
  say(parts.unit, unit);
  say(parts.note, note);
}

function showTiles() {
  const { status, samples } = state;
  if (!status) return;
  const limit = (name) => status.limits.find((it) => it.name === name)?.limit;
  const of = (name) => (typeof limit(name) === "number" ? `of ${count(limit(name))}` : "no limit");
  tile("Open connections", [count(status.connections.open), ""], of("connections"));
  tile("Pending", [count(status.connections.pending), ""], of("pending"));
  const last = (name) => rates(samples.slice(-2), [name]).at(-1)?.values[0];
  const perSecond = (name) => (last(name) === undefined ? ["–", ""] : [short(last(name)), "/s"]);
  const flow = (name) => {
    if (last(name) === undefined) return ["–", ""];
    const [value, unit] = bytesParts(last(name));
    return [value, `${unit}/s`];
  };
  const total = (name) => (samples.length > 0 ? count(samples.at(-1)[name]) : "–");
  tile("Handshakes", perSecond("handshakes"), `${total("handshakes")} in all`);
  tile("Not admitted", perSecond("refused"), `${total("refused")} in all`);
  const size = (name) => (samples.length > 0 ? bytes(samples.at(-1)[name]) : "–");
  tile("From clients", flow("bytes_in"), `${size("bytes_in")} in all`);
  tile("To clients", flow("bytes_out"), `${size("bytes_out")} in all`);
}

/** Replaces what a card shows if it differs: a selection and the place of a scroll stay. */
function fill(id, ...children) {
  const card = byId(id);
  const next = make("div", {}, ...children);
  const now = make("div", {}, ...[...card.childNodes].map((it) => it.cloneNode(true)));
  if (!next.isEqualNode(now)) card.replaceChildren(...next.childNodes);
}

function moreThan(all) {
  return all.length > MOST_LINES ? make("p", { className: "soft" }, `and ${count(all.length - MOST_LINES)} more`) : null;
}

function grid(columns, rows, caption) {
  const head = columns.map(([name, kind]) => make("th", { scope: "col", className: kind ?? "" }, name));
  const lines = rows.map((row) => {
    const cells = row.map((cell, at) => make("td", { className: columns[at][1] ?? "" }, ...[cell].flat()));
    return make("tr", {}, ...cells);
  });
  return make("table", {}, caption, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines));
}

/** An address, or with `index` above 0 one that a host name stands for. */
function addressRow(it, index) {
  const health = it.health ?? it.state;
  const mark = make("span", { className: health === "up" ? "good" : "bad" }, `${health === "up" ? "●" : "▲"} ${health}`);
  const order = it.health && it.state !== "up" ? make("small", { className: "warn" }, ORDERS[it.state] ?? it.state) : null;
  const error = it.error ? make("small", {}, it.error) : null;
  const by = typeof it.registered_by === "number" ? make("small", {}, `registered by uid ${it.registered_by}`) : null;
  const name = index > 0 ? make("span", { className: "soft" }, `↳ ${it.address}`) : it.address;
  return [[name, error, by], [mark, order], count(it.connections)];
}

const KINDS = { dialled: "dialled", gate: "workers at the gate", echo: "built-in echo", hello: "built-in hello" };
const ORDERS = { drain: "no new connections", down: "out of service" };

function showBackends(backends) {
  if (backends.length === 0) return fill("backends", make("p", { className: "empty" }, "No backend is configured."));
  const parts = backends.slice(0, MOST_LINES).map((backend) => {
    const name = make("strong", {}, backend.name);
    const details = make("span", { className: "soft" }, ` ${KINDS[backend.kind] ?? backend.kind}, ${plural(backend.connections, "connection", "connections")}`);
    if (backend.addresses.length === 0) return make("p", { className: "break" }, name, details);
    const rows = backend.addresses.slice(0, MOST_LINES).flatMap((it) => [it, ...(it.resolved ?? []).slice(0, MOST_LINES)].map(addressRow));
    return grid([["Address"], ["Health"], ["Open", "number"]], rows, make("caption", {}, name, details));
  });
  return fill("backends", ...parts, moreThan(backends));
}

function meter(name, used, limit, peak, format) {
  const share = limit ? Math.min(1, used / limit) : null;
  const tone = share === null || share < 0.8 ? "" : share < 0.95 ? "warn" : "bad";
  const most = limit === null || limit === undefined ? ", no limit" : ` of ${format(limit)}`;
  const text = `${format(used)}${most}${typeof peak === "number" ? `, at most ${format(peak)} so far` : ""}`;
  const top = make("div", { className: "top" }, make("span", {}, name), make("span", { className: tone || "soft" }, text));
  if (share === null) return make("div", { className: "meter" }, top);
  const filled = make("div", { className: `fill ${tone}` });
  filled.style.width = `${share * 100}%`;
  const track = make("div", { className: "track", "aria-hidden": "true" }, filled);
  if (peak > 0) {
    const mark = make("div", { className: "peak" });
    mark.style.width = `${Math.min(1, peak / limit) * 100}%`;
    track.append(mark);
  }
  return make("div", { className: "meter" }, top, track);
}

function showLimits({ limits, memory, descriptors }) {
  const meters = limits.map((it) => meter(title(it.name), it.used, it.limit, it.peak, count));
  if (descriptors.open !== null) meters.push(meter("File descriptors", descriptors.open, descriptors.limit, null, count));
  const used = memory.used ?? memory.resident;
  if (typeof used === "number") meters.push(meter("Memory", used, memory.max, null, bytes));
  const kinds = Object.entries(memory.kinds ?? {}).filter(([, size]) => size > 0);
  kinds.sort(([, one], [, other]) => other - one);
  const facts = kinds.flatMap(([kind, size]) => [make("dt", {}, title(kind)), make("dd", {}, bytes(size))]);
  const pressure = PRESSURES[memory.pressure] ? make("p", { className: "bad" }, PRESSURES[memory.pressure]) : null;
  fill("limits", make("div", { className: "meters" }, ...meters, pressure, facts.length > 0 ? make("dl", { className: "facts small" }, ...facts) : null));
}

const PRESSURES = {
  high: "Memory is above 80 % of runtime.max_memory.",
  refusing: "Memory is short: new connections are closed.",
  shedding: "Memory is short: new connections and those that are idle longest are closed.",
};

const FAULTS = { backend_reset: 1, backend_refused: 1, backend_timeout: 1, expired: 1, shed: 1, aborted: 1 };

function showOutcomes(ended) {
  const all = Object.entries(ended).sort(([, one], [, other]) => other - one);
  if (all.length === 0) return fill("outcomes", make("p", { className: "empty" }, "No connection has ended since the start."));
  const total = all.reduce((sum, [, number]) => sum + number, 0);
  const meters = all.map(([outcome, number]) => {
    const share = number / total;
    const percent = share < 0.001 ? "under 0.1 %" : `${short(share * 100)} %`;
    const name = make("span", { className: FAULTS[outcome] ? "bad" : "" }, title(outcome));
    const top = make("div", { className: "top" }, name, make("span", {}, count(number), make("span", { className: "soft" }, ` · ${percent}`)));
    const filled = make("div", { className: FAULTS[outcome] ? "fill bad" : "fill" });
    filled.style.width = `${Math.max(0.5, share * 100)}%`;
    return make("div", { className: "meter" }, top, make("div", { className: "track", "aria-hidden": "true" }, filled));
  });
  return fill("outcomes", make("div", { className: "meters" }, ...meters));
}

function showCertificates(certificates) {
  if (certificates.length === 0) return fill("certificates", make("p", { className: "empty" }, "No listener has a certificate."));
  const rows = certificates.slice(0, MOST_LINES).map((it) => {
    const tone = it.days_left < 0 ? "bad" : it.days_left < 14 ? "warn" : "";
    const text = it.days_left < 0 ? "expired" : plural(it.days_left, "day", "days");
    const end = make("time", { dateTime: it.not_after, title: MOMENT.format(new Date(it.not_after)), className: tone }, text);
    const [first, ...others] = it.names.length > 0 ? it.names : ["no name"];
    const more = others.length > 0 ? make("small", { title: others.join("\n") }, `and ${plural(others.length, "other name", "other names")}`) : null;
    return [[first, more], it.listener, end];
  });
  return fill("certificates", grid([["Name"], ["Listener"], ["Valid for", "number"]], rows), moreThan(certificates));
}

function showListeners({ listeners, reloads }) {
  const rows = listeners.slice(0, MOST_LINES).map((it) => [it.name, it.addresses.join(", "), it.tls ? "TLS" : "plaintext"]);
  const parts = [grid([["Listener"], ["Address"], ["Clients"]], rows), moreThan(listeners)];
  const done = `${plural(reloads.succeeded, "reload", "reloads")} since the start, ${count(reloads.failed)} failed.`;
  const summary = make("p", { className: "soft small" }, done);
  if (reloads.last) summary.append(" The last one ", timeElement(reloads.last.time), reloads.last.result === "ok" ? "." : " failed.");
  fill("listeners", ...parts, summary);
}

function showHistory({ samples }) {
  state.historyAt = Date.now();
  state.samples = samples;
  charts.connections.show(levels(samples, ["open", "pending"]));
  charts.handshakes.show(rates(samples, ["handshakes", "refused"]));
  charts.bytes.show(rates(samples, ["bytes_in", "bytes_out"]));
  showTiles();
}

// --- Start ---------------------------------------------------------------------------------------

const charts = {
  connections: new Chart(byId("chart-connections"), { title: "Connections", unit: "", series: ["open", "pending"], base: 10, format: short }),
  handshakes: new Chart(byId("chart-handshakes"), { title: "Handshakes", unit: "per second", series: ["done", "not admitted"], base: 10, format: (it) => `${short(it)}/s` }),
  bytes: new Chart(byId("chart-bytes"), { title: "Payload", unit: "per second", series: ["from clients", "to clients"], base: 1024, format: (it) => `${bytes(it)}/s` }),
};
const table = new ConnectionTable(new Killer(tell));
table.changed = round;
if (!document.hidden) follow();
round();
