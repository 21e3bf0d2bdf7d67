"""Writes a sentence."""

from mozart_worker import Turn, Worker


def answer(turn: Turn) -> str:
    # Call your model here.
    return f"There is more to {turn.text} than meets the eye."


Worker(answer).run()
