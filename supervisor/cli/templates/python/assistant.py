"""The worker of the agent `assistant`."""

from mozart_worker import Turn, Worker


def answer(turn: Turn) -> None:
    # What was said before in this conversation, the newest first.
    past = turn.history(limit=20).turns if turn.conversation_id and turn.number != 0 else []
    # Call your model here. Each piece that you `say` is streamed.
    turn.say(f"You said: {turn.text}")
    if past:
        turn.say(f" (and before that: {past[0].message})")


Worker(answer).run()
