# Sourced by ./try and ./check, not run: installs what is missing and says so. Re-runnable; does nothing when all is there.
# Expects $root, the checkout. Offers: say, setup_system PACKAGES_FOR_TESTS..., setup_venv EXTRA.

say() { printf '%s: %s\n' "${0##*/}" "$*"; }
die() { say "$*" >&2; exit 1; }

python_is_usable() {
    "$1" - <<'PY' >/dev/null 2>&1
import ensurepip, os, sys, sysconfig, venv
assert sys.version_info >= (3, 11)
assert os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h"))
PY
}

find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null 2>&1 && python_is_usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

install_packages() {
    command -v apt-get >/dev/null 2>&1 ||
        die "missing: $*. Only Debian and Ubuntu are set up automatically; install these with your package manager and run this again."
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "missing: $*. Install them as root and run this again."
        sudo=(sudo)
    fi
    say "installing Debian packages: $*"
    local options=(-qq -y --no-install-recommends -o Dpkg::Use-Pty=0)
    if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" >/dev/null 2>&1; then
        "${sudo[@]}" apt-get update -qq
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" >/dev/null
    fi
}

# $@: COMMAND=PACKAGE pairs, or FILE=PACKAGE, that are wanted besides what disfs itself needs.
setup_system() {
    local missing=() pair
    for pair in fusermount3=fuse3 gcc=gcc pkg-config=pkg-config "$@"; do
        command -v "${pair%%=*}" >/dev/null 2>&1 || [ -e "${pair%%=*}" ] || missing+=("${pair#*=}")
    done
    command -v gcc >/dev/null 2>&1 && [ -e /usr/include/string.h ] || missing+=(libc6-dev)
    pkg-config --exists fuse3 2>/dev/null || missing+=(libfuse3-dev)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    if ! find_python >/dev/null; then
        if [ "$(apt-cache policy python3 2>/dev/null | sed -n 's/.*Candidate: 3\.\([0-9]*\).*/\1/p')" = 10 ]; then
            missing+=(python3.11 python3.11-venv python3.11-dev)
        else
            missing+=(python3 python3-venv python3-dev)
        fi
    fi
    if [ "${#missing[@]}" -gt 0 ]; then
        install_packages "${missing[@]}"
    fi
    find_python >/dev/null || die "no Python 3.11 or newer with venv and headers could be found or installed"
}

# $1: "" for the program alone, "[dev]" for the tools of ./check too. Leaves $venv.
setup_venv() {
    venv=$root/.venv
    local stamp wanted
    stamp=$venv/disfs-installed
    wanted=$(cat "$root/pyproject.toml" "$root/constraints.txt" | sha256sum | cut -d' ' -f1)
    if [ -x "$venv/bin/disfs" ] && grep -qsxF "$wanted $1" "$stamp" && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        say "making a virtual environment in $venv"
        rm -rf "$venv"
        "$(find_python)" -m venv "$venv"
    fi
    say "installing disfs$1 and what it needs into $venv"
    # The variable reaches the isolated build as well, which pip's own option does not.
    PIP_CONSTRAINT=$root/constraints.txt "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$root$1"
    # "[dev]" includes all that "" asks for.
    printf '%s \n%s %s\n' "$wanted" "$wanted" "$1" >"$stamp"
}
