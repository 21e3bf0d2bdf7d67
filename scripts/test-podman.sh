#!/usr/bin/env bash
# The tests of agents in containers, with podman in docker's place: its service on a socket of its own, with the user's configuration.
#
#   scripts/test-podman.sh [ARGS of nextest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v podman >/dev/null; then
    echo 'SKIPPED: podman is not installed' >&2
    exit 0
fi

scratch=$(mktemp -d)
socket=$scratch/podman.sock
podman system service --time=0 "unix://$socket" 2>"$scratch/log" &
service=$!
trap 'kill "$service" 2>/dev/null || true; wait "$service" 2>/dev/null || true; rm -rf "$scratch"' EXIT
for _ in $(seq 100); do
    [ ! -S "$socket" ] || break
    kill -0 "$service" 2>/dev/null || break
    sleep 0.1
done
[ -S "$socket" ] || {
    printf 'error: podman does not serve; cause: %s; try: podman info\n' "$(tail -n 1 "$scratch/log")" >&2
    exit 6
}

ENGINE=podman scripts/test-image.sh
# The rows and the campaign; what else a container is differs between the engines in what they tell of it.
DOCKER_HOST=unix://$socket cargo nextest run -p system-tests \
    -E 'test(/^seed_rows::docker/) + test(chaos_with_containers)' "$@"
