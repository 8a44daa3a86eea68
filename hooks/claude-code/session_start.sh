#!/bin/sh
# What a session start does: session_start.sh [--project NAME], the hook's JSON on stdin.
#
# Puts the event into the spool, then asks the daemon for fresh memory and prints its line as a hook's answer, or nothing.
# Exits 0 whatever happens, within the time of the settings.
exec 2>/dev/null
trap 'exit 0' EXIT HUP INT TERM
here=${0%/*}

# The in-process module of this plugin asks before any command of this event runs: `ask` is its request, another value
# says that it is done.
case ${MEMBRIDGE_SESSION_START-} in
'' | ask) ;;
*) exec /bin/sh "$here/event.sh" SessionStart "$@" ;;
esac

input=$(head -c 65536 && cat >/dev/null)
[ -n "${MEMBRIDGE_SESSION_START-}" ] || printf '%s' "$input" | /bin/sh "$here/event.sh" SessionStart "$@"

state=${MEMBRIDGE_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/membridge}
socket=$state/run/hooks.sock heartbeat=$state/run/hooks.heartbeat wait_seconds=5 python='' project='' chosen=''
# shellcheck source=/dev/null # `membridge install hooks` writes it
[ ! -r "$here/paths.sh" ] || . "$here/paths.sh"
[ "${1-}" != --project ] || chosen=${2-}
[ -x "$python" ] || python=python3

printf '%s' "$input" |
    "$python" -I -S "$here/session_start.py" "$socket" "$heartbeat" "$wait_seconds" "$project" "$chosen"
