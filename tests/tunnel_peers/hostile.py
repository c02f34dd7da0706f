"""Breaks the rules of HTTP/2 in every way, each in a tunnel of its own, and looks how Vestibule answers.

    python3 hostile.py PORT CA CERTIFICATE KEY

Before each case it waits for a line on stdin. Then it prints `as it should: CASE` or `WRONG: CASE: …`, and at the
end `done`.
"""

import socket
import ssl
import struct
import sys

from hpack import Decoder, Encoder
from hyperframe.frame import Frame

port, ca, certificate, key = sys.argv[1:]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 1, 1, 4, 8, 32
CODES = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
         "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"]


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def number(value):
    return struct.pack(">I", value)


def setting(name, value):
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


def connect(stream, *more, authority="echo:1", flags=END_HEADERS, first=()):
    """A request to connect, with `more` header fields."""
    fields = [*first, (":method", "CONNECT"), (":authority", authority), *more]
    return headers(stream, fields, flags)


def headers(stream, fields, flags=END_HEADERS):
    return frame(HEADERS, flags, stream, block(fields))


def block(fields):
    encoder = Encoder()
    # Without the table each block can be decoded by itself, also one that comes twice.
    encoder.header_table_size = 0
    return encoder.encode(fields, huffman=False)


class Tunnel:
    def __init__(self):
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", int(port)), timeout=50)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.decoder = Decoder()
        self.pings = 0
        self.send(PREFACE + setting(4, 1 << 20) + frame(WINDOW_UPDATE, 0, 0, number(1 << 24)))

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # It has been cut; what it was told is read.

    def frames(self):
        """Frames until the tunnel ends."""
        while True:
            head = self.exactly(9)
            if head is None:
                return
            got, length = Frame.parse_frame_header(memoryview(head))
            body = self.exactly(length)
            if body is None:
                return
            got.parse_body(memoryview(body))
            yield got

    def exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except OSError:
                return None
            if not more:
                return None
            data += more
        return data

    def fate(self, stream, rounds=2):
        """What has become of a stream, or of the tunnel, when everything before has been looked at. With none, when the stream was answered."""
        self.ping()
        fate = "well"
        for got in self.frames():
            match type(got).__name__:
                case "PingFrame" if "ACK" in got.flags and got.opaque_data == self.mark():
                    # An answer to a ping overtakes what is said about streams, but not the second answer.
                    rounds -= 1
                    if rounds == 0:
                        return fate
                    self.ping()
                case "GoAwayFrame" if got.error_code:
                    return f"tunnel: {CODES[got.error_code]}"
                case "HeadersFrame":
                    status = dict(self.decoder.decode(got.data))[":status"]
                    if got.stream_id == stream and status != "200":
                        fate = f"status {status}"
                    if got.stream_id == stream and rounds < 0:
                        return fate
                case "RstStreamFrame" if got.stream_id == stream and got.error_code:
                    fate = f"stream: {CODES[got.error_code]}"
                    if rounds < 0:
                        return fate
        return "tunnel: cut"

    def ping(self):
        self.pings += 1
        self.send(frame(PING, 0, 0, self.mark()))

    def mark(self):
        return struct.pack(">Q", self.pings)

    def echo(self, stream, data=b"word", last=False):
        """Whether the stream still sends back what it gets."""
        self.send(frame(DATA, END_STREAM if last else 0, stream, data))
        back, ended = b"", False
        for got in self.frames():
            if type(got).__name__ == "HeadersFrame":
                self.decoder.decode(got.data)
            if got.stream_id == stream and type(got).__name__ == "RstStreamFrame":
                return False
            if got.stream_id == stream and type(got).__name__ == "DataFrame":
                back += got.data
                ended = "END_STREAM" in got.flags
            if back == data and (ended or not last):
                return True
        return False


def sent(*parts, stream=1):
    """A case in which these bytes are all that is sent."""
    def run(tunnel):
        tunnel.send(b"".join(parts))
        return tunnel.fate(stream)
    return run


def asked(*parts, stream=1):
    """A case in which these bytes are a request, and its answer is what comes of it."""
    def run(tunnel):
        tunnel.send(b"".join(parts))
        return tunnel.fate(stream, rounds=0)
    return run


def within(*parts):
    """A case in which these bytes come after the answer of stream 1."""
    def run(tunnel):
        tunnel.send(connect(1))
        assert tunnel.echo(1)
        tunnel.send(b"".join(parts))
        return tunnel.fate(1)
    return run


def ended(*parts):
    """A case in which these bytes come after the client has ended its direction of stream 1."""
    def run(tunnel):
        tunnel.send(connect(1, authority="nobody:1") + frame(DATA, END_STREAM, 1, b"last"))
        tunnel.send(b"".join(parts))
        return tunnel.fate(1)
    return run


def goaway_in_the_middle(tunnel):
    tunnel.send(connect(1) + connect(3))
    assert tunnel.echo(1) and tunnel.echo(3)
    tunnel.send(frame(GOAWAY, 0, 0, number(0) + number(0)))
    finished = all(tunnel.echo(stream, b"after the notice", last=True) for stream in (1, 3))
    return "the streams finish" if finished else "the streams are cut"


def too_many_streams(tunnel):
    for index in range(100):
        tunnel.send(connect(2 * index + 1))
    assert tunnel.echo(1) and tunnel.echo(199)
    tunnel.send(connect(201))
    fate = tunnel.fate(201)
    # The others have taken no harm.
    assert all(tunnel.echo(2 * index + 1, last=True) for index in range(100))
    return fate


def more_than_the_window(tunnel):
    tunnel.send(connect(1, authority="nobody:1"))
    for _ in range(100):
        tunnel.send(frame(DATA, 0, 1, bytes(16384)))
    return tunnel.fate(1)


def is_alive(tunnel):
    tunnel.send(connect(1001))
    return tunnel.echo(1001)


LARGEST = 0x7FFFFFFF
CRUMBS = [("cookie", f"crumb{index}=" + "c" * 90) for index in range(400)]


def tunnel_or_stream(*codes):
    """RFC 9113 §5.4.1: an error of a stream may be treated as one of the connection."""
    return [f"stream: {code}" for code in (*codes, "PROTOCOL_ERROR")] + tunnel_ends(*codes)


def tunnel_ends(*codes):
    """The h2 crate says PROTOCOL_ERROR in many places where there is a more specific code."""
    return [f"tunnel: {code}" for code in (*codes, "PROTOCOL_ERROR")]


# The name, what is done, and what may come of it.
CASES = [
    # Windows, RFC 9113 §6.9.
    ("a stream's window grows by zero", within(frame(WINDOW_UPDATE, 0, 1, number(0))),
     tunnel_or_stream()),
    ("the tunnel's window grows by zero", sent(frame(WINDOW_UPDATE, 0, 0, number(0))), tunnel_ends()),
    ("a stream's window overflows", within(frame(WINDOW_UPDATE, 0, 1, number(LARGEST)) * 2),
     tunnel_or_stream("FLOW_CONTROL_ERROR")),
    ("the tunnel's window overflows", sent(frame(WINDOW_UPDATE, 0, 0, number(LARGEST)) * 2),
     tunnel_ends("FLOW_CONTROL_ERROR")),
    ("a setting makes a stream's window overflow",
     within(frame(WINDOW_UPDATE, 0, 1, number(LARGEST - (1 << 20))), setting(4, LARGEST)),
     tunnel_ends("FLOW_CONTROL_ERROR")),
    ("a window update of an idle stream", sent(frame(WINDOW_UPDATE, 0, 9, number(1))), tunnel_ends()),
    ("a window update of three bytes", sent(frame(WINDOW_UPDATE, 0, 0, bytes(3))), tunnel_ends("FRAME_SIZE_ERROR")),
    ("more data than the window", more_than_the_window, tunnel_or_stream("FLOW_CONTROL_ERROR")),
    # Settings, §6.5.
    ("an initial window that is too large", sent(setting(4, 1 << 31)), tunnel_ends("FLOW_CONTROL_ERROR")),
    ("a largest frame that is too small", sent(setting(5, 16383)), tunnel_ends()),
    ("a largest frame that is too large", sent(setting(5, 1 << 24)), tunnel_ends()),
    ("a push setting of two", sent(setting(2, 2)), tunnel_ends()),
    ("settings of five bytes", sent(frame(SETTINGS, 0, 0, bytes(5))), tunnel_ends("FRAME_SIZE_ERROR")),
    ("acknowledged settings with a payload", sent(frame(SETTINGS, ACK, 0, bytes(6))), tunnel_ends("FRAME_SIZE_ERROR")),
    ("settings of a stream", sent(frame(SETTINGS, 0, 1, bytes(6))), tunnel_ends()),
    ("a setting that nobody knows", sent(setting(0x1234, 7)), ["well"]),
    ("settings that change and change", within(b"".join(setting(4, size) for size in range(0, 1 << 20, 1 << 14))),
     ["well"]),
    # Data, §6.1 and §5.1.
    ("data after the end", ended(frame(DATA, 0, 1, b"more")), tunnel_or_stream("STREAM_CLOSED")),
    ("data of an idle stream", sent(frame(DATA, 0, 5, b"x")), tunnel_ends()),
    ("data of no stream", sent(frame(DATA, 0, 0, b"x")), tunnel_ends()),
    ("data with more padding than frame", within(frame(DATA, PADDED, 1, b"\x09x")), tunnel_ends()),
    ("data that is only padding", within(frame(DATA, PADDED, 1, b"\x02\0\0")), ["well"]),
    ("data that is longer than frames may be", within(frame(DATA, 0, 1, bytes(16385))),
     tunnel_or_stream("FRAME_SIZE_ERROR")),
    # Headers, §6.2, §5.1.1, §6.10.
    ("headers of an even stream", sent(connect(2), stream=2), tunnel_ends()),
    ("headers of no stream", sent(connect(0)), tunnel_ends()),
    ("headers of a stream that was passed over", sent(connect(5), connect(3), stream=3),
     tunnel_ends("STREAM_CLOSED")),
    ("headers after the end", ended(connect(1)), tunnel_or_stream("STREAM_CLOSED")),
    ("headers with more padding than frame", sent(frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + block([]))),
     tunnel_ends("FRAME_SIZE_ERROR")),
    ("a continuation of nothing", sent(frame(CONTINUATION, END_HEADERS, 1, block([]))), tunnel_ends()),
    ("a ping within headers", sent(connect(1, flags=0), frame(PING, 0, 0, bytes(8))), tunnel_ends()),
    ("a continuation of another stream", sent(connect(1, flags=0), frame(CONTINUATION, END_HEADERS, 3)),
     tunnel_ends()),
    ("an unknown frame within headers", sent(connect(1, flags=0), frame(0x99, 0, 1)), tunnel_ends()),
    ("headers in many pieces", asked(connect(1, flags=0), frame(CONTINUATION, 0, 1) * 3,
                                     frame(CONTINUATION, END_HEADERS, 1)), ["well"]),
    ("headers that cannot be decoded", sent(frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff")),
     tunnel_ends("COMPRESSION_ERROR")),
    ("more streams than are allowed", too_many_streams, tunnel_or_stream("REFUSED_STREAM")),
    # Priorities, §5.3.2: ignored, if they have the right size.
    ("a stream that depends on itself", within(frame(PRIORITY, 0, 1, number(1) + b"\1")),
     ["well"] + tunnel_or_stream()),
    ("streams that depend on each other",
     within(frame(PRIORITY, 0, 3, number(5) + b"\1"), frame(PRIORITY, 0, 5, number(3) + b"\1")), ["well"]),
    ("a priority of four bytes", within(frame(PRIORITY, 0, 1, bytes(4))), tunnel_or_stream("FRAME_SIZE_ERROR")),
    ("a priority of no stream", sent(frame(PRIORITY, 0, 0, bytes(5))), tunnel_ends()),
    # The other frames.
    ("a notice in the middle of streams", goaway_in_the_middle, ["the streams finish"]),
    ("a notice of a stream", sent(frame(GOAWAY, 0, 1, bytes(8))), tunnel_ends()),
    ("a reset of an idle stream", sent(frame(RST_STREAM, 0, 7, number(8))), tunnel_ends()),
    ("a reset of no stream", sent(frame(RST_STREAM, 0, 0, number(8))), tunnel_ends()),
    ("a reset of three bytes", within(frame(RST_STREAM, 0, 1, bytes(3))), tunnel_ends("FRAME_SIZE_ERROR")),
    ("a promise of a client", within(frame(PUSH_PROMISE, END_HEADERS, 1, number(2) + block([(":method", "GET")]))),
     tunnel_ends()),
    ("a ping of seven bytes", sent(frame(PING, 0, 0, bytes(7))), tunnel_ends("FRAME_SIZE_ERROR")),
    ("a ping of a stream", sent(frame(PING, 0, 1, bytes(8))), tunnel_ends()),
    ("an answer to no ping", sent(frame(PING, ACK, 0, bytes(8))), ["well"]),
    ("a frame that nobody knows", within(frame(0x99, 0xFF, 1, b"what")), ["well"]),
    # Requests, §8.1 to §8.5.
    ("CONNECT with a path", asked(connect(1, first=[(":path", "/")])), tunnel_or_stream()),
    ("CONNECT with a scheme", asked(connect(1, first=[(":scheme", "https")])), tunnel_or_stream()),
    ("CONNECT with a protocol", asked(connect(1, first=[(":protocol", "websocket")])),
     tunnel_or_stream()),
    ("CONNECT without an authority", asked(headers(1, [(":method", "CONNECT")])),
     ["status 400"] + tunnel_or_stream()),
    ("CONNECT to a user at a host", asked(connect(1, authority="me@echo:1")),
     ["status 400"] + tunnel_or_stream()),
    ("CONNECT to a host and port that no route names", asked(connect(1, authority="[2001:db8::1]:1")), ["status 404"]),
    ("no method", asked(headers(1, [(":authority", "echo:1")])), tunnel_or_stream()),
    ("a method twice", asked(connect(1, first=[(":method", "CONNECT")])), tunnel_or_stream()),
    ("a pseudo-header behind a header", asked(headers(1, [(":method", "CONNECT"), ("a", "b"), (":authority", "echo:1")])),
     tunnel_or_stream()),
    ("a pseudo-header that nobody knows", asked(connect(1, first=[(":what", "x")])), tunnel_or_stream()),
    ("a status in a request", asked(connect(1, first=[(":status", "100")])), tunnel_or_stream()),
    ("a header name in upper case", asked(connect(1, ("Upper", "x"))), tunnel_or_stream()),
    ("a header name with a space", asked(connect(1, ("a b", "x"))), tunnel_or_stream()),
    ("a header value with a line feed", asked(connect(1, ("a", "x\r\ny"))), tunnel_or_stream()),
    ("a header of HTTP/1", asked(connect(1, ("connection", "close"))), tunnel_or_stream()),
    ("cookies below the limit", asked(connect(1, *CRUMBS[:100])), ["well"]),
    ("cookies above the limit", asked(connect(1, *CRUMBS[:80], flags=0),
                                     *(frame(CONTINUATION, END_HEADERS if part == 3 else 0, 1,
                                             block(CRUMBS[80 * part:80 * part + 80])) for part in range(1, 4))),
     ["status 431"] + tunnel_or_stream("ENHANCE_YOUR_CALM", "REFUSED_STREAM")),
    ("trailers", within(headers(1, [("a", "trailer")], END_HEADERS | END_STREAM)),
     tunnel_or_stream("CONNECT_ERROR", "CANCEL")),
    ("trailers without an end", within(headers(1, [("a", "trailer")])), tunnel_or_stream()),
    ("a second request on a stream", within(connect(1)), tunnel_or_stream()),
]

for name, run, allowed in CASES:
    if not sys.stdin.readline():
        sys.exit("the test has ended")
    tunnel = Tunnel()
    fate = run(tunnel)
    if fate not in allowed:
        print(f"WRONG: {name}: {fate}, and not one of {allowed}", flush=True)
    elif not fate.startswith("tunnel") and fate != "the streams finish" and not is_alive(tunnel):
        print(f"WRONG: {name}: the tunnel is dead", flush=True)
    else:
        print(f"as it should: {name}", flush=True)
    tunnel.socket.close()
print("done", flush=True)
