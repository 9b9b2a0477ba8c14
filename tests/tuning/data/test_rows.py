"""Files of all formats are read row by row, whatever is wrong with some of them."""

import bz2
import csv
import datetime
import gzip
import io
import json
import lzma
import tarfile

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tests.tuning.data.test_shapes import CHAT
from tuning.data import rows
from tuning.data.fetch import File
from tuning.data.rows import Dropped, read
from tuning.errors import DataInvalid
from tuning.training_config import DatasetConfig


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return File("tuning.input.urls[0]", name, path, len(content), "")

    return write


def parquet(table):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), sink)
    return sink.getvalue()


PACKERS = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda content: pyarrow.compress(content, "zstd", asbytes=True),
    "gzip twice": lambda content: gzip.compress(gzip.compress(content)),
}


def table(kind, rows):
    if " by " in kind:
        inner, by = kind.split(" by ")
        return PACKERS[by](table(inner, rows))
    if kind == "parquet":
        return parquet(rows)
    if kind == "csv":
        sink = io.StringIO()
        writer = csv.DictWriter(sink, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
        return sink.getvalue().encode()
    if kind.startswith("arrow"):
        sink = io.BytesIO()
        made = pyarrow.Table.from_pylist(rows)
        with (pyarrow.ipc.new_stream if "stream" in kind else pyarrow.ipc.new_file)(sink, made.schema) as writer:
            writer.write_table(made, max_chunksize=700)
        return sink.getvalue()
    return {
        "jsonl": "\n".join(map(json.dumps, rows)) + "\n\n",
        "json": json.dumps(rows, indent=2),
        "json object": json.dumps({"version": 1, "data": rows}, indent=1),
        "json object in a line": json.dumps({"version": 1, "tags": ["x"], "data": rows}) + "\n",
        "json bom": "\ufeff" + json.dumps(rows),
    }[kind].encode()


KINDS = ["parquet", "csv", "jsonl", "json", "json object", "json object in a line", "json bom", "arrow", "arrow stream"]
PACKED = [
    "jsonl by gzip",
    "jsonl by xz",
    "jsonl by bzip2",
    "jsonl by zstd",
    "csv by zstd",
    "csv by gzip",
    "json by gzip",
]


@pytest.mark.parametrize("kind", KINDS + PACKED)
def test_all_formats(put, kind):
    content = [{"prompt": f"q, {n}\nü", "completion": "a"} for n in range(3000)]
    dropped = Dropped()
    found = read([put("a.data", table(kind, content))], DatasetConfig(), dropped)
    assert len(found) == 3000
    assert found[7] == rows.Found("a.data row 8", [{"role": "user", "content": "q, 7\nü"}, CHAT[1]])
    assert dropped.count == 0


def test_nested_parquet(put):
    (found,) = read([put("a", parquet([{"messages": CHAT}]))], DatasetConfig(), Dropped())
    assert found.example == CHAT


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators(put, separator):
    content = f"prompt{separator}completion\nq{separator}a\n".encode()
    assert read([put("a", content)], DatasetConfig(), Dropped())[0].example == CHAT


def test_all_files_are_read_whatever_their_columns(put):
    files = [put("a", table("jsonl", [{"text": "t"}])), put("b", parquet([{"prompt": "q", "completion": "a"}]))]
    assert [found.example for found in read(files, DatasetConfig(), Dropped())] == ["t", CHAT]


def test_bad_rows_are_counted_and_the_first_are_shown(put):
    content = b'{"text": "t"}\n' + b'{"text": ""}\n{"x": 1}\nnonsense\n{"text": 1.5}\n[]\n{"text"\n'
    dropped = Dropped()
    assert len(read([put("a.jsonl", content)], DatasetConfig(), dropped)) == 2
    assert dropped.count == 5
    assert str(dropped).startswith("a.jsonl row 2: column text is empty; a.jsonl row 3: columns x are no known")
    assert str(dropped).endswith("; and 2 more")


def test_a_broken_first_line_is_a_bad_row_as_any_other(put):
    dropped = Dropped()
    content = b'{"text": "t\n' + b'{"text": "t"}\n' * 30
    assert len(read([put("a.jsonl", content)], DatasetConfig(), dropped)) == 30
    assert str(dropped).startswith("a.jsonl row 1: not JSON")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(("row", "columns"), [({"messages": CHAT}, {}), ({"chat": CHAT}, {"messages_column": "chat"})])
def test_a_single_row_is_a_row(put, indent, row, columns):
    for document in (row, {"data": [row]}):
        content = json.dumps(document, indent=indent).encode()
        (found,) = read([put("a.json", content)], DatasetConfig(**columns), Dropped())
        assert found.example == CHAT


def test_only_bad_rows_are_an_error_with_reasons(put):
    with pytest.raises(DataInvalid, match=r"tuning\.input: no row of 2 can be used: a row 1: columns x are no known"):
        read([put("a", b'{"x": 1}\n{"y": 1}\n')], DatasetConfig(), Dropped())


def test_no_rows_are_an_error(put):
    with pytest.raises(DataInvalid, match="no row of 0 can be used: the files have none"):
        read([put("a", b"[]")], DatasetConfig(), Dropped())


@pytest.mark.parametrize(
    "content",
    [
        parquet([{"text": "x" * 5000}])[:-500] + b"PAR1",
        b"[{",
        b"[" * 100_000,
        b'{"a": [' + b"\n",
        json.dumps({"data": [{"text": "t"}] * 9}, indent=1).encode()[:-9],
        b"[\n" + b'{"text": "t"},\n' * 9 + b'{"text": "t"}\n',
        b"a,b\n" + b"\xe9" * 40_000,
    ],
)
def test_broken_files_are_named(put, content):
    with pytest.raises(DataInvalid) as raised:
        read([put("a.data", content)], DatasetConfig(), Dropped())
    assert "tuning.input.urls[0] (a.data): this" in str(raised.value) or "the file starts with" in str(raised.value)


def test_a_disk_error_is_none_of_the_datas(put):
    file = put("a", b"{}")
    file.path.unlink()
    with pytest.raises(FileNotFoundError):
        read([file], DatasetConfig(), Dropped())


def test_tools_of_a_row(put):
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "enum": None}}}
    content = [{"messages": CHAT, "tools": [tool]}, {"messages": CHAT, "tools": json.dumps([tool])}, {"messages": CHAT}]
    found = read([put("a.jsonl", table("jsonl", content))], DatasetConfig(), Dropped())
    wanted = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
    assert [each.tools for each in found] == [(wanted,), (wanted,), ()]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": CHAT, "tools": "no"}, "tools is ValueError, not a list"),
        ({"messages": CHAT, "tools": ["clock"]}, "tools has an entry that is no object"),
        ({"messages": [*CHAT, {"role": "assistant", "tool_calls": [{"id": 1}]}]}, "a call without function and name"),
        (
            {"messages": [*CHAT, {"role": "assistant", "tool_calls": [{"name": "clock", "arguments": "{"}]}]},
            "the arguments of a call of 'clock' are no JSON object",
        ),
    ],
)
def test_bad_tools_are_bad_rows(put, row, words):
    dropped = Dropped()
    assert len(read([put("a.jsonl", table("jsonl", [row, {"text": "t"}]))], DatasetConfig(), dropped)) == 1
    assert words in str(dropped)


@pytest.mark.parametrize("kind", ["jsonl by gzip twice", "parquet by gzip", "arrow by zstd"])
def test_what_is_packed_once_more_is_refused(put, kind):
    with pytest.raises(DataInvalid, match=r"packed once more|is packed, and cannot be unpacked"):
        read([put("a", table(kind, [{"text": "t"}]))], DatasetConfig(), Dropped())


def test_webdataset_is_refused_with_the_reason(put):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("0.jpg"))
    for content in (sink.getvalue(), gzip.compress(sink.getvalue())):
        with pytest.raises(DataInvalid, match="is a tar archive, which as webdataset holds pictures and sounds"):
            read([put("a", content)], DatasetConfig(), Dropped())


def test_columns_that_nobody_asks_for_are_not_read(put):
    rows = [{"text": "t", "picture": b"\xff" * 99}]
    (found,) = read([put("a", parquet(rows))], DatasetConfig(), Dropped())
    assert found.example == "t"
    with pytest.raises(DataInvalid, match="columns picture are no known shape"):
        read([put("a", parquet([{"picture": b"\xff" * 99}]))], DatasetConfig(), Dropped())


def test_values_that_json_has_not_are_text(put):
    day = datetime.date(2026, 11, 21)
    (found,) = read([put("a", parquet([{"prompt": "q", "completion": day}]))], DatasetConfig(), Dropped())
    assert found.example[1]["content"] == "2026-11-21"
