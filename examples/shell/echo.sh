#!/bin/sh
# An echo service: one `cat` for each connection. Stdin and stdout are the connection, already
# decrypted; cat ends when the client has closed its side, and so the connection ends cleanly.
set -eu
if [ $# -ne 2 ]; then
    echo "usage: echo.sh GATE BACKEND" >&2
    exit 2
fi
# exec: signals from a supervisor reach vestibule itself, which lets the running commands end.
exec vestibule claim --gate "$1" --backend "$2" -- cat
