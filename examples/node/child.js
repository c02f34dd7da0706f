// Serves the sockets that worker.js passes on: greets each WebSocket with its connection's id, then echoes.
// A plain HTTP request gets the connection's facts.
//
// The server never listens. It is an ordinary http.Server all the same: any framework that works on one
// works here.

import http from 'node:http';
import { WebSocketServer } from 'ws';

const REQUEST_TIME = 10_000; // ms from the hand-over to a complete request
const MESSAGE_BYTES = 1024 * 1024;
// ms. Finds the clients that are gone without a word, and keeps the quiet ones from Vestibule's timeouts.idle.
const HEARTBEAT = 30_000;
const STOP_TIME = 5_000; // ms for clients to answer our close; below worker.js's own

const connections = new Map(); // socket to { facts, timer }
let stopping = false;

if (!process.send) {
  console.error('child.js: started by worker.js, not by hand');
  process.exit(2);
}

// ---- The connections

const server = http.createServer((request, response) => {
  // Answered when it is all read: a Unix socket closed with bytes unread resets its peer.
  request.resume().on('end', () => answer(request, response));
});

// A client that has sent its request and closed its side waits for the answer; by default Node drops it.
server.httpAllowHalfOpen = true;

function answer(request, response) {
  const connection = connections.get(request.socket);
  if (!connection) return; // the client left in the meantime
  const { facts, timer } = connection;
  clearTimeout(timer);
  const body = `${JSON.stringify(facts, null, 2)}\n`;
  response.writeHead(200, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    // One request a connection: http.Server bounds slow requests only once it listens, and REQUEST_TIME
    // is for the first alone.
    connection: 'close',
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

const sockets = new WebSocketServer({ server, maxPayload: MESSAGE_BYTES });

sockets.on('connection', (ws, request) => {
  const { facts, timer } = connections.get(request.socket);
  clearTimeout(timer);
  ws.alive = true;
  ws.on('pong', () => (ws.alive = true));
  ws.on('error', () => {}); // a broken frame or a reset; 'close' follows
  ws.on('message', (data, isBinary) => {
    // One at a time: a client that sends and does not read must not fill our memory.
    ws.pause();
    ws.send(data, { binary: isBinary }, () => ws.resume());
  });
  ws.send(`hello ${facts.id}`);
  if (stopping) ws.close(1001);
});

setInterval(() => {
  for (const ws of sockets.clients) {
    if (ws.isPaused) continue; // its pong may be waiting unread behind an echo
    if (!ws.alive) {
      ws.terminate();
      continue;
    }
    ws.alive = false;
    ws.ping();
  }
}, HEARTBEAT).unref();

// ---- The hand-over

process.on('message', ({ type, facts }, socket) => {
  if (type === 'serve') serve(facts, socket);
  if (type === 'stop') stop();
});

function serve(facts, socket) {
  tell({ type: 'received', id: facts.id });
  if (!socket) {
    tell({ type: 'ended', id: facts.id }); // closed on its way here
    return;
  }
  const timer = setTimeout(() => socket.destroy(), REQUEST_TIME);
  connections.set(socket, { facts, timer });
  socket.once('close', () => {
    clearTimeout(timer);
    connections.delete(socket);
    tell({ type: 'ended', id: facts.id });
    endIfDone();
  });
  socket.allowHalfOpen = true; // as http.Server has it for the sockets it accepts
  // At once, before the event loop can read: every byte goes to the HTTP parser.
  server.emit('connection', socket);
}

function tell(message) {
  if (process.connected) process.send(message, () => {});
}

// ---- The end

// A Ctrl-C reaches the whole process group: worker.js decides, and says 'stop'. Without it, the signal does.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => process.connected || stop());
}
// If worker.js dies, what is open goes on, and the process ends by itself with the last of it.

function stop() {
  if (stopping) return;
  stopping = true;
  for (const ws of sockets.clients) ws.close(1001); // "going away": clients know to connect again
  setTimeout(() => {
    for (const socket of connections.keys()) socket.destroy();
  }, STOP_TIME).unref();
  endIfDone();
}

function endIfDone() {
  if (stopping && connections.size === 0) process.exit();
}
