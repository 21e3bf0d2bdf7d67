#!/usr/bin/env bash
# The agent of examples/ledger is killed at every step of a payment, and books each payment once. In a temporary folder, of which nothing is left.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

begun=$SECONDS
fleet=$MOZART_DIR/ledger
mkdir -p "$fleet"
cp examples/ledger/ledger.{soul,py} "$fleet"
mkdir -p "$fleet/data/crash"

places=()
for step in withdraw deposit receipt; do
    places+=("before-$step" "done-$step" "stored-$step")
done

# pay NAME PLACE…: a payment during which the worker dies at these places.
pay() {
    local name=$1 place
    shift
    for place in "$@"; do
        touch "$fleet/data/crash/$place"
    done
    mozart send ledger "pay 10 to alice" --conversation shop --id "$name" --wait --timeout 60s >/dev/null
    mozart journal show "$name" -o json | python3 -c '
import json, sys
it = json.load(sys.stdin)
print("%-20s %-10s %2d attempts  %s" % (it["messageId"], it["status"], it["attempts"], it["response"]))
'
}

heading "1. Start"
run mozart up "$fleet" --detach --wait

heading "2. A payment: three steps, each of which is stored before the next one"
run mozart send ledger "pay 10 to alice" --conversation shop --wait

heading "3. The worker is killed: before a step, when it is done and not stored, and when it is stored"
for place in "${places[@]}"; do
    pay "$place" "$place"
done

heading "4. The worker is killed at all of these places of one payment"
pay everywhere "${places[@]}"
[ -z "$(ls "$fleet/data/crash")" ] || {
    echo "error: the worker did not die everywhere; cause: these are left: $(ls "$fleet/data/crash"); try: mozart logs ledger" >&2
    exit 1
}

heading "5. The book: what was done again is booked once"
python3 - "$fleet/data/book.db" <<'PY'
import sqlite3, sys

book = sqlite3.connect(sys.argv[1])
one = lambda query: book.execute(query).fetchone()[0]
payments, calls = one("SELECT count(*) FROM receipt"), one("SELECT count(*) FROM call")
booked, again = one("SELECT count(*) FROM booking") + payments, one("SELECT count(*) - count(DISTINCT key) FROM call")
balances = dict(book.execute("SELECT account, sum(amount) FROM booking GROUP BY account"))
print(f"{payments} payments, {booked} bookings and receipts; the book was asked {calls} times, {again} times for what it had already")
print(f"balances: {balances}")
assert (payments, booked, balances) == (11, 33, {"ours": -110, "alice": 110}), "something is booked twice, or not at all"
PY

heading "6. The history: what the agent remembers of this conversation"
run mozart send ledger statement --conversation shop --wait

heading "7. What happened to the payment with a crash everywhere"
run mozart explain everywhere
printf '\nThat took %d s.\n' $((SECONDS - begun))
