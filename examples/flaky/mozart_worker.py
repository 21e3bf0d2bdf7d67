"""The worker's side of Mozart's protocol: one JSON object per line, on stdin and stdout. Standard library only.

Copy this file next to your worker:

    from mozart_worker import Worker

    def answer(turn):
        turn.say("hello ")
        turn.say(turn.text)

    Worker(answer).run()

Every turn has its own thread; CONCURRENCY in the soul limits how many run in parallel. The response is what `answer`
passed to `say`. An exception fails the turn for good; `Retry` asks for another attempt. Output on stderr, and lines on
stdout that are not protocol, appear in `mozart logs`.
"""

import json
import os
import queue
import sys
import threading
import traceback


class Retry(Exception):
    """The turn failed, and another attempt may help."""


class Cancelled(Exception):
    """This turn was cancelled, or its deadline has passed."""


class Turn:
    """One message being answered."""

    def __init__(self, worker, line):
        self.worker = worker
        self.kind = line["type"]
        self.message_id = line["messageId"]
        self.conversation_id = line.get("conversationId")
        self.request_id = line.get("requestId")
        self.sender = line["fromId"]
        self.text = line["message"]
        self.said = []
        self.asked = 0
        self.answers = queue.SimpleQueue()
        self.cancelled = threading.Event()

    def say(self, text):
        """Streams a piece of the answer."""
        if self.cancelled.is_set():
            raise Cancelled
        self.said.append(text)
        self.event({"type": "text", "text": text})

    def event(self, event):
        """Streams something that is not text, such as a tool call: any object with a `type`."""
        self.worker.send("event", messageId=self.message_id, conversationId=self.conversation_id, event=event)

    def progress(self):
        """Reports progress: the turn's deadline restarts."""
        self.worker.send("progress", messageId=self.message_id)

    def ask(self, agent, text):
        """Asks another agent and waits for its answer. Raises RuntimeError if there is none."""
        # The same id in every attempt of this turn: a question that was answered before a crash is not asked again.
        self.asked += 1
        request_id = f"{self.message_id}.{self.asked}"
        self.worker.asking[request_id] = self
        self.worker.send("route_request", messageId=self.message_id, requestId=request_id, toId=agent, message=text)
        answer = self.answers.get()
        del self.worker.asking[request_id]
        if self.cancelled.is_set():
            raise Cancelled
        if answer.get("error"):
            raise RuntimeError(answer["error"])
        return answer["response"]

    def cancel(self):
        self.cancelled.set()
        self.answers.put(None)

    def finish(self):
        response = "".join(self.said)
        if self.kind == "route":
            self.worker.send("route_done", messageId=self.message_id, requestId=self.request_id, response=response)
        else:
            self.worker.send("chat_done", messageId=self.message_id, conversationId=self.conversation_id)


class Worker:
    """Reads messages and answers each with `answer(turn)`."""

    def __init__(self, answer):
        self.answer = answer
        self.agent = {}
        self.incarnation = 0
        self.turns = {}
        self.asking = {}
        self.output = threading.Lock()

    def send(self, kind, **fields):
        """Writes one line of protocol; fields without a value are omitted."""
        fields = {name: value for name, value in fields.items() if value is not None}
        self.write(json.dumps({"type": kind, **fields}).encode() + b"\n")

    def write(self, data):
        """Writes raw bytes; lines of several threads do not mix."""
        with self.output:
            try:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            except BrokenPipeError:
                # The shim no longer reads.
                os._exit(0)

    def run(self, ready=True):
        """Reports ready, then answers until stdin ends or the shim sends `shutdown`."""
        if ready:
            self.send("ready")
        for raw in sys.stdin.buffer:
            line = json.loads(raw)
            kind = line["type"]
            if kind == "init":
                self.agent, self.incarnation = line["agent"], line["incarnation"]
            elif kind in ("chat", "route"):
                turn = Turn(self, line)
                thread = threading.Thread(target=self.turn, args=(turn,), daemon=True)
                self.turns[turn.message_id] = (turn, thread)
                thread.start()
            elif kind == "route_response" and line["requestId"] in self.asking:
                self.asking[line["requestId"]].answers.put(line)
            elif kind == "cancel" and line["messageId"] in self.turns:
                self.turns[line["messageId"]][0].cancel()
            elif kind == "shutdown":
                self.shutdown()
                return

    def shutdown(self):
        """Waits for the open turns to end."""
        for _, thread in list(self.turns.values()):
            thread.join()

    def turn(self, turn):
        self.send("ack", messageId=turn.message_id)
        try:
            self.answer(turn)
            turn.finish()
        except Cancelled:
            # After a deadline this counts as an attempt; after a cancellation it is ignored.
            self.send("error", messageId=turn.message_id, error="cancelled", retryable=True)
        except Exception as error:  # whatever went wrong, the sender is told
            traceback.print_exc()
            retryable = isinstance(error, Retry)
            self.send("error", messageId=turn.message_id, error=str(error) or repr(error), retryable=retryable)
        finally:
            self.turns.pop(turn.message_id, None)
