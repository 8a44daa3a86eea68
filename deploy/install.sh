#!/bin/sh
# Installs Membridge, upgrades it, takes it away again. POSIX sh: dash, busybox ash, bash.
#
# Every action is inside a function and the last line calls the first one, so that a download that was cut off does
# nothing. All that it writes and enables is noted in the receipt PREFIX/receipt before it happens: `uninstall` and
# `--dry-run` come from there. A line of the receipt is KIND, VALUE and PATH with tabs between them.
# shellcheck disable=SC2329 # some functions are called by the names that `each` gets
set -eu

usage() {
    cat <<'END'
Usage: install.sh MODE [OPTION]...

  node       this machine's part of the memory, as a service
  server     what the other machines connect to: nats-server, coordinator, gateway
  all        both
  migrate    installs the node, imports what claude-mem-minio left, writes migration-report.json
  cleanup    stops the services and removes unused environments; keeps all data
  uninstall  removes what the receipt lists; keeps the memory, the settings and the state

  --dry-run      says what would happen and changes nothing
  --user         for this user, without root (default, unless root runs it)
  --system       for the machine, as root
  --prefix DIR   where the environments are (default: ~/.local/share/membridge, or /opt/membridge)
  --version V    the version to install (default: that of the source tree, else the newest)
  --from PATH    a wheel or a source tree (default: the tree that this script is in, else the package index)
END
}

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
refuse() { printf 'error: %s\n' "$*" >&2; exit 1; }
# Says what is about to happen. With --dry-run that is all that happens.
plan() { if [ -n "$dry" ]; then say "would $*"; else say "$*"; fi; }
have() { command -v "$1" >/dev/null 2>&1; }

main() {
    umask 022
    mode='' dry='' scope='' prefix='' version='' from=''
    root=${INSTALL_ROOT:-} # another root than /, for images and tests
    tab=$(printf '\t')
    while [ $# -gt 0 ]; do
        case $1 in
            node | server | all | migrate | cleanup | uninstall)
                [ -z "$mode" ] || refuse "two modes, $mode and $1. Give one."
                mode=$1 ;;
            --dry-run) dry=yes ;;
            --user | --system)
                [ -z "$scope" ] || [ "$scope" = "${1#--}" ] || refuse "--user and --system exclude each other."
                scope=${1#--} ;;
            --prefix | --version | --from)
                [ $# -ge 2 ] && [ -n "$2" ] || refuse "$1 needs a value."
                case $1 in --prefix) prefix=$2 ;; --version) version=$2 ;; *) from=$2 ;; esac
                shift ;;
            -h | --help) usage; exit 0 ;;
            *) usage >&2; refuse "unknown argument: $1" ;;
        esac
        shift
    done
    [ -n "$mode" ] || { usage >&2; refuse "no mode. Give one of them, for example: install.sh node"; }
    find_places
    case $mode in
        uninstall) uninstall ;;
        cleanup) cleanup ;;
        *) install ;;
    esac
}

find_places() {
    case ${HOME:-} in /*) ;; *) refuse "HOME is not an absolute path. Set it to your home folder." ;; esac
    system=$(uname -s)
    uid=$(id -u)
    [ -n "$scope" ] || { if [ "$uid" = 0 ]; then scope=system; else scope=user; fi; }
    if [ "$scope" = system ]; then
        [ "$uid" = 0 ] || [ -n "$root" ] || [ -n "$dry" ] || refuse "--system needs root. Run it with sudo, or use --user."
        : "${prefix:=$root/opt/membridge}"
        bin=$root/usr/local/bin config=$root/etc/membridge state=$root/var/lib/membridge
    else
        : "${prefix:=${XDG_DATA_HOME:-$HOME/.local/share}/membridge}"
        bin=$HOME/.local/bin config=$HOME/.config/membridge
        state=${XDG_STATE_HOME:-$HOME/.local/state}/membridge
    fi
    case $prefix in
        *[[:space:]\"\'\\%\$\&\|]*) refuse "the prefix $prefix has a space or a special character, which unit files do not allow. Choose another one with --prefix." ;;
        /*) ;;
        *) prefix=$(pwd)/$prefix ;;
    esac
    case $prefix in */ | */..* | */./*) refuse "the prefix $prefix is not a plain path. Give it without a slash at its end, and without dots." ;; esac
    receipt=$prefix/receipt hooks=${CLAUDE_CONFIG_DIR:-$HOME/.claude}/skills/membridge
    find_init
}

# The init that runs decides, not the programs that happen to be there.
find_init() {
    init=none units=''
    if [ "$system" = Darwin ]; then
        init=launchd units=$HOME/Library/LaunchAgents
        [ "$scope" = user ] || refuse "on macOS Membridge runs for a user, as a LaunchAgent. Use --user."
    elif [ -d "$root/run/systemd/system" ]; then
        init=systemd units=$root/etc/systemd/system
        [ "$scope" = system ] || units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
    elif [ -e "$root/run/openrc/softlevel" ]; then
        init=openrc units=$root/etc/init.d
        # OpenRC runs services for root alone; a user still gets the program.
        [ "$scope" = system ] || init=none
    fi
}

# ---- refusals -------------------------------------------------------------------------------------------------------

check_system() {
    case $system in
        Linux) check_linux ;;
        Darwin)
            release=$(sw_vers -productVersion)
            [ "${release%%.*}" -ge 13 ] || refuse "macOS $release is too old: Membridge needs macOS 13 or newer." ;;
        *) refuse "Membridge runs on Linux and macOS, not on $system. On Windows install it inside WSL 2." ;;
    esac
    case $(uname -m) in
        x86_64 | amd64 | aarch64 | arm64) ;;
        *) refuse "no packages exist for the processor $(uname -m): Membridge needs a 64-bit x86 or ARM." ;;
    esac
}

check_linux() {
    # A 32-bit Raspberry Pi OS runs a 64-bit kernel: `uname -m` says aarch64 there, so ask the userland.
    if have getconf; then
        [ "$(getconf LONG_BIT)" = 64 ] || refuse "this system is 32-bit: Membridge needs a 64-bit one. Install the 64-bit edition of your system, for example 64-bit Raspberry Pi OS."
        libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=''
        case $libc in
            glibc\ *)
                libc=${libc#glibc } minor=${libc#*.}
                if [ "${libc%%.*}" -lt 2 ] || { [ "${libc%%.*}" = 2 ] && [ "${minor%%.*}" -lt 28 ]; }; then
                    refuse "glibc $libc is too old: Membridge needs 2.28 (Debian 10 or newer). Upgrade your system."
                fi ;;
        esac
    fi
}

# Sets $python to a real interpreter: a shim of pyenv costs 60 ms at each start and may change its mind.
find_python() {
    python=''
    for name in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        have "$name" || continue
        found=$("$name" -c 'import os, sys; print(os.path.realpath(sys._base_executable)) if sys.version_info >= (3, 11) else None' 2>/dev/null) || continue
        [ -n "$found" ] && { python=$found; break; }
    done
    [ -n "$python" ] || refuse "no Python 3.11 or newer. Install one: $(package_line python3)"
    [ "$("$python" -c 'import struct; print(struct.calcsize("P"))')" = 8 ] || refuse "$python is a 32-bit program: Membridge needs a 64-bit Python."
    have uv || "$python" -c 'import venv, ensurepip' 2>/dev/null || refuse "$python has no venv module. Install it: $(package_line python3-venv)"
}

package_line() {
    if have apt-get; then say "sudo apt-get install $1"
    elif have apk; then say "apk add python3"
    elif have brew; then say "brew install python"
    elif have dnf; then say "sudo dnf install python3"
    else say "the package $1 of your system"; fi
}

# Sets $from, $what (for pip) and $version.
find_source() {
    if [ -z "$from" ] && [ -z "$version" ]; then
        # The last line runs as `sh install.sh`, or from a pipe, where $0 is the name of the shell.
        here=$(cd "$(dirname "$0")" 2>/dev/null && pwd) || here=''
        if [ -f "$here/install.sh" ] && [ -f "$here/../pyproject.toml" ]; then
            from=$(cd "$here/.." && pwd)
        else
            from=$(noted source)
            case $from in /*) [ -e "$from" ] || from='' ;; *) from='' ;; esac
        fi
    fi
    if [ -z "$from" ]; then
        what=membridge${version:+==$version}
        return
    fi
    [ -e "$from" ] || refuse "$from does not exist. Give a wheel or a source tree with --from."
    from=$(cd "$(dirname "$from")" && pwd)/$(basename "$from")
    what=$from
    if [ -d "$from" ]; then
        found=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$from/pyproject.toml" 2>/dev/null | head -n 1)
    else
        found=$(basename "$from" | sed -n 's/^membridge-\([^-]*\)-.*\.whl$/\1/p')
    fi
    [ -n "$found" ] || refuse "$from is neither a source tree nor a wheel of Membridge."
    [ -z "$version" ] || [ "$version" = "$found" ] || refuse "$from is version $found, not $version. Leave out --version."
    version=$found
}

# Says what the tool that came before left; `membridge migrate` reads it.
detect_old() {
    found=''
    for old in "$HOME/.claude-mem-minio/config.env" "$HOME/.claude-mem-minio/bin" "$HOME/.membridge/agent_projects.json" \
        "$root/etc/systemd/system/membridge-agent.service" "$root/etc/systemd/system/membridge-server.service" "$root/etc/init.d/membridge-agent"; do
        [ ! -e "$old" ] || { found=yes; say "found $old"; }
    done
    [ -n "$found" ] || say "nothing of an older installation is here"
}

# ---- receipt --------------------------------------------------------------------------------------------------------

# Prints the newest value that the receipt has for a kind.
noted() { [ ! -f "$receipt" ] || awk -F "$tab" -v kind="$1" '$1 == kind { value = $2 } END { print value }' "$receipt"; }
# Whether the receipt has a line of this kind and path.
has_note() { [ -f "$receipt" ] && awk -F "$tab" -v kind="$1" -v path="$2" '$1 == kind && $3 == path { found = 1 } END { exit !found }' "$receipt"; }
note() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$receipt"; }
sum() { if have sha256sum; then sha256sum <"$1"; else shasum -a 256 <"$1"; fi | cut -d ' ' -f 1; }

# Makes a folder and those above it; the new ones are noted first, so that uninstall takes exactly them away.
folder() {
    [ ! -d "$1" ] || return 0
    folder "$(dirname "$1")"
    [ ! -f "$receipt" ] || note folder - "$1"
    mkdir -m "${2:-755}" "$1" 2>/dev/null || [ -d "$1" ]
}

# Writes standard input to a file: its checksum is noted, then the whole file gets its name at once.
write() {
    folder "$(dirname "$1")"
    cat >"$work/file"
    chmod "${2:-644}" "$work/file"
    digest=$(sum "$work/file")
    if [ -e "$1" ] || [ -L "$1" ]; then
        [ ! -f "$1" ] || [ "$(sum "$1")" != "$digest" ] || { has_note file "$1" || note shared "$digest" "$1"; return 0; }
        if ! has_note file "$1"; then
            # A file of somebody else: uninstall puts it back.
            note saved "$1.before-membridge" "$1"
            mv -f "$1" "$1.before-membridge"
        fi
    fi
    note file "$digest" "$1"
    # A rename within the folder of the file, so that it is one step there too.
    cp -p "$work/file" "$1.part"
    mv -f "$1.part" "$1"
}

# The first folder that is new comes into being with the receipt in it, by one rename: a killed installer leaves either
# nothing, or what uninstall can take away.
start_receipt() {
    clear_start
    if [ ! -d "$prefix" ]; then
        mkdir -p "$top.membridge-part${prefix#"$top"}"
        {
            printf 'membridge-receipt\t1\t-\n'
            above=$top
            note_rest "${prefix#"$top"}"
        } >"$top.membridge-part${receipt#"$top"}"
        mv "$top.membridge-part" "$top"
    elif [ ! -f "$receipt" ]; then
        printf 'membridge-receipt\t1\t-\n' >"$top.membridge-part"
        mv "$top.membridge-part" "$receipt"
    fi
    note scope "$scope" -
    note init "$init" -
}

# Prints the folder $above, and those that lead from it to the prefix.
note_rest() {
    printf 'folder\t-\t%s\n' "$above"
    rest=${1#/}
    while [ -n "$rest" ]; do
        above=$above/${rest%%/*}
        printf 'folder\t-\t%s\n' "$above"
        case $rest in */*) rest=${rest#*/} ;; *) rest='' ;; esac
    done
}

# Sets $top to the first folder of the prefix that does not exist. Clears what a killed start_receipt left, and finishes
# a removal that was killed at its end.
clear_start() {
    finished='' above=$prefix top=$prefix
    while [ "$above" != / ]; do
        [ -d "$(dirname "$above")" ] || top=$(dirname "$above")
        if [ -f "$above.membridge-part/receipt" ]; then
            remove_folders "$above.membridge-part/receipt"
            finished=yes
        fi
        rm -rf "$above.membridge-part"
        above=$(dirname "$above")
    done
}

# One line for each kind, value and path: the newest.
compact_receipt() {
    awk -F "$tab" '{ key = ($1 == "source" || $1 == "role" || $1 == "scope" || $1 == "owner" || $1 == "init" || $1 == "version" || $1 == "ran") ? $1 : ($1 == "file") ? $1 FS $3 : $0
        if (!(key in at)) { at[key] = ++lines } line[at[key]] = $0 } END { for (i = 1; i <= lines; i++) print line[i] }' "$receipt" >"$work/receipt"
    mv -f "$work/receipt" "$receipt"
}

take_lock() {
    if ! mkdir "$prefix/lock" 2>/dev/null; then
        holder=$(cat "$prefix/lock/pid" 2>/dev/null) || holder=''
        [ -z "$holder" ] || ! kill -0 "$holder" 2>/dev/null || refuse "another installer is at work: process $holder. Wait for its end."
        rm -rf "$prefix/lock"
        mkdir "$prefix/lock" 2>/dev/null || refuse "another installer is at work. Wait for its end."
    fi
    echo $$ >"$prefix/lock/pid"
    work=$prefix/lock
    trap 'rm -rf "$prefix/lock"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# ---- install --------------------------------------------------------------------------------------------------------

install() {
    role=$mode prior=$(noted role)
    [ "$mode" != migrate ] || role=node
    case $prior in '' | "$role") ;; *) role=all ;; esac # a node beside a server, and the other way round
    name_services
    check_system
    find_python
    find_source
    if [ ! -f "$receipt" ] && { [ -e "$bin/membridge" ] || [ -L "$bin/membridge" ]; }; then
        refuse "$bin/membridge is there already and this installer did not write it. Remove it first, for example with \`pipx uninstall membridge\`."
    fi
    # The version that ran last: a killed upgrade may have switched to one that never did.
    previous=$(noted ran)
    [ "$mode" != migrate ] || detect_old
    say_plan
    [ -z "$dry" ] || return 0

    start_receipt
    take_lock
    build_environment
    "$environment/bin/python" -P -m membridge.validate_install --environment || {
        rm -rf "$environment"
        refuse "version $version does not work on this machine: see above. ${previous:+${previous#versions/} is still installed and was not touched.}"
    }
    activate "$environment"
    if ! start_services; then
        roll_back
        exit 1
    fi
    note ran "versions/$(basename "$environment")" -
    note role "$role" -
    [ "$scope" = user ] || [ "$role" = server ] || note owner "$owner" -
    note version "$version" -
    note source "${from:-index}" -
    prune_environments
    compact_receipt
    ! has_hooks || "$prefix/current/bin/membridge" install hooks || warn "the hooks of Claude Code are those of another version. Run: membridge install hooks"
    say_done
    [ "$mode" != migrate ] || "$prefix/current/bin/membridge" migrate
}

# The hooks that `membridge install hooks` wrote; each version brings its own.
has_hooks() { [ "$scope" = user ] && [ -d "$hooks" ]; }

name_services() {
    owner=${SUDO_USER:-${DOAS_USER:-}}
    case $role in node) parts=node ;; server) parts='nats coordinator gateway' ;; *) parts='nats coordinator gateway node' ;; esac
    if [ "$scope" = system ] && [ "$role" != server ]; then
        [ -n "$owner" ] || refuse "the node needs to know whose memory it shares. Run this with sudo from that user's account, or with --user."
    fi
    services=''
    for part in $parts; do services="$services${services:+ }$(service_name "$part")"; done
}

service_name() {
    case $init.$scope.$1 in
        launchd.*) say "org.membridge.$1" ;;
        systemd.system.node) say "membridge-node@$owner" ;;
        *) say "membridge-$1" ;;
    esac
}

foreground() { if [ "$role" = node ]; then say "$bin/membridge node"; else say "$bin/membridge up"; fi; }

say_plan() {
    say "Membridge ${version:-, newest version} for $(if [ "$scope" = user ]; then id -un; else echo "this machine"; fi), $role, under $init"
    plan "build an environment in $prefix/versions with $python, from ${from:-the package index}"
    plan "check it, then point $prefix/current to it"
    plan "write $bin/membridge and $prefix/install.sh"
    case $role in server | all) [ -e "$config/nats-server.conf" ] || plan "write $config/nats-server.conf" ;; esac
    ! has_hooks || plan "bring the hooks in $hooks to this version"
    [ "$mode" != migrate ] || plan "import its settings and the memory that it stored, and write $state/migration-report.json"
    if [ "$init" = none ]; then
        say "no service manager of this user runs here, so nothing is started"
        return
    fi
    ! needs_account || plan "add the system user membridge"
    [ "$init" != openrc ] || [ "$role" = server ] || [ -e "$root/etc/conf.d/membridge-node" ] || plan "write $root/etc/conf.d/membridge-node"
    for service in $services; do
        plan "write $units/$(unit_file "$service"), enable and start $service"
    done
    [ "$init.$scope" != systemd.user ] || lingers || plan "enable lingering for $(id -un), so that the services run without a login"
}

build_environment() {
    folder "$prefix/versions"
    for old in "$prefix"/versions/*; do
        [ ! -d "$old" ] || [ -f "$old/complete" ] || rm -rf "$old" # a killed installer left it
    done
    name=${version:-newest} number=1
    while [ -e "$prefix/versions/$name" ]; do
        number=$((number + 1)) name=${version:-newest}-$number
    done
    environment=$prefix/versions/$name
    note tree - "$environment"
    # What is downloaded is not kept, unless a cache was chosen: uninstall leaves the tree as it was.
    [ -n "${PIP_CACHE_DIR:-}" ] || export PIP_NO_CACHE_DIR=1
    [ -n "${UV_CACHE_DIR:-}" ] || export UV_NO_CACHE=1
    export UV_COMPILE_BYTECODE="${UV_COMPILE_BYTECODE:-1}"
    if have uv; then
        uv venv --quiet --python "$python" "$environment" && packages uv pip install --quiet --python "$environment/bin/python"
    else
        "$python" -m venv "$environment" && packages "$environment/bin/python" -m pip install --quiet --disable-pip-version-check
    fi || {
        rm -rf "$environment"
        refuse "the environment could not be built: see above. Nothing that runs was touched."
    }
    version=$("$environment/bin/python" -P -c 'import membridge; print(membridge.__version__)')
    : >"$environment/complete"
}

# Membridge first, without dependencies; then those that its own lock file names, each by its checksum, as wheels.
packages() {
    "$@" --no-deps "$what" || return 1
    lock=$(embedded "$environment" requirements.lock) || return 1
    "$@" --no-deps --only-binary :all: --require-hashes --requirement "$lock"
}

# Prints the path of a file that comes with the package of the environment $1.
embedded() {
    # Found, not imported: what it imports comes after it.
    "$1/bin/python" -P -c 'import importlib.util, os, sys
print(os.path.join(os.path.dirname(importlib.util.find_spec("membridge").origin), "embedded", sys.argv[1]))' "$2"
}

# Makes an environment the one that runs: its unit files, the link, the command. Each is one rename.
activate() {
    [ "$init" = none ] || for service in $services; do
        unit_text "$1" "$service"
        write "$units/$(unit_file "$service")" "$(unit_mode)" <"$work/unit"
    done
    if needs_account; then
        note account - membridge
        adduser -S -D -H -s /sbin/nologin membridge
    fi
    if [ "$init" = openrc ] && [ "$role" != server ]; then
        [ -e "$root/etc/conf.d/membridge-node" ] || printf 'membridge_user="%s"\n' "$owner" | write "$root/etc/conf.d/membridge-node"
    fi
    case $role in server | all) [ -e "$config/nats-server.conf" ] || write "$config/nats-server.conf" <"$(embedded "$1" nats-server.conf)" ;; esac
    has_note link "$prefix/current" || note link - "$prefix/current"
    "$1/bin/python" -P -c 'import os, sys
os.path.lexists(sys.argv[2]) and os.unlink(sys.argv[2])
os.symlink(sys.argv[1], sys.argv[2])
os.replace(sys.argv[2], sys.argv[3])' "versions/$(basename "$1")" "$work/current" "$prefix/current"
    write "$prefix/install.sh" 755 <"$(embedded "$1" install.sh)"
    launcher >"$work/launcher"
    write "$bin/membridge" 755 <"$work/launcher"
}

# The command looks whether its Python is still there: a distribution's upgrade may have taken it.
launcher() {
    cat <<END
#!/bin/sh
# Written by Membridge's installer; \`sh $prefix/install.sh uninstall\` removes it.
if [ -x $prefix/current/bin/python ]; then
    exec $prefix/current/bin/membridge "\$@"
fi
echo "error: the Python that Membridge was installed with is gone: \$(readlink $prefix/current/bin/python)" >&2
echo "  remedy: sh $prefix/install.sh $role --$scope --prefix $prefix" >&2
exit 1
END
}

prune_environments() {
    for old in "$prefix"/versions/*; do
        case versions/$(basename "$old") in
            "versions/$(basename "$environment")" | "$previous") ;;
            *) rm -rf "$old" ;;
        esac
    done
}

roll_back() {
    if [ -z "$previous" ] || [ ! -d "$prefix/$previous" ]; then
        printf 'error: %s\n' "a service does not start: $(log_line). There is no earlier version to go back to; \`sh $prefix/install.sh uninstall --$scope --prefix $prefix\` removes this one." >&2
        return
    fi
    activate "$prefix/$previous"
    rm -rf "$environment"
    start_services || true
    printf 'error: %s\n' "version $version does not start, so ${previous#versions/} runs again. $(log_line) says why." >&2
}

say_done() {
    say "done: $("$prefix/current/bin/membridge" --version)"
    case :$PATH: in *:"$bin":*) ;; *) say "$bin is not in PATH: call $bin/membridge, or add it" ;; esac
    if [ "$init" = none ]; then
        say "run it in the foreground: $(foreground)"
    fi
}

# ---- services -------------------------------------------------------------------------------------------------------

user_systemctl() { if [ "$scope" = user ]; then systemctl --user "$@"; else systemctl "$@"; fi; }

unit_file() {
    case $init in
        systemd) case $1 in *@*) say "${1%%@*}@.service" ;; *) say "$1.service" ;; esac ;;
        launchd) say "$1.plist" ;;
        *) say "$1" ;;
    esac
}

# OpenRC has no users that exist only while a service runs.
needs_account() { [ "$init" = openrc ] && [ "$role" != node ] && ! grep -q '^membridge:' "$root/etc/passwd"; }

unit_mode() { if [ "$init" = openrc ]; then echo 755; else echo 644; fi; }

# Writes the unit of a service to $work/unit, as the environment $1 has it, with the programs of this installation.
unit_text() {
    kind=$init
    [ "$init" != systemd ] || kind=$scope
    "$1/bin/membridge" units --for "$kind" --bin "$prefix/current/bin" "$(unit_file "$2")" >"$work/unit" ||
        refuse "version $version has no unit for $2. Run it in the foreground: $(foreground)"
}

lingers() { have loginctl && [ "$(loginctl show-user "$(id -un)" --property=Linger --value 2>/dev/null)" = yes ]; }

start_services() {
    case $init in
        none) return 0 ;;
        systemd)
            if [ "$scope" = user ] && ! lingers; then
                note linger - "$(id -un)"
                if loginctl enable-linger "$(id -un)" 2>/dev/null; then
                    say "lingering is on now: the services run without a login"
                else
                    warn "the services stop when you log out. Run: sudo loginctl enable-linger $(id -un)"
                fi
            fi
            user_systemctl daemon-reload || { warn "systemd does not answer: log in anew, or start the services with systemctl${scope:+ --$scope}"; return 1; }
            ;;
    esac
    for service in $services; do
        note enabled "$init" "$service"
        start_service "$service" || { failed=$service; return 1; }
    done
}

start_service() {
    case $init in
        systemd) user_systemctl enable --quiet "$1" && user_systemctl restart "$1" && user_systemctl is-active --quiet "$1" ;;
        openrc) rc-update --quiet add "$1" default && rc-service --quiet "$1" restart && rc-service --quiet "$1" status ;;
        launchd)
            launchctl bootout "gui/$uid/$1" 2>/dev/null || true
            launchctl bootstrap "gui/$uid" "$units/$1.plist" && launchctl print "gui/$uid/$1" >/dev/null ;;
    esac
}

stop_service() {
    case $1 in
        systemd) user_systemctl stop "$2" ;;
        openrc) rc-service --quiet "$2" stop ;;
        launchd) launchctl bootout "gui/$uid/$2" ;;
    esac
}

disable_service() {
    case $1 in
        systemd) user_systemctl disable --quiet --now "$2" ;;
        openrc) rc-service --quiet "$2" stop; rc-update --quiet del "$2" default ;;
        launchd) launchctl bootout "gui/$uid/$2" ;;
    esac
}

log_line() {
    : "${failed:=$services}"
    case $init in
        systemd) say "journalctl$([ "$scope" = system ] || echo ' --user') -u $failed" ;;
        openrc) say "/var/log/membridge/$failed.log" ;;
        *) say "$HOME/Library/Logs/membridge" ;;
    esac
}

# ---- cleanup and uninstall ------------------------------------------------------------------------------------------

need_receipt() {
    if [ -z "$dry" ]; then
        clear_start
        [ -z "$finished" ] || [ -f "$receipt" ] || { say "finished the removal that was interrupted"; exit 0; }
    fi
    [ -f "$receipt" ] || refuse "nothing of this installer is in $prefix: there is no receipt. If it is somewhere else, name it with --prefix, or try --$([ "$scope" = user ] && echo system || echo user)."
}

cleanup() {
    need_receipt
    [ -n "$dry" ] || take_lock
    each enabled stop_one
    for old in "$prefix"/versions/*; do
        [ -d "$old" ] && [ "versions/$(basename "$old")" != "$(readlink "$prefix/current")" ] || continue
        plan "remove the unused environment $old"
        [ -n "$dry" ] || rm -rf "$old"
    done
    say "kept: all data, settings and units. The services start again at the next boot; \`sh $prefix/install.sh uninstall\` ends that."
}

stop_one() {
    plan "stop $2"
    [ -n "$dry" ] || stop_service "$1" "$2" || warn "$2 was not stopped"
}

# Calls a function with VALUE and PATH of each line of a kind, the newest first.
each() {
    # shellcheck disable=SC2094 # the receipt is read whole before anything is done
    lines=$(awk -F "$tab" -v kind="$1" '$1 == kind && !seen[$0]++ { line[++n] = $2 FS $3 } END { for (i = n; i > 0; i--) print line[i] }' "$receipt")
    [ -n "$lines" ] || return 0
    while IFS=$tab read -r value path; do
        "$2" "$value" "$path" </dev/null
    done <<END
$lines
END
}

uninstall() {
    need_receipt
    [ -n "$dry" ] || take_lock
    each enabled disable_one
    # While the environment is there: only its command knows what the hooks are, in settings.json too.
    each hooks remove_hooks
    [ "$scope" = user ] || remove_hooks_of "$(noted owner)"
    each link remove_link
    each file remove_file
    each saved put_back
    each linger end_linger
    each account remove_account
    each tree remove_tree
    if [ -z "$dry" ]; then
        [ "$(noted init)" != systemd ] || user_systemctl daemon-reload || true
        # The receipt is needed until the last folder is gone, so it moves to where none of them is.
        top=$(awk -F "$tab" -v prefix="$prefix/" '$1 == "folder" && index(prefix, $3 "/") == 1 { print $3; exit }' "$receipt")
        part=${top:-$prefix}.membridge-part
        mkdir "$part"
        rm -rf "$prefix/lock"
        mv "$receipt" "$part/receipt"
        remove_folders "$part/receipt"
        rm -rf "$part"
    else
        plan "remove $receipt"
    fi
    say "kept: the memory, $config and $state"
    [ -n "$dry" ] || ! has_hooks || say "kept: $hooks, which this installation did not write. Remove it: rm -r $hooks"
}

# The hooks that `membridge install hooks` noted: $1 is its state folder, $2 the plugin's folder.
remove_hooks() {
    claude=${2%/skills/membridge}
    [ -d "$2" ] || grep -qsF "$2/" "$claude/settings.json" || return 0
    plan "remove the hooks of Claude Code from $claude"
    [ -n "$dry" ] || told "$2" env CLAUDE_CONFIG_DIR="$claude" MEMBRIDGE_STATE_DIR="$1" "$prefix/current/bin/membridge" uninstall hooks
}

# The hooks of the user whose node this machine runs: root's receipt cannot have them. That user removes them.
remove_hooks_of() {
    [ -n "$1" ] || return 0
    home=$(awk -F : -v user="$1" '$1 == user { print $6 }' "$root/etc/passwd" 2>/dev/null) || home=''
    [ -n "$home" ] || home=$(getent passwd "$1" 2>/dev/null | cut -d : -f 6) || home=''
    [ -n "$home" ] && [ -d "$home/.claude/skills/membridge" ] || return 0
    plan "remove the hooks of Claude Code from $home/.claude, as $1"
    [ -n "$dry" ] || told "$home/.claude/skills/membridge" su -s /bin/sh "$1" -c "unset CLAUDE_CONFIG_DIR; exec $prefix/current/bin/membridge uninstall hooks"
}

# Runs the command that removes the hooks in $1, and says what it left.
told() {
    path=$1
    shift
    if answer=$("$@"); then
        say "$answer" | sed '/^Removed: /d; s/^/kept: /'
    else
        warn "the hooks of Claude Code were not removed: see above. Remove them: rm -r $path"
    fi
}

# Removes the folders that a receipt lists, if they are empty; the newest first.
remove_folders() {
    awk -F "$tab" '$1 == "folder" { line[++n] = $3 } END { for (i = n; i > 0; i--) print line[i] }' "$1" |
        while read -r path; do
            rmdir "$path" 2>/dev/null || true
        done
}

disable_one() {
    plan "stop and disable $2"
    [ -n "$dry" ] || disable_service "$1" "$2" || warn "$2 was not disabled"
}

remove_link() {
    [ -L "$2" ] || return 0
    plan "remove $2"
    [ -n "$dry" ] || rm -f "$2"
}

remove_file() {
    [ -n "$dry" ] || rm -f "$2.part"
    [ -e "$2" ] || return 0
    actual=$(sum "$2")
    if awk -F "$tab" -v path="$2" -v sum="$actual" '$1 == "file" && $2 == sum && $3 == path { found = 1 } END { exit !found }' "$receipt"; then
        plan "remove $2"
        [ -n "$dry" ] || rm -f "$2"
    else
        say "kept: $2 was changed after the installation"
    fi
}

put_back() {
    [ -e "$1" ] || [ -L "$1" ] || return 0
    [ ! -e "$2" ] || [ -n "$dry" ] || { say "kept: $1, the file that $2 replaced"; return 0; }
    plan "put back $2"
    [ -n "$dry" ] || mv -f "$1" "$2"
}

end_linger() {
    lingers || return 0
    plan "end lingering for $2"
    [ -n "$dry" ] || loginctl disable-linger "$2" 2>/dev/null || warn "lingering is still on. Run: sudo loginctl disable-linger $2"
}

remove_account() {
    plan "remove the system user $2"
    [ -n "$dry" ] || deluser "$2" || warn "the system user $2 was not removed"
}

remove_tree() {
    [ -d "$2" ] || return 0
    case $2 in "$prefix"/versions/?*) ;; *) warn "the receipt names $2, which is not an environment of $prefix: kept"; return 0 ;; esac
    plan "remove $2"
    [ -n "$dry" ] || rm -rf "$2"
}

# On one line, so that the shell never reads on in a file that an upgrade has replaced.
main "$@"; exit
