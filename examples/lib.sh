# For the demos of examples: a separate fleet in a temporary folder, of which nothing is left, and how commands are shown. To be sourced, in the
# folder of the checkout.
#
# MOZART_BIN: the folder of `mozart` and `mozart-shim`, by default target/release.
# shellcheck shell=bash

bin=${MOZART_BIN:-$PWD/target/release}
for program in mozart mozart-shim; do
    [ -x "$bin/$program" ] || {
        echo "error: $bin/$program is missing; cause: not built yet; try: make build" >&2
        exit 6
    }
done
command -v python3 >/dev/null || {
    echo "error: python3 is missing; cause: the workers of this demo are written in Python; try: install python3" >&2
    exit 6
}
export PATH=$bin:$PATH
export MOZART_NATS_SERVER=${MOZART_NATS_SERVER:-$PWD/.tools/nats-server}
# The workers' library, instead of `pip install sdk/python`.
export PYTHONPATH=$PWD/sdk/python${PYTHONPATH:+:$PYTHONPATH}
MOZART_DIR=$(mktemp -d "${TMPDIR:-/tmp}/mozart-demo.XXXXXX")
export MOZART_DIR
unset NATS_URL NATS_CREDS MOZART_NAMESPACE

clean_up() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ]; then
        echo >&2
        echo "The demo failed. The last lines of $MOZART_DIR/mozart.log:" >&2
        tail -n 20 "$MOZART_DIR/mozart.log" >&2 || true
    fi
    mozart down --timeout 10s >/dev/null 2>&1 || true
    rm -rf "$MOZART_DIR"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
else
    bold='' dim='' plain=''
fi

heading() {
    printf '\n%s── %s%s\n' "$bold" "$1" "$plain"
}

show() {
    local word
    printf '\n%s$' "$dim"
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./:=-]*) printf ' "%s"' "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '%s\n' "$plain"
}

# Shows a command, then runs it.
run() {
    show "$@"
    "$@"
}

note() {
    printf '%s  (%s)%s\n' "$dim" "$1" "$plain"
}

# of FIELD: a field of the JSON on stdin, of an object or of the first one of a list.
of() {
    python3 -c 'import json, sys; it = json.load(sys.stdin); print((it[0] if isinstance(it, list) else it)[sys.argv[1]])' "$1"
}
