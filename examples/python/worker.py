#!/usr/bin/env python3
"""Serves the connections that Vestibule hands over, with an ordinary http.server handler.

    worker.py --gate PATH --backend NAME [--concurrency N]

Each of N threads asks the gate for a connection (ACCEPT), serves it to its end and asks for the
next one. FactsHandler answers every GET with what Vestibule knows of the connection; put your own
handler in its place. Anything that takes a connected socket will do.

Standard library only, Python 3.9 or later.
"""

import argparse
import json
import os
import random
import select
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

CONNECT_SECONDS = 5.0
LINE_SECONDS = 5.0  # from the first byte of the gate's answer to its newline
LINE_BYTES = 64 * 1024  # far above any facts; bounds what a wrong socket can make us hold
RETRY_SECONDS = (0.1, 5.0)  # first and longest pause while the gate is away
LINGER_SECONDS = 2.0  # for the client's last bytes after ours; see close_gently


class FactsHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with the facts of the connection."""

    protocol_version = "HTTP/1.1"
    server_version = "vestibule-example"
    sys_version = ""
    # For each read and write. It is also how long an idle client can delay a stop, and one thread.
    timeout = 15

    def __init__(self, sock, facts, stop):
        self.facts = facts
        self.stop = stop
        super().__init__(sock, peer_address(facts), None)

    def do_GET(self):
        body = json.dumps(self.facts, indent=2).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.stop.is_set():
            self.send_header("Connection", "close")  # ends the connection after this answer
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_request(self, code="-", size="-"):
        pass  # Vestibule's audit log has one line a connection; stderr is for errors

    def log_error(self, format, *args):
        pass  # bad requests and timeouts are the client's doing, and it must not fill our log

    def log_message(self, format, *args):
        complain(f"connection {short_id(self.facts)}: {format % args}")


class Worker:
    """Takes connections of one backend from the gate until it is told to stop."""

    def __init__(self, gate, backend, stop):
        self.gate = gate
        self.request = b"ACCEPT %s\n" % backend.encode("ascii")
        self.stop = stop
        self.failed = False
        self._lock = threading.Lock()
        self._trouble = None  # the last one told, so that N threads and many retries say it once

    def run(self):
        """One thread's life: accept, serve, again."""
        pause, longest = RETRY_SECONDS
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                self.serve_next()
                pause = RETRY_SECONDS[0]
                continue
            except Refused as refusal:
                if refusal.is_final():
                    self.tell_once(f"gate {self.gate}: {refusal}")
                    self.failed = True
                    self.stop.set()
                    return
                self.tell_once(f"gate {self.gate}: {refusal}; retrying")
            except OSError as error:
                self.tell_once(f"gate {self.gate}: {error.strerror or error}; retrying")
            except GateClosed as error:
                self.tell_once(f"gate {self.gate}: {error}; retrying")
            if time.monotonic() - began > longest:
                pause = RETRY_SECONDS[0]  # it had been waiting in good order: this is news, not a series
            # Spread, so that the workers of a restarted gate do not come back in one wave.
            self.stop.wait(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, longest)

    def serve_next(self):
        """Waits for one connection and serves it. Raises only for what is wrong with the gate."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(CONNECT_SECONDS)
            sock.connect(self.gate)
            sock.sendall(self.request)
            # An answer that came together with the signal is still served: the gate has given it to us.
            if not self.stop.wait(None, sock):
                return
            sock.settimeout(LINE_SECONDS)
            facts = parse_answer(read_line(sock))
            self._trouble = None  # not before: a wait that a stop has ended says nothing of the gate
            sock.settimeout(None)
            self.serve(sock, facts)

    def serve(self, sock, facts):
        try:
            FactsHandler(sock, facts, self.stop)
        except (ConnectionError, socket.timeout):
            return  # the client left, or stopped reading: its own affair
        except Exception as error:  # a bug in the handler costs this connection, not the worker
            complain(f"connection {short_id(facts)}: {type(error).__name__}: {error}")
            return
        close_gently(sock)

    def tell_once(self, trouble):
        with self._lock:
            if trouble != self._trouble:
                self._trouble = trouble
                complain(trouble)


class Stop:
    """A flag that a poll() can wait for. It is set from a signal handler, where an Event may deadlock."""

    def __init__(self):
        self._reader, self._writer = os.pipe()

    def set(self):
        os.write(self._writer, b"\0")  # never read back: once set, every wait sees it

    def is_set(self):
        return not self.wait(0)

    def wait(self, seconds, sock=None):
        """Until the flag is set, `sock` has something to read, or time is up; False only for the flag."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if sock is not None:
            poll.register(sock, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
        return self._reader not in ready or (sock is not None and sock.fileno() in ready)


class GateClosed(Exception):
    """The gate ended the connection, or sent what is no answer."""


class Refused(Exception):
    """The gate answered NO."""

    def __init__(self, reason):
        super().__init__(f"refused: {reason}")
        self.reason = reason

    def is_final(self):
        # Draining and busy pass. The others say that the name, the user or this program is wrong.
        return self.reason in ("forbidden", "malformed", "unknown")


def read_line(sock):
    """Reads to the first newline and not one byte further: what follows is the client's stream."""
    line = bytearray()
    while len(line) < LINE_BYTES:
        ahead = sock.recv(4096, socket.MSG_PEEK)
        if not ahead:
            raise GateClosed("closed without an answer")
        # Without a newline all of it is line: taking it keeps the next peek from seeing it again.
        line += sock.recv(ahead.find(b"\n") + 1 or len(ahead))
        if line.endswith(b"\n"):
            return bytes(line[:-1])
    raise GateClosed(f"answer longer than {LINE_BYTES} bytes")


def parse_answer(line):
    """The facts of an OK."""
    verdict, _, rest = line.partition(b" ")
    if verdict == b"NO":
        raise Refused(rest.decode("ascii", "replace"))
    try:
        facts = json.loads(rest) if verdict == b"OK" else None
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise GateClosed(f"not an answer of a gate: {line[:40]!r}")
    return facts


def close_gently(sock):
    """Ends our side, then waits a little for the client's end.

    A Unix socket that is closed with bytes unread resets its peer, and Vestibule passes a reset on:
    the client could lose the end of an answer because of, say, a request body that nobody read.
    """
    deadline = time.monotonic() + LINGER_SECONDS
    try:
        sock.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(64 * 1024):
                return
    except OSError:
        pass  # gone already, or out of time


def peer_address(facts):
    """(host, port), as http.server wants it; port 0 for clients without one (Unix listeners)."""
    host, colon, port = (facts.get("peer") or "").rpartition(":")
    if colon and port.isdecimal():
        return host.strip("[]"), int(port)
    return facts.get("peer") or "", 0


def short_id(facts):
    return str(facts.get("id"))[:8]  # enough to find it; an id claims its connection, so not all of it


def complain(text):
    # Some of the text comes from clients: one line stays one line, and no escape reaches a terminal.
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    # One write, so that the threads' lines do not mix.
    sys.stderr.write(f"worker.py: {text}\n")
    sys.stderr.flush()


def backend_name(text):
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError("a backend's name is printable ASCII without spaces")
    return text


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def main():
    parser = argparse.ArgumentParser(description="Serve the connections of a Vestibule backend.")
    parser.add_argument("--gate", required=True, metavar="PATH", help="Vestibule's gate socket")
    parser.add_argument("--backend", required=True, metavar="NAME", type=backend_name)
    parser.add_argument("--concurrency", type=positive, default=8, metavar="N",
                        help="connections served at a time (8)")
    args = parser.parse_args()

    stop = Stop()

    def on_signal(number, _frame):
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)

    worker = Worker(args.gate, args.backend, stop)
    threads = [threading.Thread(target=worker.run) for _ in range(args.concurrency)]
    for thread in threads:
        thread.start()
    stop.wait(None)  # the main thread's only work: signals are handled here
    for thread in threads:
        thread.join()
    return 1 if worker.failed else 0


if __name__ == "__main__":
    sys.exit(main())
