// The table of connections: the server filters, sorts and pages; this shows one page and ends connections.

const PAGE = 25;
const COLUMNS = [
  { name: "Client", cell: clientCell },
  { name: "Asks for", cell: nameCell },
  { name: "Backend", cell: backendCell },
  { name: "State", cell: (row) => make("span", { className: "state" }, row.state) },
  { name: "Age", sort: "age", number: true, cell: (row) => timeElement(row.accepted_at, "age") },
  { name: "Idle", sort: "idle", optional: "idle", number: true, cell: (row) => make("span", {}, duration(row.idle)) },
  { name: "Received", sort: "bytes_in", number: true, cell: (row) => make("span", {}, bytes(row.bytes_in)) },
  { name: "Sent", sort: "bytes_out", number: true, cell: (row) => make("span", {}, bytes(row.bytes_out)) },
];

function clientCell(row) {
  const names = row.identity ? identityNames(row.identity) : [];
  const identity = names.length > 0 ? make("small", { title: names.join("\n") }, names[0]) : null;
  return make("span", {}, row.peer ?? "local client", identity);
}

function identityNames(identity) {
  const of = (kind) => identity[kind].map((name) => `${kind}:${name}`);
  const cn = identity.cn ? [`cn:${identity.cn}`] : [];
  return [...of("uri"), ...of("dns"), ...cn, ...of("ou")];
}

function nameCell(row) {
  if (!row.tls) return make("span", { className: "soft" }, "no TLS");
  const details = [`TLS ${row.tls.version}`, row.tls.alpn, row.tls.resumed ? "resumed" : null];
  const sni = row.tls.sni ?? make("span", { className: "soft" }, "no name");
  return make("span", {}, sni, make("small", {}, details.filter(Boolean).join(" · ")));
}

function backendCell(row) {
  const listener = row.listener ? make("small", {}, `from ${row.listener}`) : null;
  return make("span", {}, row.backend ?? make("span", { className: "soft" }, "none yet"), listener);
}

class ConnectionTable {
  constructor(killer) {
    this.killer = killer;
    this.filter = {};
    this.sort = "-age";
    this.after = null;
    this.rows = new Map();
    this.body = byId("rows").tBodies[0];
    this.form = byId("filter");
    this.writes = false;
    this.shape = "";
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.apply(this.values());
    });
    this.form.addEventListener("reset", () => this.apply({}));
    for (const select of this.form.querySelectorAll("select")) {
      select.addEventListener("change", () => this.apply(this.values()));
    }
    byId("first").addEventListener("click", () => this.turn(null));
    byId("next").addEventListener("click", () => this.turn(this.page.next));
    byId("kill-all").addEventListener("click", () => this.killAll());
  }

  values() {
    const filled = [...new FormData(this.form)].map(([name, value]) => [name, value.trim()]);
    return Object.fromEntries(filled.filter(([, value]) => value !== ""));
  }

  apply(filter) {
    this.filter = filter;
    this.turn(null);
  }

  turn(after) {
    this.after = after;
    this.changed();
  }

  /** Adds the names of listeners and backends to the form. */
  offer(name, words) {
    const select = this.form.elements[name];
    const known = new Set([...select.options].map((it) => it.value));
    const added = words.filter((it) => !known.has(it)).map((it) => make("option", { value: it }, it));
    select.append(...added);
  }

  async load() {
    const query = new URLSearchParams({ ...this.filter, sort: this.sort, limit: PAGE });
    if (this.after) query.set("after", this.after);
    const asked = query.toString();
    this.asked = asked;
    try {
      const page = await ask(`/v1/connections?${query}`);
      // A later request is under way, with another filter.
      if (this.asked !== asked) return;
      say(byId("filter-problem"), "");
      this.show(page);
    } catch (error) {
      if (error.status !== 400 || this.asked !== asked) throw error;
      say(byId("filter-problem"), `${error.message}.`);
    }
  }

  show(page) {
    this.page = page;
    this.head(page.connections);
    const shown = new Set(page.connections.map((row) => row.id));
    for (const [id, element] of this.rows) {
      if (!shown.has(id)) {
        this.keepFocus(element);
        element.remove();
        this.rows.delete(id);
      }
    }
    page.connections.forEach((row, at) => {
      const before = this.body.children[at];
      const element = this.row(row);
      if (element !== before) this.body.insertBefore(element, before ?? null);
    });
    const filtered = Object.keys(this.filter).length > 0;
    const rest = page.total > page.connections.length ? `, ${count(page.connections.length)} on this page` : "";
    const match = filtered ? (page.total === 1 ? " matches" : " match") : " open";
    say(byId("count"), `${plural(page.total, "connection", "connections")}${match}${rest}`);
    byId("no-rows").hidden = page.connections.length > 0;
    say(byId("no-rows"), filtered ? "No open connection matches." : "No connection is open.");
    byId("rows").hidden = page.connections.length === 0;
    byId("pages").hidden = !page.next && !this.after;
    byId("first").disabled = !this.after;
    byId("next").disabled = !page.next;
    byId("kill-all").hidden = !this.writes || !filtered || page.total === 0;
    say(byId("kill-all"), `End ${count(page.total)} that match…`);
  }

  /** A row that goes must not take the focus along: a keyboard would start at the top again. */
  keepFocus(element) {
    if (element.contains(document.activeElement)) byId("connections").focus({ preventScroll: true });
  }

  head(rows) {
    const optional = (column) => !column.optional || rows.some((row) => typeof row[column.optional] === "number");
    const columns = COLUMNS.filter(optional);
    const shape = `${columns.map((it) => it.name)} ${this.sort} ${this.writes}`;
    if (shape === this.shape) return;
    const focused = document.activeElement?.dataset?.sort;
    this.shape = shape;
    this.columns = columns;
    const cells = columns.map((column) => this.headCell(column));
    if (this.writes) cells.push(make("th", { scope: "col", role: "columnheader" }, make("span", { className: "hidden" }, "Action")));
    byId("rows").tHead.rows[0].replaceChildren(...cells);
    this.rows.clear();
    this.body.replaceChildren();
    if (focused) byId("rows").querySelector(`[data-sort=${focused}]`)?.focus();
  }

  headCell({ name, sort, number }) {
    const cell = make("th", { scope: "col", role: "columnheader", className: number ? "number" : "" });
    if (!sort) {
      cell.append(name);
      return cell;
    }
    const button = make("button", { type: "button" }, name);
    button.dataset.sort = sort;
    if (this.sort.replace("-", "") === sort) {
      cell.setAttribute("aria-sort", this.sort.startsWith("-") ? "descending" : "ascending");
    }
    button.addEventListener("click", () => {
      this.sort = this.sort === `-${sort}` ? sort : `-${sort}`;
      this.turn(null);
    });
    cell.append(button);
    return cell;
  }

  /** The row of a connection, made once: a text that is selected and a button with the focus stay. */
  row(row) {
    let element = this.rows.get(row.id);
    if (!element) {
      element = make("tr", { role: "row" });
      element.dataset.id = row.id;
      this.rows.set(row.id, element);
      for (const { name, number } of this.columns) {
        const cell = make("td", { role: "cell", className: number ? "number" : "" });
        cell.dataset.name = name;
        element.append(cell);
      }
      if (this.writes) element.append(this.killCell(row));
    }
    this.columns.forEach((column, at) => {
      const cell = element.children[at];
      const content = column.cell(row);
      if (!cell.firstChild?.isEqualNode(content)) cell.replaceChildren(content);
    });
    return element;
  }

  killCell(row) {
    const who = row.peer ?? "local client";
    const button = make("button", { type: "button", className: "danger" }, "End…");
    button.setAttribute("aria-label", `End the connection of ${who}…`);
    button.addEventListener("click", () => this.killOne(row));
    return make("td", { role: "cell", className: "number", "data-name": "" }, button);
  }

  killOne(row) {
    const names = row.identity ? identityNames(row.identity) : [];
    this.killer.confirm({
      title: "End this connection?",
      text: "The client and the backend see a close. Bytes in transit have one second to arrive.",
      yes: "End connection",
      facts: [
        ["Client", row.peer ?? "local client"],
        ["Identity", names.join(", ") || "none"],
        ["Server name", row.tls?.sni ?? "none"],
        ["Backend", row.backend ?? "none yet"],
        ["Open since", timeElement(row.accepted_at)],
        ["Id", `${row.id.slice(0, 8)}…`],
      ],
      path: `/v1/connections/${row.id}`,
    });
  }

  killAll() {
    const total = this.page.total;
    this.killer.confirm({
      title: `End ${plural(total, "connection", "connections")}?`,
      text: "All open connections that match this filter end, also those that match by then and are not in the list yet.",
      yes: `End ${plural(total, "connection", "connections")}`,
      facts: Object.entries(this.filter).map(([name, value]) => [plain(name), value]),
      path: `/v1/connections?${new URLSearchParams(this.filter)}`,
    });
  }
}

/** Asks before it ends connections. Without the button "End", nothing is sent. */
class Killer {
  constructor(done) {
    this.dialog = byId("confirm");
    this.done = done;
    byId("confirm-no").addEventListener("click", () => this.dialog.close());
    byId("confirm-yes").addEventListener("click", () => this.end());
  }

  confirm({ title, text, yes, facts, path }) {
    this.path = path;
    say(byId("confirm-title"), title);
    say(byId("confirm-text"), text);
    say(byId("confirm-yes"), yes);
    say(byId("confirm-problem"), "");
    byId("confirm-yes").disabled = false;
    const rows = facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
    byId("confirm-facts").replaceChildren(...rows);
    this.dialog.showModal();
    byId("confirm-no").focus();
  }

  async end() {
    byId("confirm-yes").disabled = true;
    try {
      const { killed } = await ask(this.path, { method: "DELETE", headers: { "Vestibule-Admin": "1" } });
      this.dialog.close();
      this.done(`${plural(killed, "connection was", "connections were")} told to end.`);
    } catch (error) {
      const problem = error.status === 404 ? "It has ended already" : error.message;
      say(byId("confirm-problem"), `${problem}.`);
      byId("confirm-yes").disabled = false;
    }
  }
}
