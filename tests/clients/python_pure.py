"""What is pure in our own Python client: names, positions, what a reader is shown, room, the index. Needs neither a fleet nor a package."""

import functools
import json
import uuid

from mozart_client import UsageError, _archive, _room
from mozart_client._names import Key, Names, Ref, shard_of, tag_of
from mozart_client._reader import STRIDE, Batch, Next, Numbers, Place, Reader


def second(index):
    return STRIDE + index


def delivered(seq, incarnation):
    return {"seq": seq, "type": "delivered", "incarnation": incarnation}


def text(seq, words):
    return {"seq": seq, "type": "text", "text": words}


def error(seq, why):
    return {"seq": seq, "type": "error", "error": why}


def reset(attempt):
    return {"seq": (attempt - 1) * STRIDE + 1, "type": "reset", "attempt": attempt}


def batch(incarnation, *events):
    lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    attempt = (events[0]["seq"] - 1) // STRIDE + 1
    found = Batch.of({"Mozart-Attempt": str(attempt), "Mozart-Incarnation": str(incarnation)}, lines + b"no JSON\n{\"type\":\"newer\",\"seq\":1}\n")
    assert found.events == list(events), found
    return found


def completed(response, attempts=1, incarnation=1, tail=()):
    return {"status": "completed", "response": response, "attempts": attempts, "incarnation": incarnation, "tail": list(tail)}


def words(items):
    word = {
        "text": lambda item: item.rest["text"],
        "error": lambda item: "!" + item.rest["error"],
        "reset": lambda item: f"reset {item.attempt}",
        "done": lambda item: "=" + item.rest["status"],
    }
    return [word[item.type](item) for item in items]


def store(reader, *batches):
    for one in batches:
        reader.stored_part(one)
    return reader.stored_end()


def reads():
    """As the readers of the command line and of the API: clients/rust/src/stream_tests.rs."""
    events = [delivered(1, 1), text(2, "a"), text(3, "b"), text(4, "c")]
    reader = Reader(Place())
    assert reader.finally_(completed("ab", tail=events[:3])) is Next.END
    assert words(reader.out) == ["a", "b", "=completed"]

    # A gap is filled from the store, and nothing comes twice.
    reader = Reader(Place())
    assert reader.live(batch(1, *events[:2])) is Next.WAIT
    assert reader.live(batch(1, events[3])) is Next.READ
    assert words(reader.out) == ["a"]
    assert store(reader, batch(1, *events[:2]), batch(1, *events[2:])) is Next.WAIT
    assert words(reader.out) == ["a", "b", "c"]
    assert not reader.is_behind(batch(1, events[3])) and reader.is_behind(batch(1, text(5, "d")))
    assert reader.is_behind(batch(2, delivered(1, 2))), "a later incarnation"

    # A final state that overtakes its events waits for them.
    reader = Reader(Place())
    assert reader.finally_(completed("ab")) is Next.READ
    assert store(reader, batch(1, *events[:3])) is Next.END
    assert words(reader.out) == ["a", "b", "=completed"]

    # Another attempt begins with a reset; late words of the first one are left out.
    crash = batch(1, *events[:2], error(3, "exit code 1"))
    following = batch(2, reset(2), delivered(second(2), 2), text(second(3), "b"))
    reader = Reader(Place())
    assert (reader.live(crash), reader.live(following)) == (Next.WAIT, Next.WAIT)
    reader.live(batch(1, text(4, "late")))
    assert reader.finally_(completed("bc", 2, 2, [text(second(4), "c")])) is Next.END
    assert words(reader.out) == ["a", "!exit code 1", "reset 2", "b", "c", "=completed"]

    # Whoever knows the beginning sees exactly what follows.
    crash = batch(1, *events[:3], error(4, "exit code 1"))
    following = batch(2, reset(2), delivered(second(2), 2), text(second(3), "c"))
    for known, expected in [
        (0, ["a", "b", "!exit code 1", "reset 2", "c", "=completed"]),
        (2, ["b", "!exit code 1", "reset 2", "c", "=completed"]),
        (4, ["reset 2", "c", "=completed"]),
        (second(1), ["c", "=completed"]),
        (second(3), ["=completed"]),
    ]:
        reader = Reader(Place(known))
        store(reader, crash, following)
        if not reader.has_ended:
            reader.finally_(completed("c", 2, 2))
        assert words(reader.out) == expected, (known, words(reader.out))

    # Two incarnations have begun the first attempt.
    first, again = batch(1, *events), batch(2, delivered(1, 2), text(2, "x"), text(3, "y"))
    whole = ["reset 1", "x", "y", "z", "=completed"]
    for known, expected in [
        (Place(0), ["a", "b", "c", *whole]),
        (Place(3), ["c", *whole]),
        (Place(4), whole),
        (Place(3, 1), ["c", *whole]),
        (Place(0, 2), ["x", "y", "z", "=completed"]),
        (Place(4, 2), ["=completed"]),
    ]:
        reader = Reader(known)
        store(reader, first, again)
        reader.live(batch(2, text(4, "z")))
        reader.finally_(completed("xyz", 1, 2))
        assert words(reader.out) == expected, (known, words(reader.out))

    # What is lost for good is mended from the answer.
    reader = Reader(Place())
    reader.live(batch(1, *events[:2]))
    assert reader.finally_(completed("abc", tail=[text(4, "c")])) is Next.READ
    assert reader.stored_end() is Next.END
    assert words(reader.out) == ["a", "c", "reset 1", "abc", "=completed"]

    # An agent that is stopped ends the stream, its message does not.
    reader = Reader(Place())
    reader.live(batch(1, delivered(1, 1)))
    reader.exited(7, "signal 9")
    reader.exited(1, "signal 9")
    reader.close("a was stopped")
    assert words(reader.out) == ["!signal 9", "!a was stopped", "=delivered"] and reader.has_ended

    # Whatever the pieces and their order: the texts since the last reset are the answer.
    head, last = [text(n, "x") for n in range(2, 8)], [text(second(n), str(n)) for n in range(3, 9)]
    for cut in range(len(head)):
        for split in range(len(last)):
            all_ = [batch(1, delivered(1, 1)), *(batch(1, one) for one in head[:cut]), batch(2, reset(2), delivered(second(2), 2))]
            all_ += [batch(2, one) for one in last[:split]]
            reader = Reader(Place())
            for heard in all_[::2]:
                if reader.live(heard) is Next.READ:
                    store(reader, *all_)
            if reader.finally_(completed("345678", 2, 2, last[split:])) is Next.READ:
                assert store(reader, *all_) is Next.END
            said = words(reader.out)
            begin = max((n for n, word in enumerate(said) if word.startswith("reset")), default=-1) + 1
            assert "".join(said[begin:-1]) == "345678", said


def positions():
    for place in ("0", "12", "12@7", "12@7.2", "12.1"):
        assert str(Place.parse(place)) == place
    assert Place.parse("9.done") is None
    for bad in ("", "x", "1.x", "-1", "1@", "1\n", "\u0661"):
        try:
            raise AssertionError((bad, Place.parse(bad)))
        except UsageError:
            pass
    # After each event of a stream the rest follows, and only that.
    crash = batch(1, delivered(1, 1), text(2, "a"), error(3, "no"))
    again = batch(2, delivered(1, 2), text(2, "x"), text(3, "y"))

    def events(known):
        reader, numbers = Reader(known), Numbers(known, "m")
        store(reader, crash, again)
        reader.finally_(completed("xy", 1, 2))
        return [event for event in map(numbers.event, reader.out) if event]

    whole = events(Place())
    assert [event.id for event in whole] == ["2", "3", "0@2", "2@2", "3@2", "3.done"], whole
    for place, event in enumerate(whole[:-1]):
        assert events(Place.parse(event.id)) == whole[place + 1 :], event


def names():
    assert (tag_of("m1", "m1"), tag_of("mail:a.b@c-d_1", "m"), tag_of("a", "m")) == ("-", "okiciwwjur7ad", "k6y64jsdad3em")
    # As docs/subjects.md computes it.
    documented = functools.reduce(lambda h, b: (h ^ b) * 0x01000193 % 2**32, b"echo", 0x811C9DC5)
    assert [shard_of("echo", shards) for shards in (1, 4, 7)] == [0, documented % 4, documented % 7]
    one, many, key = Names("x"), Names("x", 3), Key("a", "u", "m")
    assert one.request(key, "-") == "mozart.x.journal.a.u.m.-.request" and one.journal_of("a") == "MOZART_x_JOURNAL"
    shard = shard_of("a", 3)
    assert many.all_of(key) == f"mozart.x.journal.a.u.m.*.*.{shard}" and many.journal_of("a") == f"MOZART_x_JOURNAL_{shard}"
    assert (Ref.of("m"), Ref.of("a/m"), Ref.of("a/u/m")) == (Ref("m"), Ref("m", "a"), Ref("m", "a", "u"))
    assert len(many.named(Ref("m"))) == 3 and many.named(Ref("m", "a")) == [(f"MOZART_x_JOURNAL_{shard}", f"mozart.x.journal.a.*.m.*.request.{shard}")]
    for bad in ("", "a.b", "*", ">", "a/b/c/d", "A/m", "a\n", "m\n", "é"):
        try:
            raise AssertionError((bad, Ref.of(bad)))
        except UsageError:
            pass


def archive():
    seventh = "0198c0de-0000-7abc-8def-0123456789ab"
    assert _archive.part_of(seventh) == f"t{0x0198C0DE0000 >> 12}"
    assert _archive.part_of("order-7").startswith("h") and _archive.part_of(seventh.upper()).startswith("h")
    entry = uuid.UUID(seventh).bytes + (77).to_bytes(8, "big")
    assert _archive.places(seventh, bytes(24) + entry + b"half") == [77]
    key = {"agent": "a", "sender": "u", "messageId": "m"}
    first, rest = json.dumps({"key": key, "request": {}}).encode(), json.dumps({"final": {"status": "completed"}}).encode()
    halves = [("s", 4, {"Mozart-Part": "1"}, first), ("s", 5, {"Mozart-Part": "2"}, rest)]
    assert _archive.message(halves)["final"] == {"status": "completed"}
    assert _archive.message(halves[:1]) is None and _archive.message(halves[1:]) is None
    assert _archive.message([halves[0], ("s", 6, *halves[1][2:])]) is None
    assert _archive.message([]) is None and _archive.message([("s", 4, {}, b"{")]) is None


def room():
    mib = 1 << 20

    def info(used, messages, limit=100 * mib):
        return {"config": {"max_bytes": limit}, "state": {"bytes": used, "messages": messages}}

    assert _room.space(info(0, 0, -1), {}, None, None) == (_room.Space(None), False)
    found, is_rough = _room.space(info(94 * mib, 10), {}, None, 5)
    assert 0 < found.left < 2 * mib and not is_rough
    assert _room.space(info(96 * mib, 10), {}, None, 5)[0].left == 0
    # Each of the open ones needs a KiB or what a record takes, whichever is more: more than 5 % of all.
    assert _room.space(info(80 * mib, 20 * 1024), {}, None, None)[1]
    assert "open messages" in _room.space(info(80 * mib, 20 * 1024), {}, None, 0)[0].cause
    assert _room.space(info(0, 0), {}, {"total": 100 * mib, "free": 17 * mib}, None)[0].left == mib
    assert _room.space(info(0, 0), {}, {"total": 0, "free": 0, "fault": "removed"}, None)[0].left == 0
    # What is known holds for a while, and for a part of the room.
    known = _room.Room()
    assert known.take(1, 0) is None
    known.learn(_room.Space(10_000, "why"), 0)
    assert known.take(100, 1).left == 10_000 and known.take(3000, 1) is None
    known.learn(_room.Space(10, "why"), 10)
    assert known.take(11, 10.5) == _room.Space(-1, "why") and known.take(11, 12) is None


for check in (reads, positions, names, archive, room):
    check()
print(json.dumps({"done": True}))
