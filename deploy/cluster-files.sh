#!/usr/bin/env bash
# Makes what the hosts of deploy/compose-cluster.yaml have beside it: a CA, certificates, passwords, and the key of the supervisors.
#
#   deploy/cluster-files.sh DIR ADDRESS ADDRESS ADDRESS
#
# DIR/host-N is for the host with the Nth address: copy it there, with its owners and modes (`sudo tar -cp`, `sudo tar -xp`). DIR/ca-key.pem signs the
# certificates of more hosts: keep it somewhere else. MOZART names the program that makes the key [default: target/release/mozart].
set -euo pipefail
fail() {
    printf 'error: %s: %s; try: %s\n' "$1" "$2" "$3" >&2
    exit "${4:-1}"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mozart=${MOZART:-$here/../target/release/mozart}
dir=${1:-}
shift || true
[ -n "$dir" ] && [ $# -ge 3 ] || fail 'no files are made' 'expected a folder and at least three addresses' "$0 DIR 10.0.0.1 10.0.0.2 10.0.0.3" 2
[ ! -e "$dir" ] || fail "$dir exists" 'it may hold the keys of a cluster' 'another folder' 4
command -v openssl >/dev/null || fail 'no certificates are made' 'openssl is missing' 'install openssl'
[ -x "$mozart" ] || fail 'no key is made' "$mozart is missing" 'make build, or MOZART=PROGRAM'
[ "$(printf '%s\n' "$@" | sort -u | wc -l)" = $# ] || fail 'no files are made' 'two hosts have the same address' 'one address for each host' 2
for address in "$@"; do
    case $address in
    *[!0-9A-Za-z.-]* | '') fail 'no files are made' "$address is neither an IPv4 address nor a host name" "$0 DIR 10.0.0.1 10.0.0.2 10.0.0.3" 2 ;;
    esac
done

umask 077
mkdir -p "$dir"
# Letters and digits only: they become parts of URLs.
password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
quietly() { "$@" 2>"$dir/openssl.log" || { cat "$dir/openssl.log" >&2 && exit 1; }; }

fleet=$(password) routes=$(password) key=$("$mozart" auth-key)
quietly openssl ecparam -name prime256v1 -genkey -noout -out "$dir/ca-key.pem"
quietly openssl req -x509 -new -key "$dir/ca-key.pem" -days 3650 -subj '/CN=mozart cluster CA' -out "$dir/ca.pem"

urls=() others=()
for address in "$@"; do
    urls+=("tls://mozart:$fleet@$address:4222")
    others+=("\"tls://routes:$routes@$address:6222\"")
done
number=0
for address in "$@"; do
    number=$((number + 1))
    host=$dir/host-$number
    mkdir "$host"
    case $address in
    *[!0-9.]*) name=DNS:$address ;;
    *) name=IP:$address ;;
    esac
    printf 'subjectAltName=%s,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' "$name" >"$dir/extensions"
    quietly openssl ecparam -name prime256v1 -genkey -noout -out "$host/server-key.pem"
    quietly openssl req -new -key "$host/server-key.pem" -subj "/CN=host-$number" -out "$dir/request.pem"
    quietly openssl x509 -req -in "$dir/request.pem" -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -CAcreateserial -days 3650 \
        -extfile "$dir/extensions" -out "$host/server.pem"
    cp "$dir/ca.pem" "$host/ca.pem"
    (
        IFS=,
        echo "routes: [${others[*]}]" >"$host/routes.conf"
        cat >"$host/.env" <<END
MOZART_HOST=$address
MOZART_NODE=host-$number
MOZART_URL=${urls[*]}
MOZART_NATS_PASSWORD=$fleet
MOZART_ROUTES_PASSWORD=$routes
$key
END
    )
    cp "$here/compose-cluster.yaml" "$host/compose.yaml"
    chmod 644 "$host/ca.pem" "$host/server.pem" "$host/compose.yaml"
    # The broker is this user in its container.
    if [ "$(id -u)" = 0 ]; then
        chown 65532:65532 "$host/server-key.pem" "$host/routes.conf"
    else
        echo "on host-$number: sudo chown 65532:65532 server-key.pem routes.conf"
    fi
done
rm -f "$dir"/{extensions,request.pem,openssl.log,ca.srl}
echo "made $dir/host-1 to host-$number: each is for one host, and holds secrets"
