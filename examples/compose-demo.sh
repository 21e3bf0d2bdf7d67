#!/usr/bin/env bash
# A fleet of containers on this host's engine: `make compose-demo` builds missing images, and runs it. It is a separate fleet on its own port,
# and leaves nothing behind but images.
#
# ENGINE=docker|podman; by default, the one that answers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/engine.sh

case $ENGINE in
docker) known=('docker compose' docker-compose) ;;
podman) known=(podman-compose 'podman compose') ;;
esac
compose=()
for one in "${known[@]}"; do
    read -ra compose <<<"$one"
    ! "${compose[@]}" version >/dev/null 2>&1 || break
    compose=()
done
[ "${#compose[@]}" -gt 0 ] ||
    fail "compose is missing" "none of these works: ${known[*]}" "install the compose plugin or docker-compose (podman-compose for podman)"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
export MOZART_IMAGE=mozart:$version NATS_IMAGE=mozart-nats:2.15.1
for image in "$MOZART_IMAGE" "$NATS_IMAGE"; do
    if ! "$ENGINE" image inspect "$image" >/dev/null 2>&1; then
        ${MAKE:-make} images
        break
    fi
done

# A separate fleet, regardless of what is already running on this machine, and of what .env and compose.override.yaml set for another fleet.
project=mozart-demo
compose+=(-p "$project" -f compose.yaml)
export MOZART_NAMESPACE=compose-demo MOZART_NETWORK=$project MOZART_NATS_LISTEN=127.0.0.1: MOZART_API_PUBLISH=127.0.0.1:
MOZART_NATS_PASSWORD=demo$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export MOZART_NATS_PASSWORD
eval "$("$ENGINE" run --rm "$MOZART_IMAGE" auth-key)"
export MOZART_AUTH_SEED MOZART_AUTH_ISSUER MOZART_AUTH_XKEY MOZART_AUTH_NOBODY
export MOZART_SOULS=./examples/hello MOZART_NODE=node-1 MOZART_BASE_IMAGE=mozart-base:$version MOZART_STOP_GRACE=1m
unset COMPOSE_FILE COMPOSE_PROJECT_NAME COMPOSE_PROFILES
# With podman-compose 1.0, .env takes precedence.
if [ "${compose[0]}" = podman-compose ] &&
    theirs=$(grep -soE '^(export +)?(NATS_IMAGE|MOZART_(BASE_IMAGE|IMAGE|NAMESPACE|NATS_LISTEN|NETWORK|NODE|SOULS|STOP_GRACE)) *=' .env); then
    fail "cannot make a fleet of its own" "podman-compose would take this from .env: ${theirs//$'\n'/ }" "move .env away meanwhile"
fi
export MOZART_RUNTIME=$ENGINE
if [ -z "${MOZART_ENGINE_SOCKET:-}" ]; then
    case $ENGINE in
    docker) socket=${DOCKER_HOST:-unix:///var/run/docker.sock} ;;
    podman) socket=${CONTAINER_HOST:-$(podman info --format '{{.Host.RemoteSocket.Path}}')} ;;
    esac
    export MOZART_ENGINE_SOCKET=${socket#unix://}
fi
[ -S "$MOZART_ENGINE_SOCKET" ] ||
    fail "the node cannot reach $ENGINE" "there is no socket at $MOZART_ENGINE_SOCKET" \
        "start it (for podman: systemctl enable --now podman.socket), or MOZART_ENGINE_SOCKET=PATH"

# The ids of the containers of this demo's agents.
agents() {
    "$ENGINE" ps -aq --filter "label=dev.mozart.namespace=$MOZART_NAMESPACE"
}

# The volumes with a shim: one for each build of the shim, shared by all fleets of this engine.
shims() {
    "$ENGINE" volume ls -q --filter label=dev.mozart.shim
}

# Removes everything of this demo, also of an interrupted one.
tear_down() {
    local left
    timeout 180 "${compose[@]}" down --volumes || true
    # Empty, unless the node was killed.
    left=$(agents)
    # shellcheck disable=SC2086
    [ -z "$left" ] || timeout 60 "$ENGINE" rm -f $left
    # An old podman-compose does not remove the network, and none removes it while an agent uses it.
    ! "$ENGINE" network inspect "$MOZART_NETWORK" || timeout 60 "$ENGINE" network rm "$MOZART_NETWORK"
    # Only if this demo's node created the volume. If another fleet uses it by now, the engine refuses.
    [ -z "$shim" ] || grep -qx "$shim" <<<"$had" || timeout 60 "$ENGINE" volume rm "$shim" || true
}

# What is left of this demo.
left() {
    agents
    local label=label=com.docker.compose.project=$project
    "$ENGINE" ps -aq --filter "$label"
    "$ENGINE" volume ls -q --filter "$label"
    "$ENGINE" network ls -q --filter "name=^$MOZART_NETWORK\$"
}

log=$(mktemp)
clean_up() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ]; then
        echo >&2
        echo "The demo failed. The last lines of its containers:" >&2
        {
            cat "$log"
            "$ENGINE" ps -a --filter "label=com.docker.compose.project=$project" --format '{{.Names}}  {{.Status}}'
            timeout 60 "${compose[@]}" logs --tail=15
        } >&2 || true
    fi
    tear_down >"$log" 2>&1 || { [ "$code" != 0 ] || { code=1 && cat "$log" >&2; }; }
    rm -f "$log"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The client in the node's container: it has the broker's address, and need not be installed here.
mozart() {
    timeout 60 "${compose[@]}" exec -T node mozart "$@"
}

# The service name of the supervisor that leads; empty if there is no leader.
leader() {
    mozart doctor --only supervisor 2>/dev/null | sed -n 's/.* answers, \(.*\) leads.*/\1/p'
}

# until_true SECONDS COMMAND…: retries until the command succeeds.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >"$log" 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.5
    done
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

# Shows a client command, then runs it.
run() {
    show "${compose[@]}" exec node mozart "$@"
    mozart "$@"
}

note() {
    printf '%s  (%s)%s\n' "$dim" "$1" "$plain"
}

begun=$SECONDS
had=$(shims) shim=''
tear_down >"$log" 2>&1 || true

heading "1. Start: a broker, two supervisors, a node, and the agent of examples/hello"
show "${compose[@]}" up -d
timeout 180 "${compose[@]}" up -d >"$log" 2>&1
until_true 60 mozart wait hello --for running --timeout 10s
run ps
show "$ENGINE" ps
"$ENGINE" ps --filter "network=$MOZART_NETWORK" --format '{{.Names}}  {{.Status}}' | sort
agent=$(agents)
[ -n "$agent" ] || fail "the agent is in no container" "the node runs it otherwise" "${compose[*]} logs node"
shim=$("$ENGINE" inspect -f '{{range .Mounts}}{{if eq .Destination "/.mozart"}}{{.Name}}{{end}}{{end}}' "$agent")
note "the agent is a container of its own: the node started it through the host's engine"

heading "2. A message: it is on disk before its id is printed"
run send hello "Hello, Mozart" --wait

heading "3. The supervisor that leads dies"
leads=$(leader)
victim=$("$ENGINE" ps --format '{{.Names}}' --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$leads")
show "$ENGINE" kill "$victim"
"$ENGINE" kill "$victim" >/dev/null
run send hello "Nobody leads" --wait
note "no supervisor is on a message's path"
another_leads() {
    local now
    now=$(leader)
    [ -n "$now" ] && [ "$now" != "$leads" ]
}
failed=$SECONDS
until_true 30 another_leads
note "$(leader) took over after $((SECONDS - failed)) s, and restarted nobody"
run ps

heading "4. Stop: the node drains its agents, then all of it goes, the data too"
show "${compose[@]}" down --volumes
timeout 180 "${compose[@]}" down --volumes >"$log" 2>&1
[ -z "$(agents)" ] || fail "agents are left" "the node did not take their containers away" "${compose[*]} logs node"
tear_down >"$log" 2>&1
[ -z "$(left)" ] || fail "something of the demo is left" "$(left | tr '\n' ' ')" "$ENGINE rm -f, $ENGINE volume rm, $ENGINE network rm"
trap - EXIT
rm -f "$log"
printf '\nThat took %d s.\n' $((SECONDS - begun))
