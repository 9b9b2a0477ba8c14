"""Bodies that our own OpenAPI document allows, and such with something odd put into them: never a crash or a 500."""

import json

import hypothesis
import pytest
import requests
from hypothesis import strategies as st

from tests.serving import fakes
from tests.serving.test_openai_tools import TEMPLATE

PATHS = ("/chat", "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize")
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from([1 << 70, -(1 << 70), 1e308, "", "\ud800", "\x00", "<|end|>", "[" * 500]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KNOWN = {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "model": st.sampled_from(["tiny", None])}
"""Fields that are refused for most of the values that their schema allows."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with fakes.server(folder, tokenizer=fakes.ByteTokenizer(TEMPLATE), context=200) as client:
        client.document = client.get("/openapi.json").json()
        yield client


class Made:
    """Strategies for what a schema describes."""

    def __init__(self, document):
        self._schemas = document["components"]["schemas"]

    def of(self, schema):
        if "$ref" in schema:
            return self.of(self._schemas[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return st.one_of([self.of(each) for each in schema["anyOf"]])
        if "enum" in schema or "const" in schema:
            return st.sampled_from(schema.get("enum", [schema.get("const")]))
        return getattr(self, "_" + schema.get("type", "odd"))(schema)

    def _object(self, schema):
        fields = {
            name: KNOWN[name] if name in KNOWN else self.of(each) for name, each in schema.get("properties", {}).items()
        }
        required = {name: fields.pop(name) for name in schema.get("required", ())}
        some = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True) if fields else st.just([])
        chosen = some.flatmap(lambda names: st.fixed_dictionaries(required | {name: fields[name] for name in names}))
        return chosen if fields or required else st.dictionaries(st.text(max_size=5), ODD, max_size=2)

    def _array(self, schema):
        most = min(schema.get("maxItems", 3), 3)
        return st.lists(self.of(schema.get("items", {})), min_size=schema.get("minItems", 0), max_size=most)

    def _string(self, schema):
        return st.from_regex(schema["pattern"]) if "pattern" in schema else st.text(max_size=20)

    def _integer(self, schema):
        least = int(schema.get("minimum", -5))
        return st.integers(least, int(min(schema.get("maximum", least + 300), 1 << 62)))

    def _number(self, schema):
        least = schema.get("exclusiveMinimum", schema.get("minimum", -5))
        return st.floats(least, schema.get("maximum", 5), exclude_min="exclusiveMinimum" in schema)

    def _boolean(self, schema):
        return st.booleans()

    def _null(self, schema):
        return st.none()

    def _odd(self, schema):
        return ODD


@st.composite
def with_something_odd(draw, body):
    """A body in which one value, at any depth, is another."""
    body = draw(body)
    at = body
    while isinstance(at, dict | list) and at:
        key = draw(st.sampled_from(sorted(at)) if isinstance(at, dict) else st.integers(0, len(at) - 1))
        if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
            at[key] = draw(ODD)
            break
        at = at[key]
    return body


def check(path, response):
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        told = response.json()
        assert told["detail"] if path == "/chat" else told["error"]["message"]
    elif response.headers["Content-Type"].startswith("text/event-stream"):
        *_, last, end = [line for line in response.text.split("\n\n") if line] + [""]
        assert not end
        if last != "data: [DONE]":
            assert json.loads(last.removeprefix("data: "))["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("odd", [False, True])
def test_no_body_breaks_the_server(server, path, odd):
    schema = server.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    bodies = Made(server.document).of(schema)

    @hypothesis.settings(max_examples=20, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(with_something_odd(bodies) if odd else bodies)
    def send(body):
        data = json.dumps(body)
        headers = {"Content-Type": "application/json"}
        check(path, requests.post(server.url + path, data=data, headers=headers, timeout=60))

    send()
    assert server.get("/health").status_code == 200
    server.eventually(lambda: server.service.admission.inside == 0)


def test_the_document_names_each_path_with_its_errors_and_promises_no_422(server):
    for path in PATHS:
        answers = server.document["paths"][path]["post"]["responses"]
        assert {"200", "400", "401", "413", "429", "503", "504"} <= set(answers)
        assert "422" not in answers
    streamed = server.document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(streamed) == {"application/json", "text/event-stream"}
