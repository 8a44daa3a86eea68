#!/bin/sh
# What a session start does: session_start.sh [--project NAME], the hook's JSON on stdin.
#
# Puts the event into the spool, then asks the daemon for fresh memory and prints its answer, or nothing. It asks by a
# file and is answered by one of the same name. Exits 0 whatever happens, within the time of the settings.
exec 2>/dev/null
timer=''
trap '[ -z "$timer" ] || kill "$timer"; exit 0' EXIT HUP INT TERM
umask 077
here=${0%/*}

# The in-process module of this plugin asks before any command of this event runs.
if [ -n "${MEMBRIDGE_SESSION_START-}" ]; then
    set -- SessionStart "$@"
    # shellcheck source=hooks/claude-code/event.sh
    . "$here/event.sh"
    exit 0
fi

input=$(head -c 65536 && cat >/dev/null)
printf '%s' "$input" | /bin/sh "$here/event.sh" SessionStart "$@"

run=${MEMBRIDGE_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/membridge}/run wait_seconds=5 project=''
# shellcheck source=/dev/null # `membridge install hooks` writes it
[ ! -r "$here/paths.sh" ] || . "$here/paths.sh"
project=${CLAUDE_PROJECT_ID:-$project}
[ "${1-}" != --project ] || project=${2-}
case $project in '' | *[[:cntrl:]]*) project=- ;; esac

# A daemon that has not renewed its heartbeat for six seconds hangs or is gone.
now=$(date +%s)
beat=$(date -r "$run/hooks.heartbeat" +%s) && [ $((now - beat)) -le 6 ] || exit 0

# No two processes of one number live at the same time.
name=$now-$PPID-$$ question=$run/questions/.$now-$PPID-$$
{ printf 'membridge 1 SessionStart %s\n%s\n' "$project" "$input" >"$question" &&
    mv -f "$question" "$run/questions/$name"; } || { rm -f "$question"; exit 0; }

sleep "$wait_seconds" >/dev/null &
timer=$!
until [ -e "$run/answers/$name" ]; do
    sleep 0.02
    kill -0 "$timer" || { rm -f "$run/questions/$name"; timer=''; exit 0; }
done
cat "$run/answers/$name"
rm -f "$run/answers/$name"
