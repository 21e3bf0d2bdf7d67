#!/usr/bin/env bash
# Makes the images of compose.yaml out of what `make build` and `make setup` left here. No registry is asked for anything.
#
#   scripts/images.sh             mozart:<version> and mozart-nats:<version>; and .env, with the broker's password and the supervisors' key
#   scripts/images.sh tree DIR    only what goes into them: the folders DIR/mozart, DIR/nats and DIR/data
#   scripts/images.sh test DIR    mozart:test and mozart-nats:test, for tests, from DIR/mozart and DIR/mozart-shim
#
# ENGINE=docker|podman; without it, the one that answers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

programs=target/release

# tree DIR: Containerfile and this script build from the same folders.
tree() {
    local dir=$1 bin=usr/local/bin
    umask 022
    mkdir -p "$dir"/{mozart,nats}/{etc,$bin,tmp} "$dir"/nats/etc/nats "$dir/data"
    chmod 1777 "$dir"/{mozart,nats}/tmp
    install -m 755 "$programs"/mozart{,-shim} "$dir/mozart/$bin/"
    # The broker's health check is `mozart doctor`: there is no shell and no curl beside it.
    install -m 755 .tools/nats-server "$programs/mozart" "$dir/nats/$bin/"
    install -m 644 deploy/{nats,nats-cluster,accounts}.conf "$dir/nats/etc/nats/"
    for etc in "$dir"/{mozart,nats}/etc; do
        printf '%s\n' 'root:x:0:0:root:/root:/sbin/nologin' 'mozart:x:65532:65532:mozart:/tmp:/sbin/nologin' >"$etc/passwd"
        printf '%s\n' 'root:x:0:' 'mozart:x:65532:' >"$etc/group"
        # The static binaries look names up by this.
        echo 'hosts: files dns' >"$etc/nsswitch.conf"
    done
    # For a broker with TLS.
    for certificates in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        if [ -s "$certificates" ]; then
            mkdir -p "$dir/mozart/etc/ssl/certs"
            install -m 644 "$certificates" "$dir/mozart/etc/ssl/certs/ca-certificates.crt"
            break
        fi
    done
}

# secret NAME WHAT COMMAND...: appends what the command prints to .env, unless NAME is there. It stays what it is: others have it.
secret() {
    local name=$1 what=$2
    shift 2
    if [ -n "${!name:-}" ] || grep -qs "^$name=." .env; then
        return
    fi
    (
        umask 077
        # Its last line may have no end.
        [ -z "$(tail -c 1 .env 2>/dev/null)" ] || echo >>.env
        "$@" >>.env
    )
    chmod 600 .env
    echo "wrote .env: $what"
}

# Letters and digits only: it becomes a part of URLs.
password() {
    printf 'MOZART_NATS_PASSWORD=%s\n' "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
}

secrets() {
    secret MOZART_NATS_PASSWORD 'the password of the broker' password
    secret MOZART_AUTH_SEED 'the key with which the supervisors answer for the logins of agents' "$programs/mozart" auth-key
}

purpose=${1:-} how='make images'
case $purpose in
'') ;;
tree)
    tree "${2:?a folder}"
    exit
    ;;
test) programs=${2:?a folder} how='make test' ;;
*)
    printf 'error: %s is no purpose of images; try: none, tree DIR, test DIR\n' "$purpose" >&2
    exit 2
    ;;
esac

. scripts/engine.sh
for program in "$programs"/mozart{,-shim} .tools/nats-server; do
    [ -x "$program" ] || fail "$program is missing" "not built yet" "$how"
done
# Whatever the build was: a program that needs libraries does not start FROM scratch.
if ldd "$programs/mozart" 2>/dev/null | grep -q '=>'; then
    fail "$programs/mozart does not run in an image" "it is not static" "$how"
fi
if [ "$purpose" = test ]; then
    version=test nats=test
else
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
    nats=$(.tools/nats-server --version | sed 's/.*v//')
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree "$scratch/tree"
if [ "$purpose" = test ]; then
    # They are large, and their names and lines are of no use there.
    strip "$scratch"/tree/{mozart,nats}/usr/local/bin/mozart
fi
sed -n '/^FROM scratch AS nats/,$p' Containerfile | sed 's, --from=build\(.*\) /tree/,\1 tree/,' >"$scratch/Containerfile"

# build STAGE IMAGE
build() {
    local log=$scratch/log old
    old=$("$ENGINE" image inspect -f '{{.Id}}' "$2" 2>/dev/null || true)
    # The old builder warns that it is old; an error is in the same log.
    if ! "$ENGINE" build -f "$scratch/Containerfile" --target "$1" -t "$2" \
        ${revision:+--label "org.opencontainers.image.revision=$revision"} "$scratch" >"$log" 2>&1; then
        cat "$log" >&2
        fail "cannot build $2" "\`$ENGINE build\` failed" "see its messages above"
    fi
    # The one before it, if it has no other name and nothing uses it.
    if [ -n "$old" ] && [ "$old" != "$("$ENGINE" image inspect -f '{{.Id}}' "$2")" ] &&
        [ "$("$ENGINE" image inspect -f '{{len .RepoTags}}' "$old" 2>/dev/null)" = 0 ]; then
        "$ENGINE" rmi "$old" >/dev/null 2>&1 || true
    fi
    printf '%s %s\n' "$2" "$("$ENGINE" image inspect -f '{{.Size}}' "$2" | awk '{ printf "%.1f MB", $1 / 1e6 }')"
}
revision=$(git rev-parse HEAD 2>/dev/null || true)
build nats "mozart-nats:$nats"
build mozart "mozart:$version"
[ "$purpose" = test ] || secrets
