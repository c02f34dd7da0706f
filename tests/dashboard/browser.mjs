// A browser with one page of the dashboard, and clients of Vestibule.

import fs from "node:fs";
import net from "node:net";
import tls from "node:tls";
import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const { ADMIN, TLS, PLAIN, CERTS, STRANGER } = process.env;
export const URL_OF_PAGE = `http://${ADMIN}/`;
const MOST = 45_000;

const path = process.env.PATH.split(":").map((it) => `${it}/chromium`).find((it) => fs.existsSync(it));
const browser = await chromium.launch({
  executablePath: path,
  // As root there is no sandbox, and in a container little shared memory.
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

/** Opens the dashboard. What the console complains of is in `complaints`. */
export async function open({ width = 1280, height = 900, scheme = "light", scripts = [], url = URL_OF_PAGE, before } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: "reduce" });
  context.setDefaultTimeout(MOST);
  for (const script of scripts) await context.addInitScript(script);
  const page = await context.newPage();
  page.complaints = [];
  page.writes = [];
  page.reads = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.complaints.push(message.text());
  });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("request", (request) => {
    (request.method() === "GET" ? page.reads : page.writes).push(`${request.method()} ${request.url()}`);
  });
  await before?.(page);
  await page.goto(url);
  if (url === URL_OF_PAGE) await says(page, "#live-text", "Live");
  return page;
}

export const close = () => browser.close();

/** Waits until the text of an element contains `text`, or matches it. */
export async function says(page, selector, text) {
  const wanted = text instanceof RegExp ? { source: text.source } : { part: text };
  try {
    await page.waitForFunction(
      ({ selector, source, part }) => {
        const text = document.querySelector(selector)?.textContent ?? "";
        return part === undefined ? new RegExp(source).test(text) : text.includes(part);
      },
      { selector, ...wanted },
    );
  } catch (error) {
    const found = await page.locator(selector).allTextContents();
    throw new Error(`${selector} does not say ${text} but ${JSON.stringify(found)}`, { cause: error });
  }
}

/** Waits until `condition`, a function in the page, returns true. */
export const until = (page, condition, argument) => page.waitForFunction(condition, argument);

export const rows = (page) => page.locator("#rows tbody tr");

/** Waits until the table has this many rows. */
export const rowCount = (page, number) =>
  until(page, (number) => document.querySelectorAll("#rows tbody tr").length === number, number);

export const bodies = (page, name) => page.locator(`#rows td[data-name="${name}"]`).allInnerTexts();

/** A connection that has sent `size` bytes and received them again. */
export async function connect({ size = 5, plain = false, identity = null } = {}) {
  const certificate = identity && {
    cert: fs.readFileSync(`${identity}.pem`),
    key: fs.readFileSync(`${identity}-key.pem`),
  };
  const [host, port] = (plain ? PLAIN : TLS).split(":");
  const options = { host, port: Number(port), servername: "localhost", ca: fs.readFileSync(`${CERTS}/ca.pem`), ...certificate };
  const socket = plain ? net.connect(options) : tls.connect(options);
  socket.on("error", () => {});
  await once(socket, plain ? "connect" : "secureConnect");
  socket.write(Buffer.alloc(size));
  let received = 0;
  await new Promise((resolve) => {
    socket.on("data", (data) => {
      received += data.length;
      if (received === size) resolve();
    });
  });
  socket.ended = new Promise((resolve) => socket.on("close", resolve));
  return socket;
}

export const all = (number, options) => Promise.all(Array.from({ length: number }, () => connect(options)));

/** A client that speaks no TLS. */
export async function junk() {
  const [host, port] = TLS.split(":");
  const socket = net.connect({ host, port: Number(port) }, () => socket.write("GET / HTTP/1.1\r\n\r\n"));
  socket.on("error", () => {});
  socket.resume();
  await once(socket, "close");
}

export const stranger = STRANGER;

/** What the server says of itself. */
export async function status() {
  const answer = await fetch(`${URL_OF_PAGE}v1/status`);
  return answer.json();
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Asks the test to do something with the server, and waits until it has. */
export async function request(what) {
  console.log(`please ${what}`);
  assert.equal((await answers.next()).value, what);
}

export const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
