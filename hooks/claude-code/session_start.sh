#!/bin/sh
# Asks the daemon for fresh memory when a session starts: session_start.sh [--project NAME], the hook's JSON on stdin.
#
# Prints the daemon's line as a hook's answer, or nothing. Exits 0 whatever happens, within the time of the settings.
exec 2>/dev/null
trap 'exit 0' EXIT HUP INT TERM

# The in-process module of this plugin has asked already, before any command of this event ran.
[ -z "${MEMBRIDGE_SESSION_START-}" ] || exit 0

here=${0%/*}
state=${MEMBRIDGE_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/membridge}
socket=$state/run/hooks.sock heartbeat=$state/run/hooks.heartbeat wait_seconds=5 python='' project='' chosen=''
# shellcheck source=/dev/null # `membridge install hooks` writes it
[ ! -r "$here/paths.sh" ] || . "$here/paths.sh"
[ "${1-}" != --project ] || chosen=${2-}
[ -x "$python" ] || python=python3

"$python" -I -S "$here/session_start.py" "$socket" "$heartbeat" "$wait_seconds" "$project" "$chosen"
