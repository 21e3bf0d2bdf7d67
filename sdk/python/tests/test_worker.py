"""The library against a scripted peer: `python3 -m unittest discover sdk/python/tests`."""

import unittest

from peer import Peer

PLAIN = """
import time, subprocess, threading
def answer(turn):
    return eval(turn.text, dict(globals(), turn=turn))
def fail(error):
    raise error
def gather(turn, *calls):
    results = [None] * len(calls)
    def run(at, call):
        results[at] = call()
    threads = [threading.Thread(target=run, args=it) for it in enumerate(calls)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return str(results)
Worker(answer).run()
"""

ASYNC = """
import asyncio, time
async def answer(turn):
    value = eval(turn.text, dict(globals(), turn=turn))
    return await value if asyncio.iscoroutine(value) else value
async def then(call, do):
    return do(await call)
async def fail(error):
    raise error
async def cleaned(turn):
    turn.progress()
    try:
        await asyncio.sleep(60)
    finally:
        turn.event({"type": "cleaned"})
async def gather(*calls):
    return str(await asyncio.gather(*calls))
Worker(answer).run()
"""


class Both:
    """What plain functions and coroutines have in common."""

    SOURCE = ""

    def peer(self):
        return Peer(self.SOURCE)

    def test_a_returned_text_is_the_response_and_otherwise_what_was_said(self):
        with self.peer() as peer:
            peer.chat("m-1", "'yes'")
            peer.expect("chat_done", messageId="m-1", response="yes")
            peer.chat("m-2", "turn.say('a') or turn.say('ü')")
            peer.expect("event", messageId="m-2", event={"type": "text", "text": "a"})
            peer.expect("event", messageId="m-2", event={"type": "text", "text": "ü"})
            peer.expect("chat_done", messageId="m-2")
            peer.send("route", messageId="m-3", requestId="m-3", fromId="other", message="turn.say('b')")
            peer.expect("ack", messageId="m-3")
            peer.expect("event", messageId="m-3", event={"type": "text", "text": "b"})
            peer.expect("route_done", messageId="m-3", requestId="m-3", response="b")

    def test_a_turn_knows_its_message_and_its_agent(self):
        what = "str([turn.kind, turn.message_id, turn.conversation_id, turn.sender, turn.number, turn.scheduled_for," \
            " turn.traceparent, turn.steps, turn.agent['name'], turn.step_id('k')])"
        with self.peer() as peer:
            steps = [{"key": "a", "result": None}]
            peer.chat("m", what, turn=3, scheduledFor="2026-05-04T10:00:00Z", traceparent="00-x", steps=steps, unknown=1)
            wanted = ["chat", "m", "talk", "user", 3, "2026-05-04T10:00:00Z", "00-x", {"a": None}, "w", "m.k"]
            peer.expect("chat_done", messageId="m", response=str(wanted))
            peer.send("something-new", field=1)
            peer.send("route", messageId="r", requestId="r", fromId="other", message="str([turn.conversation_id, turn.number])")
            peer.expect("ack", messageId="r")
            peer.expect("route_done", messageId="r", requestId="r", response="[None, None]")

    def test_progress_and_events_name_their_turn(self):
        with self.peer() as peer:
            peer.chat("m", "turn.progress() or turn.event({'type': 'tool', 'name': 'x'}) or 'done'")
            peer.expect("progress", messageId="m")
            peer.expect("event", messageId="m", event={"type": "tool", "name": "x"})
            peer.expect("chat_done", messageId="m", response="done")

    def test_another_agent_is_asked_and_answers_or_does_not(self):
        with self.peer() as peer:
            peer.chat("m", "turn.ask('other', 'how?', timeout=1.5)")
            peer.expect("route_request", messageId="m", requestId="m.1", toId="other", message="how?", timeoutMs=1500)
            peer.send("route_response", requestId="m.9", response="of somebody else")
            peer.send("route_response", requestId="m.1", response="so")
            peer.expect("chat_done", messageId="m", response="so")
            peer.chat("n", "turn.ask('other', 'how?', key='mine')")
            peer.expect("route_request", messageId="n", requestId="n.mine", toId="other", message="how?")
            peer.send("route_response", requestId="n.mine", response="", error="no such agent")
            peer.expect("error", messageId="n", error="no such agent", retryable=False)

    def test_a_person_is_asked_and_answers_or_does_not(self):
        with self.peer() as peer:
            peer.chat("m", "turn.question('Pay?', options=['yes', 'no'], timeout=60, default='no')")
            asked = {"messageId": "m", "requestId": "m.1", "text": "Pay?"}
            peer.expect("question", options=["yes", "no"], timeoutMs=60000, default="no", **asked)
            peer.send("answer", messageId="m", requestId="m.1", text="yes")
            peer.expect("chat_done", messageId="m", response="yes")
            # The value of a SECRET is masked in its key.
            peer.chat("m", "turn.question('Pay?', key='sk-123')")
            peer.expect("question", messageId="m", requestId="m.sk-123", text="Pay?")
            peer.send("answer", messageId="other", requestId="m.[SECRET KEY]", text="of somebody else")
            peer.send("answer", messageId="m", requestId="m.[SECRET KEY]", text="no")
            peer.expect("chat_done", messageId="m", response="no")
            peer.chat("m", "turn.question('Pay?')")
            peer.expect("question", **asked)
            peer.send("answer", requestId="m.1", text="", error="nobody answered in time")
            peer.expect("error", messageId="m", error="nobody answered in time", retryable=False)

    def test_the_history_is_read_a_page_at_a_time(self):
        past = {"messageId": "p", "fromId": "user", "kind": "chat", "message": "x", "status": "completed", "at": "2026-05-04T10:00:07Z"}
        with self.peer() as peer:
            peer.chat("m", self.call("turn.history(2, before='c')", "str([(it.response, it.reason) for it in it.turns] + [it.next])"))
            peer.expect("history_request", messageId="m", requestId="m.h1", conversationId="talk", before="c", limit=2)
            turns = [dict(past, response="y"), dict(past, reason="z", status="failed")]
            peer.send("history_response", requestId="m.h1", turns=turns, next="d")
            peer.expect("chat_done", messageId="m", response="[('y', None), (None, 'z'), 'd']")
            peer.chat("n", self.call("turn.history(conversation='other')", "str(it)"))
            peer.expect("history_request", messageId="n", requestId="n.h2", conversationId="other", limit=20)
            peer.send("history_response", requestId="n.h2", turns=[], error="MEMORY none")
            peer.expect("error", messageId="n", error="MEMORY none", retryable=False)
            peer.send("route", messageId="r", requestId="r", fromId="other", message="turn.history()")
            peer.expect("ack", messageId="r")
            why = "a question from another agent is in no conversation: name one"
            peer.expect("error", messageId="r", error=why, retryable=False)

    def test_a_step_runs_once_and_its_result_is_what_is_stored(self):
        with self.peer() as peer:
            peer.chat("m", self.call("turn.step('a', lambda: (1, {2: None}))", "str([it, turn.steps])"))
            peer.expect("step", messageId="m", key="a", result=[1, {"2": None}])
            peer.send("step_stored", messageId="m", key="a")
            peer.expect("chat_done", messageId="m", response="[[1, {'2': None}], {'a': [1, {'2': None}]}]")
            # What is there is not run.
            stored = [{"key": "a", "result": 7}]
            peer.chat("m", self.call("turn.step('a', lambda: 1 / 0)", "str(it)"), steps=stored)
            peer.expect("chat_done", messageId="m", response="7")
            # Nothing is a result too.
            peer.chat("m", self.call("turn.step('a', lambda: None)", "str(it)"))
            peer.expect("step", messageId="m", key="a", result=None)
            peer.send("step_stored", messageId="m", key="a")
            peer.expect("chat_done", messageId="m", response="None")
            # Another incarnation was first, here with a result, there with none.
            for result in (8, None):
                peer.chat("m", self.call("turn.step('a', lambda: 1)", "str(it)"))
                peer.expect("step", messageId="m", key="a", result=1)
                peer.send("step_stored", messageId="m", key="a", duplicate=True, result=result)
                peer.expect("chat_done", messageId="m", response=str(result))
            # This turn itself was first.
            peer.chat("m", self.call("turn.step('a', lambda: 1)", "str(it)"))
            peer.expect("step", messageId="m", key="a", result=1)
            peer.send("step_stored", messageId="m", key="a", duplicate=True)
            peer.expect("chat_done", messageId="m", response="1")

    def test_a_step_that_is_not_stored_or_cannot_be_fails(self):
        with self.peer() as peer:
            peer.chat("m", self.call("turn.step('a', lambda: 1)", "str(it)"))
            peer.expect("step", messageId="m", key="a", result=1)
            peer.send("step_stored", messageId="m", key="a", error="the disk is full")
            peer.expect("error", messageId="m", error="the disk is full", retryable=False)
            peer.chat("m", self.call("turn.step('a', lambda: 1)", "str(it)"))
            peer.expect("step", messageId="m", key="a", result=1)
            peer.send("step_stored", messageId="m", key="a", error="no room", retryable=True)
            peer.expect("error", messageId="m", error="no room", retryable=True)
            # A reply that names nothing is nobody's.
            peer.send("history_response", error="what was asked?")
            for run, why in [("lambda: object()", "not JSON serializable"), ("lambda: float('nan')", "not JSON compliant")]:
                peer.chat("m", self.call(f"turn.step('a', {run})", "str(it)"))
                line = peer.next()
                self.assertEqual((line["type"], line["retryable"]), ("error", False))
                self.assertIn(why, line["error"])
            for key in ("''", "'x' * 257"):
                peer.chat("m", self.call(f"turn.step({key}, lambda: 1)", "str(it)"))
                self.assertIn("a name has 1 to 256 bytes", peer.next()["error"])
            # The value of a SECRET is masked in its key.
            peer.chat("m", self.call("turn.step('key of sk-123', lambda: 1)", "str(it)"))
            peer.expect("step", messageId="m", key="key of sk-123", result=1)
            peer.send("step_stored", messageId="m", key="key of [SECRET KEY]")
            peer.expect("chat_done", messageId="m", response="1")

    def test_two_at_once_of_the_same_key_run_once(self):
        with self.peer() as peer:
            peer.chat("m", self.at_once("turn.step('a', lambda: 1)", "turn.step('a', lambda: 2)"))
            first = peer.next()
            peer.send("step_stored", messageId="m", key="a")
            peer.expect("chat_done", messageId="m", response=str([first["result"]] * 2))

    def test_what_is_raised_ends_the_turn(self):
        with self.peer() as peer:
            for what, why, more in [
                ("Retry('later', after=1.5)", "later", {"retryable": True, "retryAfterMs": 1500}),
                ("Retry(after=0)", "another attempt may help", {"retryable": True, "retryAfterMs": 0}),
                ("Retry('later')", "later", {"retryable": True}),
                ("RuntimeError('bad')", "bad", {"retryable": False}),
                ("RuntimeError()", "RuntimeError()", {"retryable": False}),
            ]:
                peer.chat("m", f"fail({what})")
                peer.expect("error", messageId="m", error=why, **more)
            peer.chat("m", "7")
            peer.expect("error", messageId="m", error="a response is a text, not int", retryable=False)
            peer.chat("m", "'goes on'")
            peer.expect("chat_done", messageId="m", response="goes on")
        self.assertIn("RuntimeError: bad", peer.log)
        self.assertNotIn("Retry", peer.log)

    def test_several_turns_are_open_at_once(self):
        with self.peer() as peer:
            for message in ("a", "b", "c"):
                peer.chat(message, "turn.ask('other', turn.message_id)")
                peer.expect("route_request", messageId=message, requestId=f"{message}.1", toId="other", message=message)
            for message in ("c", "a", "b"):
                peer.send("route_response", requestId=f"{message}.1", response=message)
                peer.expect("chat_done", messageId=message, response=message)

    def test_a_cancelled_turn_ends_whatever_it_waits_for(self):
        with self.peer() as peer:
            for what in ("turn.ask('other', 'x')", "turn.question('x')", "turn.history()", "turn.step('a', lambda: 1)"):
                peer.chat("m", self.call(what, "str(it)"))
                peer.next()
                peer.send("cancel", messageId="m")
                peer.expect("error", messageId="m", error="cancelled", retryable=True)
            # Answers that are late, and a cancellation of what is over, change nothing.
            peer.send("route_response", requestId="m.1", response="late")
            peer.send("step_stored", messageId="m", key="a")
            peer.send("cancel", messageId="m")
            peer.chat("n", "'goes on'")
            peer.expect("chat_done", messageId="n", response="goes on")

    def test_shutdown_lets_open_turns_end(self):
        with self.peer() as peer:
            peer.chat("m", self.SLOW)
            peer.expect("progress", messageId="m")
            peer.send("shutdown")
            self.assertEqual(peer.end(), (0, [{"type": "chat_done", "messageId": "m", "response": "whole"}]))

    def test_shutdown_without_a_turn_ends_the_worker(self):
        with self.peer() as peer:
            peer.send("shutdown")
            self.assertEqual(peer.end(), (0, []))

    def test_the_end_of_stdin_ends_the_worker_whatever_is_open(self):
        with self.peer() as peer:
            peer.chat("m", "turn.ask('other', 'x')")
            peer.next()
            peer.process.stdin.close()
            code, _said = peer.end()
            self.assertEqual(code, 0, peer.log)

    def test_a_line_that_is_no_protocol_ends_the_worker(self):
        with self.peer() as peer:
            peer.process.stdin.write(b"{\n")
            peer.process.stdin.flush()
            self.assertEqual(peer.end(), (1, []))
        self.assertIn("JSONDecodeError", peer.log)

    def test_what_is_printed_and_what_children_write_is_no_protocol(self):
        with self.peer() as peer:
            code = "import sys; print('by a child', sys.stdin.read(), end='!')"
            peer.chat("m", f"print('printed', end='') or __import__('subprocess').run(['python3', '-c', {code!r}]) and 'done'")
            peer.expect("chat_done", messageId="m", response="done")
            peer.send("shutdown")
            self.assertEqual(peer.end(), (0, []))
            peer.readers[1].join()
        self.assertIn("by a child !", peer.log)
        self.assertIn("printed", peer.log)


    def test_exit_in_a_turn_fails_it_and_no_other(self):
        with self.peer() as peer:
            peer.send("chat", messageId="n", fromId="user", message=self.SLOW, conversationId="other")
            said = [peer.next(), peer.next()]
            self.assertEqual([line["type"] for line in said], ["ack", "progress"])
            peer.chat("m", "__import__('sys').exit('enough')")
            peer.expect("error", messageId="m", error="enough", retryable=False)
            peer.expect("chat_done", messageId="n", response="whole")


class Plain(Both, unittest.TestCase):
    SOURCE = PLAIN
    SLOW = "turn.progress() or turn.sleep(0.3) or 'whole'"

    def call(self, call, then):
        return f"(lambda it: {then})({call})"

    def at_once(self, *calls):
        return f"gather(turn, {', '.join(f'lambda: {call}' for call in calls)})"

    def test_a_default_is_told_apart(self):
        with self.peer() as peer:
            for told in ({"isDefault": True}, {}):
                peer.chat("m", "(lambda it: str([it, it.is_default]))(turn.question('x'))")
                peer.expect("question", messageId="m", requestId="m.1", text="x")
                peer.send("answer", requestId="m.1", text="no", **told)
                peer.expect("chat_done", messageId="m", response=str(["no", "isDefault" in told]))

    def test_a_cancelled_turn_is_told_by_a_flag_and_by_what_it_calls(self):
        with self.peer() as peer:
            for what in (
                "[time.sleep(0.01) for _ in iter(lambda: turn.cancelled, True)] and 'too late'",
                "[turn.sleep(0.01) for _ in iter(int, 1)]",
                "[turn.progress() for _ in iter(int, 1)]",
            ):
                peer.chat("m", what)
                peer.send("cancel", messageId="m")
                line = peer.next()
                while line["type"] == "progress":
                    line = peer.next()
                self.assertEqual(line, {"type": "error", "messageId": "m", "error": "cancelled", "retryable": True})


class Async(Both, unittest.TestCase):
    SOURCE = ASYNC
    SLOW = "turn.progress() or then(asyncio.sleep(0.3), lambda _: 'whole')"

    def call(self, call, then):
        return f"then({call}, lambda it: {then})"

    def at_once(self, *calls):
        return f"gather({', '.join(calls)})"

    def test_a_step_may_be_a_coroutine(self):
        with self.peer() as peer:
            peer.chat("m", self.call("turn.step('a', lambda: asyncio.sleep(0, 5))", "str(it)"))
            peer.expect("step", messageId="m", key="a", result=5)
            peer.send("step_stored", messageId="m", key="a")
            peer.expect("chat_done", messageId="m", response="5")

    def test_a_turn_that_is_cancelled_before_it_begins_ends_too(self):
        with self.peer() as peer:
            # The loop is kept from going on until both lines are there.
            peer.chat("m", "time.sleep(0.5) or 'done'")
            peer.send("chat", messageId="n", fromId="user", message="'never'", conversationId="other")
            peer.send("cancel", messageId="n")
            said = [peer.next() for _ in range(3)]
            wanted = {"type": "error", "messageId": "n", "error": "cancelled", "retryable": True}
            self.assertIn(wanted, said)

    def test_a_cancelled_turn_cleans_up(self):
        with self.peer() as peer:
            peer.chat("m", "cleaned(turn)")
            peer.expect("progress", messageId="m")
            peer.send("cancel", messageId="m")
            peer.expect("event", messageId="m", event={"type": "cleaned"})
            peer.expect("error", messageId="m", error="cancelled", retryable=True)

    def test_a_call_that_takes_too_long_can_be_given_up(self):
        with self.peer() as peer:
            peer.chat("m", "asyncio.wait_for(turn.ask('other', 'x'), 0.1)")
            peer.next()
            line = peer.next()
            self.assertEqual((line["type"], line["retryable"]), ("error", False))
            peer.send("route_response", requestId="m.1", response="late")
            peer.chat("n", "'goes on'")
            peer.expect("chat_done", messageId="n", response="goes on")


if __name__ == "__main__":
    unittest.main()
