"""Counts the words of a message."""

from mozart_worker import Turn, Worker


def answer(turn: Turn) -> str:
    words = turn.text.split()
    return f"{turn.sender} sent {len(words)} word{'' if len(words) == 1 else 's'}."


Worker(answer).run()
