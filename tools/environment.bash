# Sourced by tools/check and tools/demo: Debian packages and the virtual environment.
#
# Packages are installed only when something is missing, only by root, and only after saying so.
# The environment is .venv in the checkout; it is set up again when pyproject.toml or the native
# fast path changes.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# need_packages COMMAND:PACKAGE... - see that each command is there, by its package if need be.
# Without root it only says what is missing, and returns 1.
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]} (as root: apt-get install ${missing[*]})" >&2
        return 1
    fi
    install_packages "${missing[@]}"
}

# need_library FILE:PACKAGE - the same for a shared library.
need_library() {
    ldconfig -p | grep -qF "${1%%:*}" && return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "missing: ${1#*:} (as root: apt-get install ${1#*:})" >&2
        return 1
    fi
    install_packages "${1#*:}"
}

install_packages() {
    echo "== installing Debian packages: $*"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$@" >/dev/null
}

# Print a Python of at least 3.11 that can make virtual environments; return 1 when there is none.
find_python() {
    local candidate
    local usable='import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))'
    for candidate in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c "$usable" 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# make_environment EXTRAS - install this checkout into .venv, editable, with "" or "[dev]".
make_environment() {
    local extras=$1 python stamp wanted
    stamp=".venv/installed${extras//[^a-z]/}"
    wanted="$PWD $(cat pyproject.toml wgmp/fastpath/native/{Cargo.*,src/*} | sha256sum)"
    if [[ -x .venv/bin/wgmp && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return 0
    fi
    if ! python=$(find_python); then
        ((EUID == 0)) && command -v apt-get >/dev/null ||
            fail "needs Python 3.11 or newer with venv (as root: apt-get install python3-venv)"
        install_packages python3 python3-venv
        python=$(find_python) || fail "needs Python 3.11 or newer; Debian 12 and later have it"
    fi
    echo "== setting up .venv with $("$python" --version)"
    # A directory that was moved or copied here does not know where it is.
    if [[ -d .venv ]] && ! grep -qsF "$PWD/.venv" .venv/bin/activate; then
        rm -rf .venv
    fi
    [[ -x .venv/bin/pip ]] || "$python" -m venv .venv
    command -v cargo >/dev/null ||
        echo "== no Rust toolchain (cargo): the native fast path is left out"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras"
    echo "$wanted" >"$stamp"
}
