"""Books payments, each of them once, whenever it crashes.

    pay AMOUNT to PAYEE     takes the amount from our account, gives it to the payee, and writes a receipt
    statement               what was paid in this conversation, as the history has it

Each of the three is a step: its result is stored, and a later attempt goes on after it. A worker that dies after a booking and before its result is stored
books again. So the book takes each booking by a key that is the same in every attempt, and has it once.

The file data/crash/PLACE lets the worker die at that place, once: see `places`.
"""

import os
import re
import signal
import sqlite3
from typing import Callable, List

from mozart_worker import Turn, Worker

STEPS = ("withdraw", "deposit", "receipt")


class Book:
    """Bookings, in a file that outlives the worker."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        # One transaction for each statement; other turns may be at it.
        self.file = sqlite3.connect(os.path.join(folder, "book.db"), timeout=30, isolation_level=None)
        self.file.executescript(
            "CREATE TABLE IF NOT EXISTS booking (key TEXT PRIMARY KEY, account TEXT, amount INTEGER);"
            "CREATE TABLE IF NOT EXISTS receipt (number INTEGER PRIMARY KEY, key TEXT UNIQUE);"
            "CREATE TABLE IF NOT EXISTS call (key TEXT);"
        )

    def book(self, key: str, account: str, amount: int) -> int:
        self.file.execute("INSERT INTO call VALUES (?)", (key,))
        self.file.execute("INSERT OR IGNORE INTO booking VALUES (?, ?, ?)", (key, account, amount))
        return amount

    def receipt(self, key: str) -> int:
        self.file.execute("INSERT INTO call VALUES (?)", (key,))
        self.file.execute("INSERT OR IGNORE INTO receipt (key) VALUES (?)", (key,))
        number: int = self.file.execute("SELECT number FROM receipt WHERE key = ?", (key,)).fetchone()[0]
        return number


def folder(turn: Turn) -> str:
    # In a container it is at `path`.
    host: str = turn.agent["sanctums"][0]["host"]
    return host


def places() -> List[str]:
    """Where the worker can be made to die."""
    return [f"{when}-{step}" for step in STEPS for when in ("before", "done", "stored")]


def crash(turn: Turn, place: str) -> None:
    try:
        os.unlink(os.path.join(folder(turn), "crash", place))
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def step(turn: Turn, name: str, run: Callable[[], int]) -> int:
    def once() -> int:
        crash(turn, f"before-{name}")
        result = run()
        crash(turn, f"done-{name}")
        return result

    result = turn.step(name, once)
    crash(turn, f"stored-{name}")
    return result


def pay(turn: Turn, amount: int, payee: str) -> str:
    book = Book(folder(turn))
    step(turn, "withdraw", lambda: book.book(turn.step_id("withdraw"), "ours", -amount))
    step(turn, "deposit", lambda: book.book(turn.step_id("deposit"), payee, amount))
    number = step(turn, "receipt", lambda: book.receipt(turn.step_id("receipt")))
    return f"receipt {number}: {amount} to {payee}"


def statement(turn: Turn) -> None:
    total, before, has_more = 0, None, True
    while has_more:
        page = turn.history(100, before=before)
        for past in page.turns:
            paid = re.match(r"receipt \d+: (\d+) to ", past.response or "")
            if paid:
                turn.say(f"{past.at}  {past.response}\n")
                total += int(paid[1])
        before, has_more = page.next, page.next is not None
    turn.say(f"total {total}\n")


def answer(turn: Turn) -> "str | None":
    if turn.text == "statement":
        statement(turn)
        return None
    order = re.fullmatch(r"pay (\d+) to (\w+)", turn.text)
    if order is None:
        raise ValueError("expected `pay AMOUNT to PAYEE` or `statement`")
    return pay(turn, int(order[1]), order[2])


Worker(answer).run()
