#!/usr/bin/env bash
# Makes the image mozart-test-python for tests with containers: a small Debian with Python, /bin/sh, and the tests' workers in /workers.
# It comes from Debian's packages, by debootstrap; no registry of images is asked. Prints its name, with a tag made of all that it is made of.
#
# Quick when nothing is to do. The root is kept in .tools/: for changed workers or another engine it takes seconds. Only to make the root, one
# has to be root. ENGINE=docker|podman; without it, the one that answers. DEBIAN_MIRROR=URL for packages from elsewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/engine.sh

# Python of python3-minimal alone has no json.
include=python3-minimal,libpython3-stdlib
exclude=adduser,apt,debian-archive-keyring,e2fsprogs,gpgv,libapt-pkg6.0,libgnutls30,login,logsave,passwd,sysvinit-utils,tzdata
workers=(tests/workers/*.py examples/flaky/worker.py sdk/python/mozart_worker.py)

setup_debootstrap() {
    [ "$(id -u)" = 0 ] ||
        fail "cannot make the test image" "debootstrap has to run as root" "sudo make test-image, once"
    if command -v debootstrap >/dev/null; then
        return
    fi
    command -v apt-get >/dev/null ||
        fail "cannot make the test image" "debootstrap is missing" "install debootstrap"
    echo 'installing debootstrap' >&2
    local install=(apt-get install -qq -y --no-install-recommends debootstrap debian-archive-keyring)
    export DEBIAN_FRONTEND=noninteractive
    "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; } >&2 ||
        fail "cannot make the test image" "apt-get could not install debootstrap" "see its messages above"
}

# make_root FILE: a tar of the root, without what nobody needs in a test.
make_root() {
    local dir=$scratch/root
    setup_debootstrap
    if [ -z "${http_proxy:-}" ] && command -v apt-config >/dev/null; then
        eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
        export http_proxy=${http_proxy:-}
    fi
    echo 'making a root with Python: half a minute' >&2
    debootstrap --variant=minbase --include="$include" --exclude="$exclude" \
        bookworm "$dir" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$scratch/log" 2>&1 || {
        tail -n 20 "$scratch/log" "$dir/debootstrap/debootstrap.log" >&2 2>/dev/null || true
        fail "cannot make the test image" "debootstrap failed" "see its messages above; DEBIAN_MIRROR=URL for another mirror"
    }
    (
        cd "$dir"
        rm -rf etc/{hostname,resolv.conf} usr/bin/perl* usr/lib/*-linux-gnu/{gconv,perl-base} \
            usr/share/{doc,info,i18n,lintian,locale,man,zoneinfo} var/cache/{apt,debconf} var/lib/apt var/log
        mkdir var/log
    )
    tar -C "$dir" --exclude='./dev/*' --numeric-owner -cf "$1.part" .
    mv "$1.part" "$1"
}

recipe=$(cat scripts/test-image.sh <(uname -m) | sha256sum | cut -c1-12)
root=.tools/test-python-$recipe.tar
image=mozart-test-python:$(sha256sum scripts/test-image.sh "${workers[@]}" | sha256sum | cut -c1-12)

if ! "$ENGINE" image inspect "$image" >/dev/null 2>&1; then
    mkdir -p .tools
    # Not in /tmp, where device files may not work. Should debootstrap be interrupted, /proc is still mounted there.
    scratch=$(mktemp -d "$PWD/.tools/test-python.XXXXXX")
    trap 'umount "$scratch"/root/{proc,sys} 2>/dev/null || true; rm -rf --one-file-system "$scratch"' EXIT
    if [ ! -f "$root" ]; then
        rm -f .tools/test-python-*.tar
        make_root "$root"
    fi
    mkdir -m 1777 "$scratch/workers"
    cp "${workers[@]}" "$scratch/workers/"
    chmod 644 "$scratch"/workers/*
    cp "$root" "$scratch/image.tar"
    tar -C "$scratch" --owner=0 --group=0 --numeric-owner -rf "$scratch/image.tar" ./workers
    "$ENGINE" import --change 'WORKDIR /workers' --change 'CMD ["/bin/sh"]' "$scratch/image.tar" "$image" >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        fail "cannot make the test image" "\`$ENGINE import\` failed" "see its messages above"
    }
fi
"$ENGINE" tag "$image" mozart-test-python:latest
echo "$image"
