"""Counts the words of a message."""

from mozart_worker import Worker


def answer(turn):
    words = turn.text.split()
    turn.say(f"{turn.sender} sent {len(words)} word{'' if len(words) == 1 else 's'}.")


Worker(answer).run()
