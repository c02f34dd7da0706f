// Carries TCP connections in streams of one HTTP/2 session, as the client of a tunnel.
//
//     node client.mjs URL CA CERTIFICATE KEY AUTHORITY ...
//
// Listens on a free port for each authority, and prints what happens, a line each.
import fs from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';

const [url, ca, cert, key, ...authorities] = process.argv.slice(2);
const { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR } = http2.constants;
const session = http2.connect(url, {
  ca: fs.readFileSync(ca),
  cert: fs.readFileSync(cert),
  key: fs.readFileSync(key),
});
session.on('goaway', (code) => console.log(`goaway ${code}`));
session.on('error', (error) => console.log(`session failed: ${error.code}`));

function carry(socket, authority) {
  const stream = session.request({ ':method': 'CONNECT', ':authority': authority }, { endStream: false });
  stream.on('response', (headers) => {
    const status = headers[':status'];
    console.log(`answer ${authority} ${status}`);
    if (status === 200) {
      socket.pipe(stream);
      stream.pipe(socket);
    } else {
      socket.destroy();
      stream.close();
    }
  });
  // What has happened is said when it closes.
  stream.on('error', () => {});
  stream.on('close', () => {
    console.log(`stream ${authority} ended with ${stream.rstCode}`);
    if (stream.rstCode !== NGHTTP2_NO_ERROR) socket.resetAndDestroy();
  });
  socket.on('error', () => stream.close(NGHTTP2_CANCEL));
}

for (const authority of authorities) {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => carry(socket, authority));
  server.listen(0, '127.0.0.1', () => console.log(`listening ${authority} ${server.address().port}`));
}
