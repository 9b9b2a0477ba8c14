"""The first rows before a GPU is bought, in an interpreter that has neither torch nor transformers."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from artifacts.weights import push
from artifacts.weights.config import Model
from tests import terminations
from tests.tuning import servers, words
from tests.tuning.conftest import ROOT
from tests.tuning.test_check import WITHOUT
from tuning.config import Exit, Result
from tuning.data import heads
from tuning.data.folder import Folder
from tuning.training_config import DatasetConfig

ROWS = [{"messages": words.conversation(f"question {number}", f"answer {number}")} for number in range(50)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
HUB = {"id": "tiny/phi", "revision": "main", "field": "tuning.preset"}


def parquet(rows=ROWS, **options):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A hub's folder with a model that has a tokenizer, and weights that nobody looks at."""
    root = tmp_path_factory.mktemp("hub")
    words.tokenizer().save_pretrained(root / "tiny/phi")
    (root / "tiny/phi/config.json").write_text("{}")
    (root / "tiny/phi/model.safetensors").write_bytes(b"w")
    return root


@pytest.fixture
def hub(folder):
    server = servers.Hub(folder)
    yield server
    server.close()


@pytest.fixture
def validate(files, registry, config, auth, hub, tmp_path):
    """`validate` of a config whose data are these bytes, in its own interpreter."""

    def go(content, *options, **more):
        if content is not None:
            files.files["/rows.jsonl"] = content
        asked = config(f"{registry.host}/team/new:1", **{"model": HUB, **more})
        path = tmp_path / "config.json"
        path.write_text(asked.model_dump_json())
        command = [sys.executable, "-c", WITHOUT, "validate", str(path), "--push-auth", str(auth), *map(str, options)]
        environment = {"TERMINATION_LOG": str(tmp_path / "t"), "PATH": os.environ["PATH"], "HF_ENDPOINT": hub.url}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
        left = terminations.of_tuning((tmp_path / "t").read_text())
        return SimpleNamespace(code=done.returncode, left=left, log=done.stderr, asked=asked)

    return go


def arrow(rows=ROWS, *, stream=False, **options):
    made, sink = pyarrow.Table.from_pylist(rows), io.BytesIO()
    asked = pyarrow.ipc.IpcWriteOptions(**options)
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(sink, made.schema, options=asked) as writer:
        writer.write_table(made, max_chunksize=30)
    return sink.getvalue()


SHOWN = "<|user|>\nquestion 0<|end|>\n<|assistant|>\n⟦answer 0<|end|>⟧"


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        parquet(),
        parquet(compression="zstd", row_group_size=7),
        json.dumps(ROWS).encode(),
        LINES * 200,
        arrow(),
        arrow(compression="zstd"),
        arrow(stream=True),
    ],
    ids=["lines", "parquet", "groups", "array", "long", "arrow", "arrow packed", "arrow stream"],
)
def test_the_first_rows_are_shown_as_the_model_reads_them(content, validate):
    done = validate(content)
    assert (done.code, done.left) == (Exit.DONE, Result()), done.log
    assert SHOWN in done.log
    assert "question 2" in done.log


def test_a_large_file_is_read_by_its_head(validate, files):
    content, ranges = parquet([{"text": os.urandom(20_000).hex()} for _ in range(200)], row_group_size=10), []

    def send(request):
        ranges.append(request.headers["Range"])
        files.send(request, content)

    done = validate(send)
    assert done.code == Exit.DONE
    assert "row 1, learned from between" in done.log
    parts = [part.removeprefix("bytes=").split("-") for part in ranges]
    assert sum(int(last) + 1 - int(first) for first, last in parts) < len(content) / 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_arrow_file_is_read_by_its_first_batch(stream, validate, files):
    content, ranges = arrow([{"text": os.urandom(20_000).hex()} for _ in range(200)], stream=stream), []

    def send(request):
        ranges.append(request.headers["Range"])
        files.send(request, content)

    done = validate(send)
    assert done.code == Exit.DONE
    assert "row 1, learned from between" in done.log
    assert "row 3, learned from between" in done.log
    parts = [part.removeprefix("bytes=").split("-") for part in ranges]
    assert sum(int(last) + 1 - int(first) for first, last in parts) < len(content) / 2


def test_a_batch_of_everything_is_left_to_the_node(tmp_path):
    sink = io.BytesIO()
    rows = pyarrow.table({"text": ["x" * 1000] * 40_000})
    with pyarrow.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    (tmp_path / "a.arrow").write_bytes(sink.getvalue())
    seen = heads.of_folder(Folder(tmp_path, "tuning.input"), None, DatasetConfig())
    assert (seen.found, seen.dropped) == ((), ())


@pytest.mark.parametrize("how", ["cut", "spoilt"])
def test_a_broken_arrow_file_is_told(how, validate):
    content = arrow()
    place = content.index(b"question 0")
    content = content[:place] if how == "cut" else content[: place - 120] + b"\xff" * 120 + content[place:]
    done = validate(content)
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataInvalid"), done.log
    assert "this arrow file cannot be read" in done.left.message


def test_a_server_that_dies_while_a_file_is_looked_into_is_worth_another_try(validate, files):
    content = parquet([{"text": os.urandom(20_000).hex()} for _ in range(200)], row_group_size=10)
    asked = []

    def send(request):
        asked.append(request.headers["Range"])
        files.send(request, content, cut_after=1000 if len(asked) > 2 else None)

    done = validate(send)
    assert (done.code, done.left.retryable) == (Exit.NETWORK, True), done.left


def test_columns_of_no_known_shape_are_told(validate):
    done = validate(b'{"a": 1}\n' * 50)
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataInvalid")
    assert "none of the first 20 rows can be used" in done.left.message
    assert "columns a are no known shape" in done.left.message


def test_rows_that_are_cut_before_their_answer_are_told(validate):
    long = json.dumps({"prompt": "why? " * 30, "completion": "so"}).encode()
    done = validate(long, training={"arguments": {"max_length": 16}})
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataInvalid")
    assert "nothing to learn within the first 16 tokens" in done.left.message


def test_a_few_bad_rows_are_a_warning(validate):
    done = validate(b'{"a": 1}\n' + LINES)
    assert done.code == Exit.DONE
    assert "of the first 20 rows 1 are left out: rows.jsonl row 1" in done.log


@pytest.mark.parametrize(
    ("template", "code", "said"),
    [
        ("{% for m in messages %}", Exit.BAD_CONFIG, "ModelConfig.chat_template: the chat template cannot be compiled"),
        (
            "{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}",
            Exit.BAD_CONFIG,
            "ModelConfig.chat_template (where none is given, the model's own): a conversation of ",
        ),
        ("{{ 'x' * 9999999999 }}", Exit.BAD_CONFIG, "takes more than 128 MiB of memory to render; give a template"),
        ("{{ raise_exception('never') }}", Exit.BAD_DATA, "the chat template refuses the conversation: never"),
        ("{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}", Exit.DONE, "⟦"),
    ],
)
def test_a_template_of_the_users_own_is_tried(validate, template, code, said):
    done = validate(LINES, training={"model": {"chat_template": template}})
    assert done.code == code
    assert said in done.log


def test_a_tokenizer_that_cannot_be_read_here_is_left_to_the_node(validate, folder):
    (folder / "tiny/other").mkdir(exist_ok=True)
    done = validate(LINES, model={**HUB, "id": "tiny/other"})
    assert done.code == Exit.DONE
    assert "what the rows are to the model is seen on the node: tiny/other has no tokenizer.json" in done.log
    done = validate(LINES, model={**HUB, "id": "tiny/none"})
    assert done.code == Exit.DONE
    assert "is seen on the node" in done.log


def test_an_image_with_the_model_has_its_tokenizer(validate, registry, auth, folder):
    pushed = push.push(
        Model(**HUB), f"{registry.host}/team/phi:1", folder=folder / "tiny/phi", auth=auth, out=io.StringIO()
    )
    done = validate(LINES, "--pull-auth", auth, model={**HUB, "image": pushed.image})
    assert (done.code, SHOWN in done.log) == (Exit.DONE, True), done.log


def test_rows_of_a_volume_are_shown(validate, tmp_path):
    volume = tmp_path / "claim"
    volume.mkdir()
    (volume / "b.csv").write_text("prompt,completion\nwhat,this\n")
    (volume / "a.parquet").write_bytes(parquet())
    done = validate(None, "--data", volume, input={"volume": "team/data"})
    assert done.code == Exit.DONE, done.log
    assert SHOWN in done.log
    (volume / "a.parquet").write_bytes(b"PAR1" + b"nonsense" * 9 + b"PAR1")
    done = validate(None, "--data", volume, input={"volume": "team/data"})
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataInvalid")
    assert "a.parquet: this parquet file cannot be read" in done.left.message


def test_a_broken_parquet_file_is_told_before_it_is_downloaded(validate):
    done = validate(parquet()[:-9] + b"\0\0\0\0\xffPAR1")
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataInvalid")
    assert "tuning.input.urls[0]" in done.left.message


def test_a_document_of_many_lines_is_left_to_the_node(validate):
    done = validate(json.dumps({"data": ROWS * 200}, indent=1).encode())
    assert done.code == Exit.DONE
    assert "rows are read on the node" in done.log


def test_a_wrong_password_is_told_whatever_else_takes_its_time(validate, hub, tmp_path):
    hub.answer = lambda _request: __import__("time").sleep(30)
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"auths": {}}')
    done = validate(LINES, "--push-auth", wrong)
    assert (done.code, done.left.reason) == (Exit.REGISTRY_AUTH, "PushUnauthorized")
