"""Asks for every path of the API, and holds what comes against the schemas of its own document: openapi_check.py URL TOKEN.

Whatever the document does not name counts as wrong: a field that is answered and not described, and a path that is described and not asked for.
"""

import copy
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import jsonschema

URL, TOKEN = sys.argv[1:]
AGENT = "/api/v1/agents/{agent}"
MESSAGE = "/api/v1/messages/{message}"
DEAD = "/api/v1/dead/{message}"
NODE = "/api/v1/nodes/{node}"
SCHEDULE = f"{AGENT}/schedules/{{schedule}}"


def ask(method, path, body=None, accept="application/json"):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": accept, "Content-Type": "application/json"}
    request = urllib.request.Request(URL + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


DOCUMENT = json.loads(ask("GET", "/api/v1/openapi.json")[1])


def closed(schema, part=False):
    """The schema with its references in place, and closed to fields that it does not name. `part`: another schema beside it names some."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        schema = DOCUMENT["components"]["schemas"][name]
    schema = copy.copy(schema)
    for key in ("allOf", "oneOf", "anyOf"):
        if key in schema:
            schema[key] = [closed(one, part or key == "allOf") for one in schema[key]]
    if "properties" in schema:
        schema["properties"] = {name: closed(one) for name, one in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = closed(schema[key])
    is_named = "properties" in schema or "allOf" in schema
    if is_named and not part and "additionalProperties" not in schema:
        schema["unevaluatedProperties"] = False
    return schema


def valid(schema, value, where):
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    errors = list(jsonschema.Draft202012Validator(closed(schema), format_checker=checker).iter_errors(value))
    assert not errors, (where, [error.message[:500] for error in errors], value)


ASKED = set()


def check(method, path, body=None, status=200, query="", **names):
    """Asks, and yields what comes, which is as it is described."""
    ASKED.add((path, method.lower()))
    described = DOCUMENT["paths"][path][method.lower()]
    got, text = ask(method, path.format(**{name: urllib.parse.quote(value, safe="") for name, value in names.items()}) + query, body)
    assert got == status, (method, path, got, text)
    answers = described["responses"]
    content = answers.get(str(status), answers.get("default", {})).get("content")
    assert content or not text, (method, path, "it answers more than is described", text)
    if body is not None:
        wanted = described["requestBody"]["content"]["application/json"]["schema"]
        valid(wanted, body, (method, path, "its body"))
    if not content:
        return None
    schema = content.get("application/json", content.get("application/problem+json"))["schema"]
    # A description that takes everything says nothing.
    target = schema.get("items", schema)
    is_ours = path.startswith("/api/v1/") and path != "/api/v1/openapi.json"
    assert not is_ours or "$ref" in target, (method, path, "its body is not typed", schema)
    value = json.loads(text)
    valid(schema, value, (method, path))
    return value


def until(what, is_so, wait=60):
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if is_so():
            return
        time.sleep(0.2)
    raise AssertionError(what)


def events(path, component, most):
    """Events of a stream, each as the component says."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/event-stream"}
    seen = []
    with urllib.request.urlopen(urllib.request.Request(URL + path, None, headers), timeout=60) as answer:
        for line in answer:
            if line.startswith(b"data: "):
                seen.append(json.loads(line[6:]))
                valid({"$ref": f"#/components/schemas/{component}"}, seen[-1], (path, "an event"))
            if len(seen) >= most or (seen and seen[-1].get("type") == "done"):
                return seen
    return seen


def send(text, status=201, query="", **more):
    return check("POST", "/api/v1/messages", {"agent": "a", "message": text, **more}, status=status, query=query)


# What there is of everything.
souls = [{"name": "new", "text": "MODEL test/model\nSOUL You repeat.\n"}]
assert check("POST", "/api/v1/agents", {"souls": souls, "force": True})[0]["created"]
done = send("say hi", query="?wait=30s", messageId="m-1", conversationId="c")
assert done["response"] == "hi", done
assert send("say hi", status=200, messageId="m-1", conversationId="c")["status"] == "completed"
long = send("sleep 600", status=202, query="?wait=100ms")
given_up = [send("fail no", query="?wait=30s", messageId=f"dead-{n}") for n in range(2)]
assert given_up[0]["status"] == "failed", given_up
tool = send("tool search;say x", query="?wait=30s")
seen = events(f"/api/v1/messages/{tool['messageId']}/events", "Line", 100)
assert {"event", "text", "done"} <= {one["type"] for one in seen}, seen

# Messages.
assert len(check("GET", "/api/v1/messages")) >= 4
assert len(check("GET", MESSAGE, message="m-1")["history"]) > 1
assert check("GET", f"{MESSAGE}/explanation", message="m-1")["explanation"]
assert check("POST", f"{MESSAGE}/cancel", message=long["messageId"])["status"] == "cancelled"
check("POST", f"{MESSAGE}/cancel", status=409, message=long["messageId"])
check("GET", MESSAGE, status=404, message="nobody")
ASKED.add((f"{MESSAGE}/events", "get"))

# Dead letters.
until("both are given up", lambda: len(json.loads(ask("GET", "/api/v1/dead")[1])) == 2)
assert len(check("GET", "/api/v1/dead")) == 2
assert check("GET", DEAD, message="dead-0")["attempts"]
assert check("POST", f"{DEAD}/redrive", status=201, message="dead-0")["redriveOf"] == "dead-0"
check("DELETE", DEAD, status=204, message="dead-1")

# Schedules.
(row,) = check("GET", "/api/v1/schedules")
schedule = {"agent": "a", "schedule": row["schedule"]}
assert len(row["next"]) == 5 and row["cron"] == "0 9 1 1 *", row
ran = check("POST", f"{SCHEDULE}/run", status=201, **schedule)
until("it is answered", lambda: json.loads(ask("GET", f"/api/v1/messages/{ran['messageId']}")[1])["status"] == "completed")
(fate,) = check("GET", f"{SCHEDULE}/history", **schedule)
assert (fate["fate"], fate["messageId"]) == ("requested", ran["messageId"]), fate
assert check("POST", f"{SCHEDULE}/pause", agent="a", schedule=row["schedule"][:4])["paused"] is True
paused = check("GET", "/api/v1/schedules", query="?agent=a")[0]
assert paused["paused"] and paused["last"] == fate and not paused["next"], paused
assert check("GET", "/api/v1/schedules", query=f"?after=a%2F{row['schedule']}") == []
assert check("POST", f"{SCHEDULE}/resume", **schedule)["paused"] is False
assert "paused" not in check("GET", "/api/v1/schedules")[0]
check("POST", f"{SCHEDULE}/run", status=404, agent="a", schedule="nope")
check("GET", f"{SCHEDULE}/history", status=404, agent="nobody", schedule="nope")
check("GET", "/api/v1/schedules", status=400, query="?after=nonsense")

# Questions to people, and a message for later.
asked = send("question shall I?", status=202, query="?wait=100ms")
until("a person is asked", lambda: json.loads(ask("GET", "/api/v1/questions")[1]))
(question,) = check("GET", "/api/v1/questions")
assert (question["text"], question["messageId"]) == ("shall I?", asked["messageId"]), question
names = {"agent": "a", "message": asked["messageId"], "request": question["requestId"]}
ANSWER = "/api/v1/questions/{agent}/{message}/{request}/answer"
assert check("POST", ANSWER, {"text": "yes"}, **names)["text"] == "yes"
check("POST", ANSWER, {"text": "no"}, status=409, **names)
until("it is answered", lambda: json.loads(ask("GET", f"/api/v1/messages/{asked['messageId']}")[1]).get("response") == "yes")
later = send("say later", deliverAt=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600)))
assert check("GET", MESSAGE, message=later["messageId"])["deliverAt"], later
assert check("POST", f"{MESSAGE}/cancel", message=later["messageId"])["status"] == "cancelled"

# Agents.
assert len(check("GET", "/api/v1/agents")) == 2
assert check("GET", AGENT, agent="a")["config"]["schedule"], "a spec with much in it"
for change in ("stop", "start", "restart", "replace"):
    body = {} if change == "replace" else None
    assert check("POST", f"{AGENT}/{change}", body, agent="new")[0]["agent"] == "new"
again = [{"name": "new", "text": "MODEL test/model\nSOUL You repeat.\nENV LANG=C\n"}]
assert check("POST", "/api/v1/agents", {"souls": again})[0]["changed"]


def is_ready():
    shown = json.loads(ask("GET", "/api/v1/agents/new")[1])
    return (shown["state"], shown["runningGeneration"]) == ("running", shown["generation"])


until("the new generation runs", is_ready)
assert len(check("GET", f"{AGENT}/generations", agent="new")) >= 2
assert check("POST", f"{AGENT}/rollback", {"toGeneration": 1}, agent="new")[0]["changed"]
assert check("GET", f"{AGENT}/explanation", agent="new")["subject"] == "new"
assert check("DELETE", AGENT, agent="new")[0]["agent"] == "new"
check("GET", AGENT, status=404, agent="none")

# The fleet.
assert check("GET", "/api/v1/fleet")["leader"]
node = check("GET", "/api/v1/nodes")[0]["node"]
assert check("GET", NODE, node=node)["agents"]
check("POST", f"{NODE}/drain", {"parallel": 1}, status=202, node=node)
check("POST", f"{NODE}/undrain", status=204, node=node)
assert len({record["type"] for record in check("GET", "/api/v1/events", query="?limit=1000")}) > 8
assert len(events("/api/v1/events?from=0", "Numbered", 20)) == 20
check("GET", "/api/v1/health", status=204)
check("GET", "/api/v1/openapi.json")

# What other protocols define is described there, and is only an object here.
check("GET", "/v1/models")
check("GET", "/v1/models/{model}", model="a")
others = ("/v1/", "/a2a/", "/.well-known/")
all_ = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods if method in ("get", "post", "delete", "put")}
missing = {(path, method) for path, method in all_ - ASKED if not path.startswith(others)}
assert not missing, missing
print(json.dumps({"done": True, "asked": len(ASKED)}))
