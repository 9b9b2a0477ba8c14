"""Files that were broken on purpose: no crash without a clear error, memory bounded, nothing written.

The mutations are drawn from seeds: bytes flipped in the middle and in the footer, cuts, lengths that lie, whole pieces
repeated, compression bombs.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import venv
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tuning.data import apart, rows
from tuning.data.fetch import File
from tuning.errors import DataInvalid
from tuning.training_config import DatasetConfig

CONTENT = [
    {"messages": [{"role": "user", "content": f"q {n}" * 9}, {"role": "assistant", "content": "a" * n}]}
    for n in range(200)
]
TABLE = pyarrow.Table.from_pylist(CONTENT)


def parquet(**options):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(TABLE, sink, row_group_size=64, **options)
    return sink.getvalue()


def arrow(opened):
    sink = io.BytesIO()
    with opened(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=64)
    return sink.getvalue()


LINES = "\n".join(map(json.dumps, CONTENT)).encode()
COLUMNS = b"prompt,completion\n" + b'"a ""quoted"" q","and, an answer"\n' * 200
WHOLE = {
    "parquet": [parquet(compression=each) for each in ("snappy", "zstd", "gzip", "none")],
    "arrow": [arrow(pyarrow.ipc.new_file), arrow(pyarrow.ipc.new_stream)],
    "jsonl": [LINES, json.dumps(CONTENT).encode()],
    "csv": [COLUMNS],
    "packed": [
        gzip.compress(LINES),
        bz2.compress(LINES),
        lzma.compress(LINES),
        pyarrow.compress(LINES, "zstd", asbytes=True),
    ],
}


def flip(data, drawn):
    for _ in range(drawn.choice([1, 1, 2, 8, 64])):
        data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)


def flip_the_end(data, drawn):
    for _ in range(drawn.choice([1, 2, 8])):
        data[-1 - drawn.randrange(min(len(data), 1500))] ^= 1 << drawn.randrange(8)


def cut(data, drawn):
    del data[drawn.randrange(len(data)) :]


def cut_the_middle(data, drawn):
    start = drawn.randrange(len(data))
    del data[start : start + drawn.randrange(1, 4000)]


def lie(data, drawn):
    """A length or offset somewhere becomes a large one, or less than none."""
    start = drawn.randrange(max(1, len(data) - 8))
    data[start : start + 4] = struct.pack("<i", drawn.choice([-1, 0, 1 << 30, (1 << 31) - 1, -(1 << 31), 1 << 20]))


def repeat(data, drawn):
    start = drawn.randrange(len(data))
    data[start:start] = data[start : start + drawn.randrange(1, 2000)] * drawn.choice([1, 3])


MUTATIONS = [flip, flip, flip_the_end, flip_the_end, cut, cut_the_middle, lie, lie, repeat]


def mutated(kind, seed):
    drawn = random.Random(seed)
    data = bytearray(drawn.choice(WHOLE[kind]))
    drawn.choice(MUTATIONS)(data, drawn)
    return bytes(data)


def put(folder, contents):
    folder.mkdir()
    files = []
    for index, content in enumerate(contents):
        path = folder / f"{index:03}"
        path.write_bytes(content)
        files.append(File("tuning.input.urls[0]", path.name, path, len(content), ""))
    return files


def outcomes(files, **bounds):
    """What reading each file comes to: its rows, or what the user is told. One reader for all, until it dies."""
    found = []
    while len(found) < len(files):
        for _, read in apart.read(files[len(found) :], DatasetConfig(), **bounds):
            try:
                found.append(len(list(read)))
            except DataInvalid as error:
                found.append(str(error))
                if "ends the process" in found[-1]:
                    break
    return found


@pytest.mark.parametrize("kind", WHOLE)
def test_all_are_read_while_they_are_whole(kind, tmp_path):
    assert outcomes(put(tmp_path / "data", WHOLE[kind])) == [200] * len(WHOLE[kind])


@pytest.mark.parametrize(
    ("kind", "count"), [("parquet", 200), ("arrow", 100), ("jsonl", 60), ("csv", 40), ("packed", 60)]
)
def test_broken_files_are_told_and_nothing_else_happens(kind, count, tmp_path):
    files = put(tmp_path / "data", [mutated(kind, seed) for seed in range(count)])
    before = hashlib.sha256(b"".join(file.path.read_bytes() for file in files)).digest()
    found = outcomes(files, most=1 << 30)
    told = [each for each in found if isinstance(each, str)]
    assert all(each.startswith("tuning.input.urls[0] (") and len(each) < 5000 for each in told)
    assert len(told) > count / 10 or kind in {"jsonl", "csv"}  # there one row is bad, or none
    assert {path.name for path in tmp_path.rglob("*")} == {"data", *(file.name for file in files)}
    assert hashlib.sha256(b"".join(file.path.read_bytes() for file in files)).digest() == before


MIB = 1 << 20


def bombs():
    yield gzip.compress(b'{"text": "' + b"x" * (400 * MIB) + b'"}\n', 9)
    yield gzip.compress(b"[" + b" " * (400 * MIB), 9)
    yield gzip.compress(b"a,b\n" + b"x" * (400 * MIB), 9)
    sink = io.BytesIO()
    text = pyarrow.array(["x" * (40 * MIB)] * 10)
    pyarrow.parquet.write_table(pyarrow.table({"text": text}), sink, compression="zstd", use_dictionary=False)
    yield sink.getvalue()
    sink = io.BytesIO()
    same = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100_000), pyarrow.array(["y" * MIB]))
    pyarrow.parquet.write_table(pyarrow.table({"text": same}), sink, compression="zstd")
    yield sink.getvalue()


def test_what_unpacks_without_end_is_told(tmp_path):
    files = put(tmp_path / "data", bombs())
    assert sum(file.size for file in files) < 10 * MIB
    found = outcomes(files, most=400 * MIB, room=50 * MIB)
    for each in found:
        assert each in range(11) or "bytes of memory" in str(each) or "memory for" in str(each), each
    assert sum(isinstance(each, str) for each in found) >= 4


def test_the_rows_that_are_kept_are_bounded(tmp_path):
    files = put(tmp_path / "data", [gzip.compress(b'{"text": "' + b"x" * 1000 + b'"}\n') * 1000])
    with pytest.raises(DataInvalid, match=r"the rows have more than the 100,000 bytes that there is memory for"):
        rows.read(files, DatasetConfig(), rows.Dropped(), room=100_000)


def test_a_reader_that_dies_is_told(tmp_path):
    files = put(tmp_path / "data", [b'{"text": "t"}\n' * 100_000])
    reading = apart.read(files, DatasetConfig())
    _, read = next(reading)
    assert next(read) == {"text": "t"}  # it waits now for who takes the next ones
    (child,) = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    os.kill(int(child), signal.SIGSEGV)
    with pytest.raises(DataInvalid) as raised:
        list(read)
    assert str(raised.value) == (
        "tuning.input.urls[0] (000): reading it ends the process that reads (signal SIGSEGV);"
        " write the file anew, with another program"
    )


def test_nothing_lives_on(tmp_path):
    files = put(tmp_path / "data", [b'{"text": "t"}\n' * 100_000])
    reading = apart.read(files, DatasetConfig())
    _, read = next(reading)
    assert next(read) == {"text": "t"}
    reading.close()
    with pytest.raises(ValueError, match="closed file"):
        list(read)


def test_the_reader_finds_libraries_where_an_image_has_them(tmp_path):
    """Beside no interpreter: an image's are in a folder that PYTHONPATH names."""
    (tmp_path / "rows.jsonl").write_text('{"text": "t"}\n')
    code = (
        "from pathlib import Path; from tuning.data import apart; from tuning.data.fetch import File;"
        "from tuning.training_config import DatasetConfig;"
        f"path = Path({str(tmp_path / 'rows.jsonl')!r});"
        "file = File('f', path.name, path, path.stat().st_size, '');"
        "print([list(read) for _, read in apart.read([file], DatasetConfig())])"
    )
    libraries = [str(Path(__file__).parents[3]), *(path for path in sys.path if path.endswith("site-packages"))]
    venv.create(tmp_path / "bare")
    done = subprocess.run(
        [tmp_path / "bare/bin/python", "-c", code],
        env={"PYTHONPATH": os.pathsep.join(libraries)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "[[{'text': 't'}]]\n", done.stderr
