"""The shim's side of the protocol, told by a test: what a worker is sent, and what it must say."""

import json
import os
import queue
import subprocess
import sys
import threading

LIBRARY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The longest that a line is waited for, in seconds.
DEADLINE = 20


class Peer:
    """A worker of this source, and its pipes."""

    def __init__(self, source):
        environment = dict(os.environ, PYTHONPATH=LIBRARY, PYTHONWARNINGS="error", PYTHONASYNCIODEBUG="1")
        source = "from mozart_worker import *\n" + source
        self.process = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )
        self.lines = queue.Queue()
        self.said = []
        self.readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._listen, daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _listen(self):
        for line in self.process.stderr:
            self.said.append(line.decode())

    def __enter__(self):
        self.send("init", agent={"name": "w", "model": "m", "identity": "i"}, incarnation=7)
        self.expect("ready")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                pipe.close()
            except BrokenPipeError:
                pass

    @property
    def log(self):
        return "".join(self.said)

    def send(self, kind, **fields):
        self.process.stdin.write(json.dumps(dict(fields, type=kind)).encode() + b"\n")
        self.process.stdin.flush()

    def chat(self, message_id, text="", **fields):
        """Begins a turn, which is acknowledged."""
        self.send("chat", messageId=message_id, fromId="user", message=text, conversationId="talk", **fields)
        self.expect("ack", messageId=message_id)

    def next(self):
        line = self.lines.get(timeout=DEADLINE)
        assert line is not None, f"the worker has ended: {self.log}"
        return json.loads(line)

    def expect(self, kind, **fields):
        """The next line is this one, whole."""
        line, wanted = self.next(), dict(fields, type=kind)
        assert line == wanted, f"{line}, not {wanted}: {self.log}"

    def end(self):
        """The exit code, once stdout has ended. What it has said by then."""
        said = []
        while True:
            line = self.lines.get(timeout=DEADLINE)
            if line is None:
                break
            said.append(json.loads(line))
        return self.process.wait(DEADLINE), said
