// The dashboard in a browser: `node run.mjs SCENARIO`, started by tests/dashboard.rs.

import assert from "node:assert/strict";
import http from "node:http";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import {
  URL_OF_PAGE, all, axe, bodies, close, connect, junk, open, request, rowCount, rows, says, status, stranger, until,
} from "./browser.mjs";

const scenarios = {
  async updates() {
    const page = await open();
    await says(page, "#no-rows", "No connection is open.");
    const clients = await all(3);
    await rowCount(page, 3);
    await says(page, "#count", "3 connections open");
    await says(page, "#tiles", "of 40");
    clients[0].destroy();
    await rowCount(page, 2);
    await until(page, () => document.querySelector("#chart-connections path.line") !== null);
    await until(page, () => /open: now \d/.test(document.querySelector("#chart-connections svg").getAttribute("aria-label")));
    const ticks = await page.locator("#chart-bytes text").allTextContents();
    assert.ok(ticks.includes("10 min ago") && ticks.some((it) => it.endsWith("B/s")), `${ticks}`);
    const age = page.locator("#rows time").first();
    assert.match(await age.getAttribute("datetime"), /^\d{4}-\d\d-\d\dT/);
    assert.match(await age.getAttribute("title"), /\d{4}/);
    await junk();
    await says(page, "#events", "1 client not admitted: not TLS");
    await says(page, "#outcomes", "Not TLS");
    await says(page, "#backends", "missing");
    await says(page, "#certificates", "days");
    return page;
  },

  async sorts_filters_and_pages() {
    for (const size of [10, 3000, 200]) await connect({ size });
    await all(2, { plain: true, size: 1 });
    const page = await open();
    await rowCount(page, 5);
    const received = async (texts) => {
      await until(page, (texts) => {
        const cells = [...document.querySelectorAll('#rows td[data-name="Received"]')];
        return JSON.stringify(cells.map((it) => it.innerText)) === JSON.stringify(texts);
      }, texts);
    };
    const header = page.getByRole("columnheader", { name: "Received" });
    await header.getByRole("button").click();
    await received(["2.93 KiB", "200 B", "10 B", "1 B", "1 B"]);
    assert.equal(await header.getAttribute("aria-sort"), "descending");
    // By keyboard: the focus stays on the button.
    await page.keyboard.press("Enter");
    await received(["1 B", "1 B", "10 B", "200 B", "2.93 KiB"]);
    assert.equal(await header.getAttribute("aria-sort"), "ascending");

    await page.getByRole("combobox", { name: /^Listener/ }).selectOption("plain");
    await rowCount(page, 2);
    await says(page, "#count", "2 connections match");
    await page.getByRole("button", { name: "Clear" }).click();
    await rowCount(page, 5);
    await page.getByRole("textbox", { name: "Client address" }).fill("127.0.0.999");
    await page.keyboard.press("Enter");
    await says(page, "#filter-problem", "expected an IP address");
    await page.getByRole("textbox", { name: "Client address" }).fill("127.0.0.1");
    await page.keyboard.press("Enter");
    await says(page, "#count", "5 connections match");
    await says(page, "#filter-problem", /^$/);
    await page.getByRole("textbox", { name: "Server name" }).fill("other.example");
    await page.getByRole("button", { name: "Apply" }).click();
    await says(page, "#no-rows", "No open connection matches.");
    await page.getByRole("button", { name: "Clear" }).click();

    await all(25);
    await rowCount(page, 25);
    await says(page, "#count", "30 connections open, 25 on this page");
    const next = page.getByRole("button", { name: "Next page" });
    await next.click();
    await rowCount(page, 5);
    assert.ok(await next.isDisabled());
    await page.getByRole("button", { name: "First page" }).click();
    await rowCount(page, 25);
    // The console reports the status 400 of the wrong address.
    page.complaints = page.complaints.filter((it) => !it.includes("400"));
    return page;
  },

  async kills() {
    const clients = await all(2);
    const plain = await all(2, { plain: true });
    const page = await open();
    await rowCount(page, 4);
    const dialog = page.getByRole("dialog");
    for (const give_up of [() => page.keyboard.press("Escape"), () => page.getByRole("button", { name: "Cancel" }).click()]) {
      await page.getByRole("button", { name: /^End the connection of / }).first().click();
      await dialog.waitFor();
      assert.ok(await page.locator("#confirm-no").evaluate((it) => it === document.activeElement), "Enter must not end it");
      await give_up();
      await dialog.waitFor({ state: "hidden" });
    }
    assert.deepEqual(page.writes, []);
    assert.equal((await status()).connections.open, 4);

    const port = clients[0].localPort;
    await page.getByRole("button", { name: `End the connection of 127.0.0.1:${port}…` }).click();
    await page.getByRole("button", { name: "End connection" }).click();
    await clients[0].ended;
    await says(page, "#notice", "1 connection was told to end.");
    await rowCount(page, 3);

    await page.getByRole("combobox", { name: /^Listener/ }).selectOption("plain");
    await page.getByRole("button", { name: "End 2 that match…" }).click();
    await page.getByRole("button", { name: "End 2 connections" }).click();
    await Promise.all(plain.map((it) => it.ended));
    await page.getByRole("button", { name: "Clear" }).click();
    await rowCount(page, 1);
    const { connections } = await status();
    assert.deepEqual([connections.open, connections.ended.killed], [1, 3]);
    assert.equal(page.writes.length, 2);
    return page;
  },

  async hides() {
    await all(2);
    const page = await open();
    await rowCount(page, 2);
    await page.getByRole("combobox", { name: /^Listener/ }).selectOption("https");
    await says(page, "#count", "2 connections match");
    assert.equal(await page.getByRole("button", { name: /End/ }).count(), 0);
    return page;
  },

  async lost() {
    await all(2);
    const page = await open();
    await rowCount(page, 2);
    assert.deepEqual(page.complaints, []);
    await request("stop");
    await says(page, "#lost", /^No answer from Vestibule. What this page shows is from \d+ .* \d\d:\d\d:\d\d\./);
    await says(page, "#live-text", /^No answer for \d+ s$/);
    assert.equal(await rows(page).count(), 2, "the last data stays");
    assert.equal(await page.locator("#lost").getAttribute("aria-live"), "polite");
    await request("start");
    await says(page, "#live-text", "Live");
    await says(page, "#lost", /^$/);
    await rowCount(page, 0);
    // The refused connects in between.
    page.complaints = page.complaints.filter((it) => !it.includes("Failed to load resource: net::ERR_"));
    assert.deepEqual(page.complaints, []);
    await request("reload");
    await says(page, "#events", "Configuration reloaded");
    page.complaints = page.complaints.filter((it) => !it.includes("net::ERR_"));
    return page;
  },

  async pauses() {
    const page = await open({ before: (page) => page.clock.install() });
    const hide = (hidden) => page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
    await hide(true);
    await says(page, "#live-text", "Paused");
    await page.waitForLoadState("networkidle");
    const before = page.reads.length;
    await page.clock.runFor(600_000);
    assert.equal(page.reads.length, before);
    await hide(false);
    await says(page, "#live-text", "Live");
    assert.ok(page.reads.length > before);
    return page;
  },

  async hostile() {
    await connect({ identity: stranger });
    const page = await open();
    await rowCount(page, 1);
    const name = "cn:<img src=x onerror=window.hit=1>";
    assert.match((await bodies(page, "Client"))[0], /<img src=x onerror=window.hit=1>/);
    await page.getByRole("button", { name: /^End the connection of / }).click();
    await says(page, "#confirm-facts", name);
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("textbox", { name: "Identity" }).fill(name);
    await page.keyboard.press("Enter");
    await says(page, "#count", "1 connection matches");
    assert.equal(await page.evaluate(() => document.images.length + (window.hit ?? 0)), 0);
    return page;
  },

  async foreign() {
    const server = http.createServer((_, answer) => {
      answer.setHeader("content-type", "text/html");
      answer.end("<!doctype html><title>other</title>");
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    await connect();
    const page = await open({ url: `http://127.0.0.1:${server.address().port}/` });
    const result = await page.evaluate(async (url) => {
      const tries = [
        fetch(`${url}v1/status`),
        fetch(`${url}v1/connections?listener=https`, { method: "DELETE", headers: { "Vestibule-Admin": "1" } }),
        fetch(`${url}v1/connections?listener=https`, { method: "DELETE" }),
      ];
      const ends = await Promise.allSettled(tries);
      const events = new EventSource(`${url}v1/events`);
      await new Promise((resolve) => events.addEventListener("error", resolve));
      const frame = document.createElement("iframe");
      frame.src = url;
      document.body.append(frame);
      await new Promise((resolve) => frame.addEventListener("load", resolve));
      let seen = null;
      try {
        seen = frame.contentDocument?.title ?? null;
      } catch {
        // Another origin, as it must be.
      }
      return [...ends.map((it) => it.status), events.readyState, seen];
    }, URL_OF_PAGE);
    assert.deepEqual(result, ["rejected", "rejected", "rejected", 2, null]);
    assert.ok(page.complaints.some((it) => it.includes("frame-ancestors")), `${page.complaints}`);
    assert.equal((await status()).connections.open, 1);
    // Each of these is reported in the console.
    page.complaints = [];
    server.close();
    return page;
  },

  /** With answers that have what a busy machine would need an hour for. */
  async orders() {
    const before = async (page) => {
      await page.route("**/v1/status", async (route) => {
        const answer = await route.fetch();
        const status = await answer.json();
        const address = { connections: 3, error: null, registered_by: null, resolved: [] };
        status.backends = [{
          name: "app", kind: "dialled", connections: 9, addresses: [
            { ...address, address: "unix:/run/a.sock", state: "drain", health: "up" },
            { ...address, address: "tcp:db:5432", state: "up", health: "down", error: "Connection refused", resolved: [
              { ...address, address: "tcp:192.0.2.1:5432", state: "down", health: "up" },
            ] },
          ],
        }];
        status.memory = { ...status.memory, used: 500 * 2 ** 20, max: 512 * 2 ** 20, pressure: "shedding", kinds: { connections: 7 * 2 ** 20, other: 0 } };
        await route.fulfill({ response: answer, json: status });
      });
      await page.route("**/v1/events?*", (route) => {
        const event = { time: "2026-11-20T20:00:00.123Z", event: "backend", backend: "app", address: "tcp:db:5432", state: "drain", health: "down", reason: "by uid 0" };
        return route.fulfill({ contentType: "text/event-stream", body: `event: backend\ndata: ${JSON.stringify(event)}\n\n` });
      });
      await page.route("**/v1/connections?*", async (route) => {
        const answer = await route.fetch({ url: route.request().url().replace("idle", "age") });
        const page = await answer.json();
        for (const row of page.connections) row.idle = 75;
        await route.fulfill({ response: answer, json: page });
      });
    };
    await connect();
    const page = await open({ before });
    await says(page, "#backends", "unix:/run/a.sock● upno new connections");
    await says(page, "#backends", "↳ tcp:192.0.2.1:5432● upout of service");
    await says(page, "#backends", "tcp:db:5432Connection refused▲ down");
    await says(page, "#limits", "Memory500 MiB of 512 MiB");
    await says(page, "#limits", "those that are idle longest are closed");
    await says(page, "#limits", "Connections7 MiB");
    await says(page, "#events", "app: tcp:db:5432 is down, no new connections by uid 0");
    await page.getByRole("button", { name: "Idle" }).click();
    await until(page, () => document.querySelector("#rows th[aria-sort] button").dataset.sort === "idle");
    assert.deepEqual(await bodies(page, "Idle"), ["1 min 15 s"]);
    return page;
  },

  async looks() {
    await all(3, { size: 2000 });
    await connect({ identity: stranger, size: 40_000 });
    await all(2, { plain: true });
    await junk();
    const shots = process.env.SCREENSHOTS;
    mkdirSync(shots, { recursive: true });
    let last;
    for (const [width, height] of [[360, 760], [1600, 1000]]) {
      for (const scheme of ["light", "dark"]) {
        const page = await open({ width, height, scheme, scripts: [axe] });
        await rowCount(page, 6);
        await says(page, "#chart-connections svg", "now");
        await until(page, () => document.querySelector("#outcomes .meter") !== null);
        const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
        assert.ok(await fits(), `scrolls sideways at ${width}`);
        await page.screenshot({ path: `${shots}/${width}-${scheme}.png`, fullPage: true });
        await check(page, `${width} ${scheme}`);
        await page.getByRole("button", { name: /^End the connection of / }).first().click();
        await page.getByRole("dialog").waitFor();
        assert.ok(await fits(), `the dialog scrolls sideways at ${width}`);
        await page.screenshot({ path: `${shots}/${width}-${scheme}-dialog.png` });
        await check(page, `the dialog at ${width} ${scheme}`);
        await page.keyboard.press("Escape");
        assert.deepEqual(page.complaints, []);
        last = page;
      }
    }
    // The first stop of the keyboard leads to the connections.
    await last.reload();
    await says(last, "#live-text", "Live");
    await last.keyboard.press("Tab");
    assert.equal(await last.evaluate(() => document.activeElement.textContent), "Skip to the connections");
    await last.keyboard.press("Enter");
    await last.keyboard.press("Tab");
    assert.equal(await last.evaluate(() => document.activeElement.name), "peer");
    return last;
  },
};

/** axe finds nothing serious. */
async function check(page, where) {
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ["violations"] }));
  const grave = violations.filter((it) => ["serious", "critical"].includes(it.impact));
  const said = grave.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join(" ")}`);
  assert.deepEqual(said, [], where);
}

try {
  const page = await scenarios[process.argv[2]]();
  assert.deepEqual(page.complaints, []);
} finally {
  await close();
}
// Sockets to the server may be open.
process.exit(0);
