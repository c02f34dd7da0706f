#!/bin/sh
# Tells the client what Vestibule knows of it, then echoes. A COMMAND for `vestibule claim`:
#
#     vestibule claim --gate PATH --backend NAME --max 100 -- ./whoami.sh
#
# Stderr is not the connection: it goes where vestibule's own does, so errors can be written there.
#
# The client chose the SNI, and its certificate the identity. Always quote them, never eval them.
set -eu
printf 'id        %s\n' "${VESTIBULE_ID:?not started by vestibule claim}"
printf 'peer      %s\n' "${VESTIBULE_PEER:-unknown}"
printf 'sni       %s\n' "${VESTIBULE_SNI:-none}"
printf 'alpn      %s\n' "${VESTIBULE_ALPN:-none}"
printf 'identity  %s\n' "${VESTIBULE_IDENTITY:-none}"
# exec: no shell stays behind for the length of the connection.
exec cat
