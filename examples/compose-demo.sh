#!/usr/bin/env bash
# A fleet of containers on this host's engine: `make compose-demo` makes the images where they are missing, and runs it. It is a fleet of its own,
# on a port of its own, and leaves nothing behind but the images.
#
# ENGINE=docker|podman; without it, the one that answers.
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
for image in "mozart:$version" mozart-nats:2.15.1; do
    if ! "$ENGINE" image inspect "$image" >/dev/null 2>&1; then
        ${MAKE:-make} images
        break
    fi
done

# A fleet of its own, whatever runs on this machine already.
export COMPOSE_PROJECT_NAME=mozart-demo MOZART_NAMESPACE=compose-demo MOZART_NETWORK=mozart-demo MOZART_NATS_LISTEN=127.0.0.1:
MOZART_NATS_PASSWORD=demo$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export MOZART_NATS_PASSWORD
unset MOZART_IMAGE NATS_IMAGE MOZART_SOULS MOZART_BASE_IMAGE MOZART_NODE
if [ "$ENGINE" = podman ]; then
    export MOZART_RUNTIME=podman
    socket=$(podman info --format '{{.Host.RemoteSocket.Path}}')
    export MOZART_ENGINE_SOCKET=${MOZART_ENGINE_SOCKET:-${socket#unix://}}
fi

# The containers of this demo's agents: ids.
agents() {
    "$ENGINE" ps -aq --filter "label=dev.mozart.namespace=$MOZART_NAMESPACE"
}

# Takes away what there may be of this demo, an interrupted one's also.
tear_down() {
    local left
    # The node first: it lets its agents finish, and takes them away.
    timeout 90 "${compose[@]}" stop node || true
    left=$(agents)
    # shellcheck disable=SC2086
    [ -z "$left" ] || timeout 60 "$ENGINE" rm -f $left
    timeout 120 "${compose[@]}" down --volumes
}

log=$(mktemp)
clean_up() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ]; then
        echo >&2
        echo "The demo failed. The last lines of its containers:" >&2
        { cat "$log" && "${compose[@]}" ps -a && "${compose[@]}" logs --tail=15; } >&2 || true
    fi
    tear_down >"$log" 2>&1 || { [ "$code" != 0 ] || { code=1 && cat "$log" >&2; }; }
    rm -f "$log"
    exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Mozart's client, in the node's container: it has the broker's address, and need not be installed here.
mozart() {
    timeout 60 "${compose[@]}" exec -T node mozart "$@"
}

# The supervisor that leads: its service. Nothing where nobody does.
leader() {
    mozart doctor --only supervisor 2>/dev/null | sed -n 's/.* answers, \(.*\) leads.*/\1/p'
}

# until_true SECONDS COMMAND…: tries until it works.
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

# Shows a command of the client, then runs it.
run() {
    show "${compose[@]}" exec node mozart "$@"
    mozart "$@"
}

note() {
    printf '%s  (%s)%s\n' "$dim" "$1" "$plain"
}

begun=$SECONDS
tear_down >"$log" 2>&1 || true

heading "1. Start: a broker, two supervisors, a node, and the agent of examples/hello"
show "${compose[@]}" up -d
timeout 180 "${compose[@]}" up -d >"$log" 2>&1
until_true 60 mozart wait hello --for running --timeout 10s
run ps
show "$ENGINE" ps
"$ENGINE" ps --filter "network=$MOZART_NETWORK" --format '{{.Names}}  {{.Status}}' | sort
[ -n "$(agents)" ] || fail "the agent is in no container" "the node runs it otherwise" "${compose[*]} logs node"
note "the agent is a container of its own: the node started it through the host's engine"

heading "2. A message: it is on disk before its id is printed"
run send hello "Hello, Mozart" --wait

heading "3. The supervisor that leads dies"
leads=$(leader)
victim=$("$ENGINE" ps --format '{{.Names}}' --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
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
tear_down >"$log" 2>&1
left=$(agents)
[ -z "$left" ] || fail "containers of agents are left" "$left" "$ENGINE rm -f"
trap - EXIT
rm -f "$log"
printf '\nThat took %d s.\n' $((SECONDS - begun))
