#!/usr/bin/env bash
# The rules of ARCHITECTURE.md that neither Cargo nor clippy can enforce: what is absent, and where.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

broken=0

# absent WHAT PATTERN PATHSPEC…: no tracked or new file of these may hold a line that matches.
absent() {
    local what=$1 pattern=$2 found code=0
    shift 2
    found=$(git grep --untracked -nE -e "$pattern" -- "$@") || code=$?
    case $code in
    0) printf 'house: %s\n%s\n' "$what" "$found" >&2 ;;
    1) return 0 ;; # nothing found
    *) printf 'house: %s: git grep failed\n' "$what" >&2 ;;
    esac
    broken=1
}

absent 'only common/broker speaks NATS' 'async_nats::|use async_nats|^async-nats' \
    '*.rs' '*/Cargo.toml' ':!common/broker'
absent 'only common/src/codec.rs knows bincode' 'bincode::' \
    '*.rs' ':!common/src/codec.rs'
absent 'only common/src/subject.rs spells a subject' '"mozart\.(\{|[^"]*\.(journal|history|index|events|attempts|control|snapshot|files|dead|logs|shim|node|done|query|reply|api)\b)|"(agents\.(prompt|hb|status)|\$SRV)\.' \
    '*.rs' ':!common/src/subject.rs' ':!common/src/subject/*' ':!tests' ':!*/tests/*' ':!*/tests.rs'
absent 'the control core knows no clock, no randomness and no async' \
    'Instant::now|SystemTime|tokio::|async fn|rand::|HashMap' 'supervisor/core/src/*.rs'
absent 'common knows no clock, no tokio and no NATS' \
    'Instant::now|SystemTime::now|tokio::|broker::' 'common/src/*.rs'
absent 'api, chaos, cli, control and node do not know each other, and only cli and mozart know clap' \
    '^(api|cli|control|node|clap)\b' supervisor/{api,chaos,control,mcp,node,runtime}/Cargo.toml clients/rust/Cargo.toml
absent 'the client knows neither the supervisor nor the node, nor the API' \
    '^(api|control|node)\b' supervisor/cli/Cargo.toml
absent 'the client code prints nothing and knows no HTTP' 'println|print!|axum|hyper' clients/rust
absent 'the tools of MCP know nothing of what carries them' 'axum|hyper|println|print!' supervisor/mcp
absent 'every queue is bounded' 'unbounded_channel|mpsc::unbounded' '*.rs'
absent 'a test is mended or removed, not ignored' '#\[ignore' '*.rs'
absent 'nothing is left for later' '\b(todo|unimplemented)!\(' '*.rs'

# One source, wherever it is installed or copied to: docs/worker-protocol.md.
copies=$(git ls-files --cached --others --exclude-standard '*mozart_worker.py')
[ "$copies" = sdk/python/mozart_worker.py ] || {
    printf 'house: mozart_worker.py belongs into sdk/python alone:\n%s\n' "$copies" >&2
    broken=1
}

# Versions that stand in the files of the images.
expected=$(
    sed -n 's/.*local version=\([0-9.]*\) program.*nats-server$/mozart-nats:\1/p' scripts/setup.sh
    sed -n 's/^version = "\(.*\)"/mozart:\1/p' Cargo.toml
)
for file in compose.yaml Containerfile deploy/compose-cluster.yaml deploy/quadlet; do
    found=$(grep -rhoE 'mozart(-nats)?:[0-9][0-9A-Za-z.-]*' "$file" | grep -v ':4222$' | LC_ALL=C sort -u)
    [ "$found" = "$expected" ] || {
        printf 'house: %s names\n%s\nexpected\n%s\n' "$file" "$found" "$expected" >&2
        broken=1
    }
done
found=$(grep -oE 'mozart-nats:[0-9][0-9A-Za-z.-]*' examples/compose-demo.sh | LC_ALL=C sort -u) || true
[ "$found" = "$(head -n 1 <<<"$expected")" ] || {
    printf 'house: examples/compose-demo.sh names\n%s\nexpected\n%s\n' "$found" "$(head -n 1 <<<"$expected")" >&2
    broken=1
}
labels=$(sed -n 's/.*image.version="\(.*\)".*/\1/p' Containerfile)
[ "$labels" = "$(grep -o '[^:]*$' <<<"$expected")" ] || {
    printf 'house: Containerfile labels its images with\n%s\nfor\n%s\n' "$labels" "$expected" >&2
    broken=1
}

longest=600
while IFS= read -r file; do
    [ -f "$file" ] || continue
    lines=$(wc -l <"$file")
    if [ "$lines" -gt "$longest" ]; then
        printf 'house: %s has %d lines, at most %d: split it\n' "$file" "$lines" "$longest" >&2
        broken=1
    fi
done < <(git ls-files --cached --others --exclude-standard '*.rs')

[ "$broken" = 0 ] && echo 'house: in order'
exit "$broken"
