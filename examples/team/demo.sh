#!/usr/bin/env bash
# The agents of examples/team: a schedule, routes, and a question to a person. In a temporary folder, of which nothing is left.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. examples/lib.sh

begun=$SECONDS

# Waits until the editor asks a person; the id of the question.
question() {
    local end=$((SECONDS + 30)) asked
    while asked=$(mozart questions editor -o json) && [ "$(tr -d ' \n' <<<"$asked")" = "[]" ]; do
        [ "$SECONDS" -lt "$end" ] || {
            echo "error: nobody is asked; cause: the editor did not get there in 30 s; try: mozart logs editor" >&2
            return 1
        }
        sleep 0.2
    done
    of requestId <<<"$asked"
}

heading "1. Start: an editor, a writer and a checker"
run mozart up examples/team --detach --wait
run mozart schedule ls

heading "2. A draft: the editor asks the writer, then the checker"
run mozart send editor "draft tea" --wait

heading "3. The schedule: what it would do at eight is done now. The editor asks a person"
show mozart schedule run editor
message=$(mozart schedule run editor)
echo "$message"
request=$(question)
run mozart questions
run mozart answer "$request" yes
run mozart attach "$message"

heading "4. The same without an approval; a question and its answer are stored, so the editor may die meanwhile"
message=$(mozart send editor "coffee")
request=$(question)
run mozart restart editor
mozart wait editor --for running --timeout 30s >/dev/null
request=$(question)
run mozart answer "$request" no
run mozart attach "$message"

heading "5. The journal: each question between agents is a message, too"
run mozart journal ls --limit 10
printf '\nThat took %d s.\n' $((SECONDS - begun))
