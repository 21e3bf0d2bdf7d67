"""The stock client of OpenAI's API against `mozart api`.

openai_check.py CHECK BASE_URL KEY. Says what it found as lines of JSON; a check that fails ends with a traceback.
"""

import json
import os
import sys
import time

import openai
from openai import APIConnectionError, APIError, OpenAI


def say(**found):
    # In one piece: several threads may have something to say.
    os.write(1, (json.dumps(found) + "\n").encode())


def text_of(response):
    return "".join(part.text for item in response.output for part in item.content)


def everything(client, key):
    """What there is, each once."""
    assert [model.id for model in client.models.list()] == ["a"]
    assert client.models.retrieve("a").owned_by == "mozart"

    chat = client.chat.completions.create(model="a", messages=[{"role": "user", "content": "say hi"}])
    assert chat.choices[0].message.content == "hi", chat
    assert chat.choices[0].finish_reason == "stop"

    chunks = list(
        client.chat.completions.create(
            model="a", messages=[{"role": "user", "content": "count 5"}], stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "1 2 3 4 5 ", text
    assert chunks[-1].usage is not None and chunks[-2].choices[0].finish_reason == "stop"

    response = client.responses.create(model="a", input="say one")
    assert (response.status, response.output_text) == ("completed", "one"), response
    assert response.id.startswith("resp_") and response.output[0].role == "assistant"
    again = client.responses.retrieve(response.id)
    assert (again.status, again.output_text) == ("completed", "one")
    items = client.responses.input_items.list(response.id)
    assert items.data[0].content[0].text == "say one"

    # The conversation goes on by the id of the response before, and by nothing else.
    second = client.responses.create(model="a", input="say two", previous_response_id=response.id)
    assert second.output_text == "two" and second.previous_response_id == response.id
    third = client.responses.create(model="a", input="say three", previous_response_id=second.id)
    assert third.conversation.id == second.conversation.id == response.conversation.id
    try:
        client.responses.create(model="a", input="say four", previous_response_id=response.id)
        raise AssertionError("it went on from the middle of a conversation")
    except openai.BadRequestError as error:
        assert "not the last response" in str(error), error

    events = list(client.responses.create(model="a", input="count 5", stream=True))
    kinds = [event.type for event in events]
    assert kinds[:5] == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ], kinds
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ], kinds
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "1 2 3 4 5 "
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers)), numbers
    assert text_of(events[-1].response) == "1 2 3 4 5 "
    # After each of its events the rest follows, and only that.
    for position in (0, 1, 4, 6, len(events) - 2):
        after = numbers[position]
        rest = list(client.responses.retrieve(events[0].response.id, stream=True, starting_after=after))
        assert all(event.sequence_number > after for event in rest), (after, rest)
        known = "".join(event.delta for event in events[: position + 1] if event.type == "response.output_text.delta")
        more = "".join(event.delta for event in rest if event.type == "response.output_text.delta")
        assert known + more == "1 2 3 4 5 ", (after, known, more)
        assert rest[-1].type == "response.completed"
    # The helper, which checks the order of the events.
    with client.responses.stream(model="a", input="count 3") as stream:
        for _event in stream:
            pass
        assert stream.get_final_response().output_text == "1 2 3 "

    background = client.responses.create(model="a", input="sleep 1; say late", background=True)
    assert background.status == "queued", background
    while (now := client.responses.retrieve(background.id)).status in ("queued", "in_progress"):
        time.sleep(0.1)
    assert (now.status, now.output_text) == ("completed", "late"), now

    # Errors.
    for ask in (
        lambda: client.chat.completions.create(model="zz", messages=[{"role": "user", "content": "x"}]),
        lambda: client.responses.create(model="zz", input="x"),
    ):
        try:
            ask()
            raise AssertionError("there is no such model")
        except openai.NotFoundError as error:
            assert error.code == "model_not_found", error
    try:
        client.responses.retrieve("resp_none-such")
        raise AssertionError("there is no such response")
    except openai.NotFoundError as error:
        assert error.code == "response_not_found", error
    try:
        OpenAI(base_url=client.base_url, api_key="sk-wrong").models.list()
        raise AssertionError("the key is wrong")
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key", error
    try:
        client.responses.create(model="a", input="fail no")
        raise AssertionError("it failed")
    except openai.InternalServerError as error:
        assert "no" in str(error), error
    try:
        for _event in client.responses.create(model="a", input="say before; crash", stream=True):
            pass
        raise AssertionError("it broke off")
    except APIError as error:
        say(broken=str(error))

    # A cancel, twice; and one of what is over.
    long = client.responses.create(model="a", input="sleep 60", background=True)
    for _time in range(2):
        cancelled = client.responses.cancel(long.id)
        assert cancelled.status == "cancelled", cancelled
    assert client.responses.retrieve(long.id).status == "cancelled"
    assert client.responses.cancel(response.id).status == "completed"
    say(done=True)


def killed_chat(client, key):
    """The server is killed amid a stream of a chat: it is an error, not a short answer."""
    text = ""
    try:
        for chunk in client.chat.completions.create(
            model="a", messages=[{"role": "user", "content": "count 60 0.1"}], stream=True
        ):
            text += chunk.choices[0].delta.content or ""
            say(text=text)
    except APIConnectionError as error:
        say(error=type(error).__name__, text=text)
        return
    say(ended=text)


def killed_response(client, key):
    """The server is killed amid a stream of a response: the client goes on after the last event that it has, each event once."""
    deltas, last, response, breaks = [], None, None, 0
    events = client.responses.create(model="a", input="count 60 0.05", stream=True, background=True)
    while True:
        try:
            for event in events:
                last = event.sequence_number
                if event.type == "response.created":
                    response = event.response.id
                elif event.type == "response.output_text.delta":
                    deltas.append(event.delta)
                    say(text="".join(deltas))
                elif event.type == "response.completed":
                    say(whole=text_of(event.response), deltas="".join(deltas), breaks=breaks, id=response)
                    return
            raise AssertionError(f"it ended as if it were whole: {deltas}")
        except APIConnectionError:
            breaks += 1
            events = client.responses.retrieve(response, stream=True, starting_after=last)


def killed_waiting(client, key):
    """The server is killed while the client waits for a whole answer: its retry is the same message."""
    say(waiting=True)
    response = client.responses.create(model="a", input="sleep 3; say slept")
    chat = client.chat.completions.create(model="a", messages=[{"role": "user", "content": "say after"}])
    say(text=response.output_text, id=response.id, chat=chat.choices[0].message.content)


def main():
    check, base_url, key = sys.argv[1:]
    # Whoever waits for a server to come back tries more often than twice.
    client = OpenAI(base_url=base_url, api_key=key, max_retries=12 if check.startswith("killed") else 2, timeout=60)
    globals()[check](client, key)


main()
