#!/usr/bin/env bash
# A tour of Mozart in half a minute: `make demo` builds and runs it. It uses a temporary folder and leaves nothing behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for program in mozart mozart-shim; do
    [ -x "target/release/$program" ] || {
        echo "error: target/release/$program is missing; cause: not built yet; try: make demo" >&2
        exit 6
    }
done
command -v python3 >/dev/null || {
    echo "error: python3 is missing; cause: the workers of this demo are written in Python; try: install python3" >&2
    exit 6
}

export PATH=$PWD/target/release:$PATH
export MOZART_NATS_SERVER=${MOZART_NATS_SERVER:-$PWD/.tools/nats-server}
# The workers' library, instead of `pip install sdk/python`.
export PYTHONPATH=$PWD/sdk/python${PYTHONPATH:+:$PYTHONPATH}
# A separate fleet, regardless of what is already running on this machine.
MOZART_DIR=$(mktemp -d "${TMPDIR:-/tmp}/mozart-demo.XXXXXX")
export MOZART_DIR
unset NATS_URL NATS_CREDS MOZART_NAMESPACE

clean_up() {
    local code=$?
    trap - EXIT INT TERM
    mozart down --timeout 10s >/dev/null 2>&1 || true
    for process in $(processes); do
        kill -9 "$process" 2>/dev/null || true
    done
    if [ "$code" != 0 ]; then
        echo >&2
        echo "The demo failed. The last lines of $MOZART_DIR/mozart.log:" >&2
        tail -n 20 "$MOZART_DIR/mozart.log" >&2 || true
    fi
    rm -rf "$MOZART_DIR"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The pids of this demo's agents, or of one agent.
processes() {
    local environment
    for environment in /proc/[0-9]*/environ; do
        if grep -qzs "^MOZART_RUN=$MOZART_DIR/run/.*/${1:-.*}-[0-9]*$" "$environment"; then
            environment=${environment%/environ}
            echo "${environment##*/}"
        fi
    done
}

# The pid of an agent's worker, not of its shim.
worker_of() {
    local process
    for process in $(processes "$1"); do
        [ "$(cat "/proc/$process/comm")" = mozart-shim ] || echo "$process"
    done
}

# The id of an agent's newest message.
newest_message() {
    mozart journal ls --agent "$1" --limit 1 -o json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["messageId"])'
}

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

begun=$SECONDS

heading "1. Start: a broker, a supervisor, a node, and two agents of examples/pair"
run mozart up examples/pair --detach --wait
run mozart apply examples/hello examples/flaky
mozart wait hello --for running --timeout 20s >/dev/null
mozart wait flaky --for running --timeout 20s >/dev/null
run mozart ps

heading "2. Messages: each is on disk before its id is printed"
run mozart send hello "Hello, Mozart" --wait
run mozart send asker "How many words is this?" --wait
note "asker had to ask answerer: two agents, two journaled messages"

heading "3. A crash: kill -9 for the worker, in the middle of its answer"
victim=$(worker_of flaky)
show mozart chat flaky "count 12 0.2" --follow
mozart chat flaky "count 12 0.2" --follow &
chat=$!
sleep 0.8
kill -9 "$victim"
printf '%s  <-- kill -9 %s%s\n' "$dim" "$victim" "$plain"
wait "$chat"
note "the second attempt began anew: text of two attempts is never mixed"

heading "4. The journal: what happened to that message"
run mozart journal show "$(newest_message flaky)"

heading "5. A poison message: three attempts, then a dead letter, and why; the agent lives on"
show mozart send flaky crash --wait
mozart send flaky crash --wait --timeout 30s && exit 1 || note "exit code $?"
run mozart dead ls
run mozart explain "$(newest_message flaky)"
run mozart send flaky "Still there?" --wait --timeout 30s

heading "6. The supervisor dies: agents go on, and are adopted by the next one"
supervisor=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' "$MOZART_DIR/mozart.json")
run kill -9 "$supervisor"
run mozart send hello "Nobody supervises you" --wait
run mozart up examples/pair --detach --wait
run mozart ps

heading "7. Stop: open turns finish, the data stays"
run mozart down
printf '\nThat took %d s.\n' $((SECONDS - begun))
