"""Answers with what the agent `answerer` says."""

from mozart_worker import Worker


def answer(turn):
    turn.say("I asked answerer. ")
    turn.say("It says: " + turn.ask("answerer", turn.text))


Worker(answer).run()
