// Watches a backend, claims its connections one by one, and passes each to a child process as a socket.
//
//     node worker.js GATE BACKEND
//
//     gate ── WATCH ──► OFFER <facts> ──► CLAIM <uuid> ──► OK ──► child.send(facts, socket) ──► child.js
//
// Several workers may watch one backend: the gate gives each connection to exactly one of them.

import { fork } from 'node:child_process';
import net from 'node:net';
import { fileURLToPath } from 'node:url';

const CHILDREN = 2;
const CONNECTIONS_PER_CHILD = 1000; // beyond it offers wait at the gate, where other workers see them too
const RETRY = { first: 100, longest: 5_000 }; // ms between attempts to watch while the gate is away
const CLAIM_AGAIN = 200; // ms, after a claim that the gate was too busy to hear
const ANSWER_TIME = 5_000; // ms for the gate's answer to a claim
const SILENCE = 45_000; // ms; a healthy gate sends PING every 15 s
const LINE_LENGTH = 64 * 1024; // far above any facts
const FORK_PAUSE = 1_000; // ms before a dead child is replaced: one that dies at start must not spin
const STOP_TIME = 10_000; // ms for the children to end after SIGTERM

const CHILD = fileURLToPath(new URL('./child.js', import.meta.url));

const [gate, backend, ...rest] = process.argv.slice(2);
if (!gate || !/^[\x21-\x7e]+$/.test(backend ?? '') || rest.length > 0) {
  console.error('usage: node worker.js GATE BACKEND');
  process.exit(2);
}

const offers = new Set(); // ids on offer that no claim is under way for; the gate bounds their number
const claims = new Set(); // promises of the claims under way
const children = new Set();
let watching = null;
let retrying = null;
let stopping = false;

process.on('SIGTERM', stop);
process.on('SIGINT', stop);
for (let i = 0; i < CHILDREN; i++) startChild();
watch(RETRY.first);

// ---- The offers

function watch(pause) {
  const socket = net.connect(gate);
  watching = socket;
  let trouble = 'closed';
  let partial = '';

  socket.write(`WATCH ${backend}\n`);
  socket.setEncoding('utf8');
  socket.setTimeout(SILENCE, () => socket.destroy(new Error('silent')));
  socket.on('data', (text) => {
    // Not node:readline, which also splits at U+2028: JSON may hold one, and a client may have chosen it.
    const lines = (partial + text).split('\n');
    partial = lines.pop();
    if (partial.length > LINE_LENGTH) socket.destroy(new Error('a line without an end'));
    for (const line of lines) {
      if (line.startsWith('NO ')) {
        trouble = line;
      } else {
        pause = RETRY.first;
        report(null);
        heed(line);
      }
    }
  });
  socket.on('error', (error) => (trouble = error.message));
  socket.on('close', () => {
    offers.clear();
    if (stopping) return;
    if (isFinal(trouble)) {
      console.error(`worker.js: gate ${gate}: ${trouble}`);
      process.exitCode = 1;
      stop();
      return;
    }
    report(`gate ${gate}: ${trouble}; retrying`);
    // Spread, so that the workers of a restarted gate do not come back in one wave.
    const spread = pause * (0.5 + Math.random() / 2);
    retrying = setTimeout(watch, spread, Math.min(pause * 2, RETRY.longest));
  });
}

function heed(line) {
  const [word, rest] = split(line);
  if (word === 'OFFER') {
    const facts = parse(rest);
    if (typeof facts?.id === 'string') offers.add(facts.id);
    claimMore();
  } else if (word === 'GONE') {
    offers.delete(split(rest)[0]);
  }
  // PING is a sign of life and no more; words of a later Vestibule are passed over.
}

// ---- The claims

function claimMore() {
  while (!stopping && offers.size > 0) {
    const child = freest();
    if (!child) return;
    const [id] = offers;
    offers.delete(id);
    child.load += 1; // counted from here, so that many offers at once do not all choose the same child
    const claiming = claim(id, child).finally(() => claims.delete(claiming));
    claims.add(claiming);
  }
}

async function claim(id, child) {
  let answer, socket;
  try {
    ({ answer, socket } = await ask(`CLAIM ${id}\n`));
  } catch (error) {
    answer = error.message;
  }
  const facts = answer.startsWith('OK ') ? parse(split(answer)[1]) : null;
  if (facts) {
    handOver(facts, socket, child);
    return;
  }
  socket?.destroy();
  child.load -= 1;
  // Another worker was faster, the client left, or the gate is closing: all in a day's work.
  if (answer === 'NO unknown' || answer === 'NO draining') return;
  if (answer !== 'NO busy') report(`gate ${gate}: claim: ${answer}`);
  if (isFinal(answer)) return;
  // The connection may still be waiting. If it is not, the next claim is told so.
  setTimeout(() => {
    offers.add(id);
    claimMore();
  }, CLAIM_AGAIN).unref();
}

/**
 * Sends one line to the gate and reads one line back, and not one byte more.
 *
 * What follows the newline is the client's stream and belongs to the child. Were it read here, by the
 * usual buffered reading, or by a read still under way when the socket is passed on, the child would
 * never see it. Hence reads of one byte, which `onread` can stop at the very byte: some 600 of them for
 * each connection, well under a millisecond.
 */
function ask(line) {
  return new Promise((resolve, reject) => {
    const bytes = [];
    const socket = net.connect({
      path: gate,
      onread: {
        buffer: Buffer.alloc(1),
        callback(_count, buffer) {
          if (buffer[0] === 0x0a) {
            socket.setTimeout(0);
            resolve({ answer: Buffer.from(bytes).toString(), socket });
            return false; // stops reading, for good: nothing here resumes it
          }
          bytes.push(buffer[0]);
          if (bytes.length > LINE_LENGTH) socket.destroy(new Error('a line without an end'));
          return true;
        },
      },
    });
    socket.write(line);
    socket.setTimeout(ANSWER_TIME, () => socket.destroy(new Error('no answer')));
    socket.on('error', reject); // stays for the socket's life; once resolved, rejecting does nothing
    socket.on('close', () => reject(new Error('closed without an answer')));
  });
}

// ---- The children

function startChild() {
  const child = fork(CHILD);
  child.load = 0;
  child.sent = new Map(); // id to socket: what the child has not said it received
  children.add(child);
  child.on('message', ({ type, id }) => {
    if (type === 'received') {
      release(child, id);
    } else if (type === 'ended') {
      child.load -= 1;
      claimMore();
    }
  });
  child.on('error', (error) => console.error(`worker.js: child ${child.pid}: ${error.message}`));
  // 'disconnect' too: from then on the child can be sent nothing, though it may serve on for a while.
  child.once('disconnect', () => retire(child));
  child.once('exit', (code, signal) => {
    if (!stopping) console.error(`worker.js: child ${child.pid} ended (${signal ?? code}); starting another`);
    retire(child);
  });
  claimMore();
}

function retire(child) {
  if (!children.delete(child)) return;
  // Nobody can say how much of these the child has read, so that nobody else can go on with them.
  for (const id of [...child.sent.keys()]) release(child, id);
  if (!stopping) setTimeout(() => stopping || startChild(), FORK_PAUSE);
}

function freest() {
  let best = null;
  for (const child of children) {
    if (child.connected && child.load < (best?.load ?? CONNECTIONS_PER_CHILD)) best = child;
  }
  return best;
}

function handOver(facts, socket, child) {
  child.sent.set(facts.id, socket);
  // keepOpen, because a socket on its way to a child that dies would otherwise stay open for ever.
  child.send({ type: 'serve', facts }, socket, { keepOpen: true }, (error) => {
    if (error) release(child, facts.id);
  });
}

/** Closes our copy of a socket. The connection goes on if the child has its own, and ends if not. */
function release(child, id) {
  child.sent.get(id)?.destroy();
  child.sent.delete(id);
}

// ---- The end

async function stop() {
  if (stopping) {
    for (const child of children) child.kill('SIGKILL');
    process.exit(1); // the second signal
  }
  stopping = true;
  clearTimeout(retrying);
  watching.destroy();
  await Promise.allSettled(claims); // what the gate has given us is served
  for (const child of children) child.send({ type: 'stop' }, () => {});
  setTimeout(() => {
    for (const child of children) child.kill('SIGKILL');
  }, STOP_TIME).unref();
  // The process ends by itself, with the last child.
}

// ---- Small things

/** Refusals that waiting does not cure: the name, the user or this program is wrong. */
function isFinal(answer) {
  return ['NO forbidden', 'NO malformed', 'NO unknown'].includes(answer);
}

let reported = null;

/** Says a trouble once, however many retries meet it; null: it is over. */
function report(trouble) {
  if (trouble && trouble !== reported) console.error(`worker.js: ${trouble}`);
  reported = trouble;
}

function split(line) {
  const space = line.indexOf(' ');
  return space < 0 ? [line, ''] : [line.slice(0, space), line.slice(space + 1)];
}

function parse(json) {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}
