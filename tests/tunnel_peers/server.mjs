// Takes tunnels, as Vestibule's peer: a stream for an authority is a TCP connection to the address given for it.
//
//     node server.mjs CA CERTIFICATE KEY AUTHORITY=PORT ...
//
// Prints its port and what happens, a line each. A line on stdin: it says GOAWAY and lets the streams end.
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';

const [ca, cert, key, ...targets] = process.argv.slice(2);
const ports = new Map(targets.map((it) => it.split('=')));
const { NGHTTP2_CONNECT_ERROR, NGHTTP2_NO_ERROR } = http2.constants;
const sessions = new Set();
const server = http2.createSecureServer({
  ca: fs.readFileSync(ca),
  cert: fs.readFileSync(cert),
  key: fs.readFileSync(key),
  requestCert: true,
  rejectUnauthorized: true,
});
server.on('session', (session) => {
  console.log('session');
  sessions.add(session);
  session.on('close', () => sessions.delete(session));
});
server.on('stream', (stream, headers) => {
  const authority = headers[':authority'];
  stream.on('error', () => {});
  if (headers[':method'] !== 'CONNECT' || !ports.has(authority)) {
    stream.respond({ ':status': 404 }, { endStream: true });
    return;
  }
  const socket = net.connect({ host: '127.0.0.1', port: ports.get(authority), allowHalfOpen: true });
  let answered = false;
  socket.on('connect', () => {
    answered = true;
    stream.respond({ ':status': 200 });
    socket.pipe(stream);
    stream.pipe(socket);
  });
  socket.on('error', () => {
    if (answered) stream.close(NGHTTP2_CONNECT_ERROR);
    else stream.respond({ ':status': 502 }, { endStream: true });
  });
  // Otherwise the end of the pipe comes first.
  stream.on('aborted', () => socket.resetAndDestroy());
  stream.on('close', () => {
    console.log(`stream ${authority} ended with ${stream.rstCode}`);
    if (stream.rstCode !== NGHTTP2_NO_ERROR) socket.resetAndDestroy();
  });
});
process.stdin.on('data', () => {
  for (const session of sessions) session.close();
  console.log('said goaway');
});
server.listen(0, '127.0.0.1', () => console.log(`listening ${server.address().port}`));
