"""Has a text written and checked, and publishes it if a person agrees. `draft TOPIC` does all but publish."""

import time

from mozart_worker import Turn, Worker

# How long a person has for an answer.
WAIT = 3600


def publish(text: str) -> str:
    # Call what publishes here; `turn.step_id` names this in each attempt alike.
    print("published:", text)
    return time.strftime("%Y-%m-%d %H:%M:%S")


def answer(turn: Turn) -> None:
    _, is_draft, topic = turn.text.rpartition("draft ")
    # The same questions in every attempt: what was answered is not asked again.
    text = turn.ask("writer", topic)
    turn.say(f"writer: {text}\n")
    verdict = turn.ask("checker", text)
    turn.say(f"checker: {verdict}\n")
    if is_draft:
        return
    asked = f"Publish this? {text} ({verdict})"
    agreed = turn.question(asked, options=["yes", "no"], timeout=WAIT, default="no")
    if agreed == "yes":
        turn.say("published at " + turn.step("publish", lambda: publish(text)))
    else:
        turn.say("not published: " + ("nobody answered" if agreed.is_default else "refused"))


Worker(answer).run()
