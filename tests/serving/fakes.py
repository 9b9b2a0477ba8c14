"""Small real things behind the Protocols of serving/: an engine that says what it is told to, a tokenizer of bytes."""

import asyncio
import contextlib
import shutil
import socket
import threading
import time

import jinja2
import requests
import tokenizers
import uvicorn

from serving import errors
from serving.adapters import Pulled
from serving.app import create_app
from serving.config import ServingConfig
from serving.engine.protocol import AdapterRefused, Delta, EngineDown, Health, Logprob, ModelInfo, Sampling, Stats
from serving.service import Loaded, Service
from serving.settings import Limits
from serving.text.chat import Chat, TextRefused

SPECIAL = ["<s>", "<|user|>", "<|assistant|>", "<|end|>"]
END = 3
TEMPLATE = (
    "{% for m in messages %}{% if m.role not in ['user', 'assistant', 'system'] %}"
    "{{ raise_exception('no role ' + m.role) }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
)
OTHER_TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[bot] "
CONFIG = ServingConfig.model_validate(
    {"workspace": "ns/w", "name": "tiny", "model": {"id": "acme/tiny", "revision": "1"}, "port": 5000}
)


class ByteTokenizer:
    """Four special tokens and the 256 bytes."""

    def __init__(self, template=TEMPLATE):
        alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: number for number, token in enumerate(SPECIAL + alphabet)}
        self.backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
        self.backend.add_special_tokens(SPECIAL)
        self.backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self.backend.decoder = tokenizers.decoders.ByteLevel()
        self.special_tokens = frozenset(SPECIAL)
        self.stop_ids = frozenset([0])
        self.template = template

    def encode(self, text):
        return self.backend.encode(text).ids

    def render(self, messages, template, tools=()):
        def raise_exception(message):
            raise jinja2.TemplateError(message)

        try:
            return jinja2.Template(template).render(messages=messages, tools=tools, raise_exception=raise_exception)
        except jinja2.TemplateError as error:
            raise TextRefused(str(error)) from error

    def encode_chat(self, messages, template, tools=()):
        return self.encode(self.render(messages, template, tools))

    def text(self, tokens):
        return self.backend.decode(list(tokens), skip_special_tokens=False)


FEATURES = frozenset(
    {"repetition_penalty", "typical_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "grammar"}
)


class FakeEngine:
    """Answers every request with `answer`; keeps what it was asked."""

    def __init__(self, tokenizer, *, context=1000, features=FEATURES):
        self.info = ModelInfo("fake", 1, context, 260, frozenset({END}), Sampling(), features, "none", "none")
        self.tokenizer = tokenizer
        self.answer = "fine, thank you"
        self.ends = True
        self.gate = threading.Event()
        """Closed, it holds every answer after its first token."""
        self.gate.set()
        self.fails = None
        self.seen = []
        self.cancelled = 0
        self.adapters = {}
        self.loads = []
        self.broken = ""
        self.inside = 0
        self._turn = asyncio.Lock()

    def forget(self):
        """For a test that comes after another on the same server."""
        self.answer, self.fails = "fine, thank you", None
        self.gate.set()
        self.seen.clear()
        self.cancelled = 0

    async def generate(self, request):
        if self.broken:
            raise EngineDown(self.broken)
        self.seen.append(request)
        tokens = self.tokenizer.encode(self.answer) + ([END] if self.ends else [])
        done, ended = 0, False
        self.inside += 1
        try:
            async with self._turn:
                yield Delta(())
                for token in self._chosen(tokens, request):
                    while done and not self._goes_on():  # noqa: ASYNC110 (opened by another thread)
                        await asyncio.sleep(0.01)
                    if self.broken or self.fails:
                        raise EngineDown(self.broken) if self.broken else self.fails
                    done += 1
                    last = "length" if done == request.max_new_tokens else None
                    stops = token in request.stop_ids and done > request.min_new_tokens
                    ended = stops or last is not None
                    yield Delta((token,), "stop" if stops else last, self._likely(token, request))
                    if ended:
                        return
                ended = True
                yield Delta((), "length")
        finally:
            self.inside -= 1
            self.cancelled += not ended

    def _chosen(self, tokens, request):
        """The answer's tokens; with a grammar, the first that it allows where it does not allow those."""
        for number in range(request.max_new_tokens):
            token = tokens[number] if number < len(tokens) else END
            if request.grammar:
                allowed = request.grammar.allowed()
                token = token if allowed[token] else END if allowed[END] else int(allowed.nonzero()[0])
                request.grammar.accept(token)
            elif number >= len(tokens):
                return
            yield token

    def _likely(self, token, request):
        if request.logprobs is None:
            return ()
        top = tuple((each, -0.5 - number) for number, each in enumerate([token, 4, 5][: request.logprobs]))
        return (Logprob(-0.5, top),)

    def _goes_on(self):
        return self.gate.is_set() or self.broken or self.fails

    async def load_adapter(self, adapter, folder):
        if (folder / "bad").exists():
            raise AdapterRefused("made for another base model")
        if (folder / "odd").exists():
            raise OverflowError("cannot convert float infinity to integer")
        self.loads.append(adapter)
        self.adapters[adapter] = folder.name

    async def unload_adapter(self, adapter):
        del self.adapters[adapter]

    def health(self):
        return Health(not self.broken, self.broken)

    def stats(self):
        running = int(self._turn.locked())
        return Stats(running, self.inside - running, 0.25 * running, 10, 20, 5, 3, 0, 30, 1.5)

    async def stop(self):
        self.broken = "the engine was stopped"


class FolderSource:
    """Images as folders: `images[reference] = (digest, {file: text})`; what is missing raises."""

    def __init__(self, root):
        self.root = root
        self.images = {}
        self.pulls = []
        self.kept = set()

    async def pull(self, adapter):
        image = adapter.image
        self.pulls.append(image)
        if image not in self.images:
            raise errors.AdapterImageNotFound(f"the registry has no image {image}")
        digest, files = self.images[image]
        folder = self.root / digest.replace(":", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return Pulled(digest, folder)

    def keep_only(self, digests):
        self.kept = set(digests)


class Client:
    """What a test holds of a running server."""

    def __init__(self, url, service, engine, source, fatal):
        self.url, self.service, self.engine, self.source, self.fatal = url, service, engine, source, fatal

    def get(self, path):
        return requests.get(self.url + path, timeout=60)

    def post(self, path, **body):
        return requests.post(self.url + path, json=body, timeout=60)

    def chat(self, prompt, **kwargs):
        return self.post("/chat", prompt=prompt, generate_kwargs=kwargs)

    def eventually(self, condition, seconds=30.0):
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, "did not happen in time"
            time.sleep(0.02)

    def on_loop(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


@contextlib.contextmanager
def server(
    folder, *, tokenizer=None, load=None, limits=None, images=None, adapters="[]", source=None,
    config=CONFIG, **engine,
):  # fmt: skip
    """The real application on a real port of loopback, with a fake engine behind it."""
    tokenizer = tokenizer or ByteTokenizer()
    fake = FakeEngine(tokenizer, **engine)
    if source is None:
        source = FolderSource(folder / "images")
        source.images.update(images or {})
    (folder / "adapters.json").write_text(adapters)
    fatal = []
    service = Service(
        config,
        load=load or (lambda: Loaded(fake, Chat(tokenizer))),
        adapters_file=folder / "adapters.json",
        source=source,
        on_fatal=fatal.append,
        limits=Limits(**(limits or {})),
        poll_seconds=0.05,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", service, fake, source, fatal)
    running = uvicorn.Server(uvicorn.Config(create_app(service), log_level="error", ws="none", lifespan="on"))

    async def serve():
        client.loop = asyncio.get_running_loop()
        await running.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        client.eventually(lambda: running.started)
        if load is None and "strength" not in adapters:
            client.eventually(lambda: client.get("/health").status_code == 200)
        yield client
    finally:
        running.should_exit = True
        fake.gate.set()
        thread.join(30)
        assert not thread.is_alive()


def failing(error):
    def load():
        raise error

    return load
