# Shared by the scripts: finding the checkout, making users and an interpreter that they can read. Source it.
umask 022  # root may have 077, and the users must read what is made here
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { printf '\033[1m%s\033[0m\n' "== $*"; }
die() { echo "$(basename "$0"): $*" >&2; exit 1; }
is_root() { [ "$(id -u)" = 0 ]; }

# The system's interpreter: root's pyenv, conda and the like lie where an ordinary user cannot read.
system_python() {
    local python
    for python in "${PYTHON:-}" /usr/bin/python3 python3; do
        [ -n "$python" ] && "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$python"; return; }
    done
    die 'Python 3.11 or newer with venv is needed (apt-get install python3-venv)'
}

# make_venv DIR [EXTRA]: an interpreter in DIR with this checkout installed; made again only when the checkout changed.
make_venv() {
    local venv=$1 extra=${2:-} stamp python
    stamp=$(cd "$top" && find pyproject.toml rootless docs/man contrib/completions -type f ! -name "*.pyc" -print0 |
        sort -z | xargs -0 sha256sum | sha256sum)$extra
    local lock
    exec {lock}>"$venv.lock"
    flock "$lock"  # two scripts at once would install into one directory
    if [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$stamp" ]; then exec {lock}>&-; return; fi
    [ -x "$venv/bin/pip" ] || { python=$(system_python) && "$python" -m venv "$venv"; }
    # setuptools writes build/ and *.egg-info beside the sources: build from a copy, the checkout may be read-only
    local copy
    copy=$(mktemp -d)
    tar -C "$top" --exclude=.git --exclude=.venv --exclude=.hypothesis --exclude=__pycache__ -cf - . | tar -C "$copy" -xf -
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$copy$extra"
    rm -rf "$copy"
    echo "$stamp" >"$venv/.stamp"
    exec {lock}>&-
}

# as_user USER COMMAND...: run it as USER with a clean environment and a private runtime directory, as a login has.
as_user() {
    local user=$1 home uid runtime; shift
    home=$(getent passwd "$user" | cut -d: -f6) uid=$(id -u "$user")
    runtime=/run/user/$uid
    [ -d "$runtime" ] || install -d -m 0700 -o "$user" -g "$user" "$runtime"
    (cd "$home" && exec runuser -u "$user" -- env -i HOME="$home" USER="$user" LOGNAME="$user" SHELL=/bin/bash LANG=C.UTF-8 \
        TERM="${TERM:-dumb}" PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin XDG_RUNTIME_DIR="$runtime" \
        CI="${CI:-}" REQUIRE="${REQUIRE:-}" REQUIRE_EXCEPT="${REQUIRE_EXCEPT:-}" "$@")
}

# make_user USER [--no-range]: an ordinary user, with subordinate ids as useradd gives them, or without any.
make_user() {
    id "$1" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$1"
    if [ "${2:-}" = --no-range ]; then sed -i "/^$1:/d" /etc/subuid /etc/subgid; else "$top/scripts/host-setup" --no-packages --user "$1"; fi
}
