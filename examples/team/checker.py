"""Checks a sentence."""

from mozart_worker import Turn, Worker


def answer(turn: Turn) -> str:
    # Call your model here.
    words = len(turn.text.split())
    return "fine" if words <= 12 else f"too long, {words} words"


Worker(answer).run()
