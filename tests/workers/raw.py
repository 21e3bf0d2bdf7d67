"""A worker that writes what it is told to, byte by byte.

A message is a JSON object: `out` goes to stdout and `err` to stderr, each character as the byte of that number, `$ID` as the message's id
and `$X` as the first of `fill` as often as the second says; then it exits with `exit`, if that is there. RAW_START decides how it says that
it is ready: `marked` with a byte order mark, `wrong` with a word that is not known.
"""

import json
import os
import sys


def write(stream, text):
    stream.write(text.encode("latin-1"))
    stream.flush()


READY = {"marked": '\xef\xbb\xbf{"type":"ready"}\n', "wrong": '{"type":"Ready"}\n'}
write(sys.stdout.buffer, READY.get(os.environ.get("RAW_START"), '{"type":"ready"}\n'))
for line in sys.stdin:
    line = json.loads(line)
    if line["type"] == "shutdown":
        break
    if line["type"] != "chat":
        continue
    told = json.loads(line["message"])
    write(sys.stderr.buffer, told.get("err", ""))
    text, times = told.get("fill", ("", 0))
    write(sys.stdout.buffer, told.get("out", "").replace("$ID", line["messageId"]).replace("$X", text * times))
    if "exit" in told:
        os._exit(told["exit"])
