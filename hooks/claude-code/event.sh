#!/bin/sh
# Puts one event of a Claude session into Membridge's spool: event.sh EVENT [--project NAME], the hook's JSON on stdin.
#
# Prints nothing and exits 0 whatever happens. Needs a POSIX shell, head, mv and cat; no daemon has to run.
exec >/dev/null 2>&1
trap 'exit 0' EXIT HUP INT TERM
umask 077

event=${1-}
here=${0%/*}
spool=${MEMBRIDGE_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/membridge}/spool
project=''
# shellcheck source=/dev/null # `membridge install hooks` writes it
[ ! -r "$here/paths.sh" ] || . "$here/paths.sh"
project=${CLAUDE_PROJECT_ID:-$project}
[ "${2-}" != --project ] || project=${3-}
case $project in '' | *[[:cntrl:]]*) project=- ;; esac

# 10,000 files wait at most: without a daemon the spool would fill the disk.
set -- "$spool/new/"*
[ $# -lt 10000 ] || exec cat

# Linux gives a name that nothing else has. Elsewhere two processes of one number never live at the same time.
id=''
read -r id </proc/sys/kernel/random/uuid
# shellcheck disable=SC3028 # bash, macOS' sh, has RANDOM
: "${id:=$PPID-$$-${RANDOM-}}"
name=$id number=0
while [ -e "$spool/new/$name" ] || [ -e "$spool/tmp/$name" ]; do
    number=$((number + 1)) name=$id-$number
done

# 64 KiB of the JSON are kept. That of a start is short, and the shell reads it itself: a process takes as long as all
# else. It must not read what may be long, because it reads byte by byte.
json() {
    [ "$event" = SessionStart ] || { head -c 65536; return; }
    while IFS= read -r line || [ -n "$line" ]; do printf '%s\n' "$line" || return; done
}

# An event is in `new` whole or not at all. Claude Code writes until its prompt is through; a pipe that closes early
# would be an error to it.
{ { printf 'membridge 1 %s %s\n' "$event" "$project" && json; } >"$spool/tmp/$name" &&
    mv -f "$spool/tmp/$name" "$spool/new/$name"; } || { rm -f "$spool/tmp/$name"; exec cat; }
[ "$event" = SessionStart ] || exec cat
