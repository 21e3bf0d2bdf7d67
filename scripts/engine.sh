# Sourced by the scripts that need a container engine: sets ENGINE to docker or podman, or ends with what is missing.
# shellcheck shell=bash

fail() {
    printf 'error: %s; cause: %s; try: %s\n' "$1" "$2" "$3" >&2
    exit 6
}

if [ -z "${ENGINE:-}" ]; then
    for ENGINE in docker podman ''; do
        [ -z "$ENGINE" ] || ! "$ENGINE" info >/dev/null 2>&1 || break
    done
    [ -n "$ENGINE" ] || fail "no container engine" "neither docker nor podman answers" \
        "start one, or install one; ENGINE=docker|podman names it"
fi
case $ENGINE in
docker | podman) ;;
*) fail "cannot use the engine $ENGINE" "only docker and podman are known" "ENGINE=docker or ENGINE=podman" ;;
esac
"$ENGINE" info >/dev/null 2>&1 ||
    fail "cannot use $ENGINE" "\`$ENGINE info\` does not work" "see what it says: is the engine running, may you use it?"
export ENGINE
