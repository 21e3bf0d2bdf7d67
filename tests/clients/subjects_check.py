"""Runs the `nats` commands of a section of docs/subjects.md: python3 subjects_check.py URL DOCUMENT SECTION SHARDS.

It does what the `nats` command line does with them, as far as the document uses it: `req`, `sub`, `stream info` and `stream get`. Prints one JSON
object for each command: {"command": WORDS, "said": [what came]}. A `sub` runs beside the commands that follow it.
"""

import argparse
import asyncio
import base64
import json
import re
import shlex
import subprocess
import sys

import nats


def commands(path, section):
    """The lines of the section's shell blocks."""
    text = open(path, encoding="utf-8").read()
    part = re.split(r"^## ", text, flags=re.M)
    part = next(part for part in part if part.startswith(section))
    for block in re.findall(r"```sh\n(.*?)```", part, flags=re.S):
        yield from block.strip().splitlines()


def shown(message):
    return {"data": message.data.decode(), "headers": dict(message.headers or {})}


def parser():
    parser = argparse.ArgumentParser(prog="nats")
    verbs = parser.add_subparsers(dest="verb", required=True)
    req = verbs.add_parser("req")
    req.add_argument("subject")
    req.add_argument("body")
    req.add_argument("-H", dest="headers", action="append", default=[])
    req.add_argument("--replies", type=int, default=1)
    req.add_argument("--timeout", default="5s")
    req.add_argument("--wait-for-empty", action="store_true")
    sub = verbs.add_parser("sub")
    sub.add_argument("subject")
    sub.add_argument("--count", type=int, required=True)
    of = verbs.add_parser("stream").add_subparsers(dest="of", required=True)
    info = of.add_parser("info")
    info.add_argument("stream")
    info.add_argument("--json", action="store_true")
    get = of.add_parser("get")
    get.add_argument("stream")
    get.add_argument("--last-for", required=True)
    return parser


async def request(nc, args):
    headers = dict(header.split(": ", 1) for header in args.headers) or None
    inbox = nc.new_inbox()
    answers = await nc.subscribe(inbox)
    await nc.publish(args.subject, args.body.encode(), reply=inbox, headers=headers)
    said = []
    timeout = float(args.timeout.removesuffix("s"))
    while True:
        try:
            message = await answers.next_msg(timeout=30 if args.wait_for_empty else timeout)
        except nats.errors.TimeoutError:
            return said
        if args.wait_for_empty and not message.data and not message.headers:
            return said
        said.append(shown(message))
        if not args.wait_for_empty and len(said) == args.replies:
            return said


async def api(nc, what, body):
    return json.loads((await nc.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=5)).data)


async def get(nc, args):
    """The record, as soon as there is one: a person would ask again."""
    for _ in range(200):
        answer = await api(nc, f"STREAM.MSG.GET.{args.stream}", {"last_by_subj": args.last_for})
        if "message" in answer:
            return [{"data": base64.b64decode(answer["message"]["data"]).decode(), "headers": {}}]
        await asyncio.sleep(0.1)
    raise LookupError(answer["error"]["description"])


async def sequence(nc, subject):
    """Where the request is: the document leaves to its readers how they find out."""
    stream = await nc.jetstream().find_stream_name_by_subject(subject)
    return str((await api(nc, f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}))["message"]["seq"])


async def run(nc, words):
    args = parser().parse_args(words)
    if args.verb == "req":
        return await request(nc, args)
    if args.verb == "sub":
        subscription = await nc.subscribe(args.subject)
        await nc.flush()
        return [shown(await subscription.next_msg(timeout=60)) for _ in range(args.count)]
    if args.of == "info":
        return [{"data": json.dumps(await api(nc, f"STREAM.INFO.{args.stream}", {})), "headers": {}}]
    return await get(nc, args)


async def main():
    url, document, section, shards = sys.argv[1:]
    # How the document computes it.
    line = next(line for line in open(document, encoding="utf-8") if line.startswith("SHARD="))
    line = line.strip().replace(" echo 4)", f" echo {shards})")
    shard = subprocess.run(["sh", "-c", f"{line}; echo $SHARD"], capture_output=True, check=True, text=True).stdout.strip()
    nc = await nats.connect(url)
    beside = []
    for command in commands(document, section):
        if not command.startswith("nats "):
            continue
        # As a shell does outside of single quotes; the document has no others with it.
        words = shlex.split(command.replace("$SHARD", shard))[1:]
        if any("$SEQ" in word for word in words):
            seq = await sequence(nc, words[1].replace(".final", ".request"))
            words = [word.replace("$SEQ", seq) for word in words]
        task = asyncio.ensure_future(run(nc, words))
        if words[0] == "sub":
            beside.append((words, task))
            await nc.flush()
            await asyncio.sleep(0.2)
        else:
            print(json.dumps({"command": words, "said": await task}), flush=True)
    for words, task in beside:
        print(json.dumps({"command": words, "said": await task}), flush=True)
    await nc.close()


asyncio.run(main())
