"""Answers with what the agent `answerer` says."""

from mozart_worker import Turn, Worker


def answer(turn: Turn) -> None:
    turn.say("I asked answerer. ")
    turn.say("It says: " + turn.ask("answerer", turn.text))


Worker(answer).run()
