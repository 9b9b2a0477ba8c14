"""Who is asked for a file, and what its first bytes say."""

import base64
import io
import random

import pyarrow
import pyarrow.parquet
import pytest

from artifacts.addresses import Policy
from tests.tuning import servers
from tuning.data import fetch, heads
from tuning.data.remote import Remote
from tuning.errors import (
    ConfigInvalid,
    DataInvalid,
    DataNotFound,
    DataRefused,
    DataUnreachable,
)
from tuning.training_config import DatasetConfig

LOOPBACK = Policy(["127.0.0.0/8"])
BIG = b"a,b\n" + random.Random(0).randbytes(3 << 20).hex().encode()


def parquet():
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"] * 10}), sink)
    return sink.getvalue()


def peek(url, policy=LOOPBACK):
    (source,) = fetch.sources((url,))
    with Remote(policy) as opened:
        return heads.of_source(source, opened, DatasetConfig()).words.partition(";")[0]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (parquet(), "parquet"),
        (b'{"text": "x"}\n', "json"),
        (b' \n[{"text": "x"}]', "json"),
        (b'\xef\xbb\xbf{"text": "x"}', "json"),
        (b"prompt,completion\nx,y\n", "csv"),
        ("a;ä\n".encode() * 9000, "csv"),
        (b"a\tb\n1\t2\n", "csv"),
    ],
)
def test_formats_are_told_by_their_first_bytes(files, content, kind):
    files.files["/a.txt"] = content
    assert peek(f"{files.url}/a.txt?download=true") == kind


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"  \n", "the file is empty"),
        (b"<!DOCTYPE html><html><head><title>Sign in</title>", "a web page ('Sign in')"),
        (b"\n<html>", "a web page (without a title)"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "is packed, and cannot be unpacked"),
        (b"PK\x03\x04aaaa", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n", "starts with b'\\x89PNG"),
        (b"just words", "starts with b'just words'"),
        (b"a,b\n\xff\xfe,\x00\n" * 9, "starts with b'a,b"),
    ],
)
def test_what_is_no_data_is_named(files, content, words):
    files.files["/a.parquet"] = content
    with pytest.raises(DataInvalid) as raised:
        peek(f"{files.url}/a.parquet?sig=secret")
    assert str(raised.value).startswith(f"tuning.input.urls[0] ({files.url}/a.parquet): ")
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_peek_reads_the_head_only(files):
    files.files["/big.csv"] = BIG
    assert peek(f"{files.url}/big.csv") == "csv"
    assert files.asked[-1][2]["Range"] == f"bytes=0-{heads.BYTES - 1}"


def test_a_head_that_comes_in_pieces_is_read_whole(files):
    files.files["/a.csv"] = lambda request: servers.in_pieces(request, b"pro", b"mpt,completion\nx,y\n")
    assert peek(f"{files.url}/a.csv") == "csv"


@pytest.mark.parametrize(
    "url",
    [
        "https://me:SECRET@storage.example:abc/x",
        "https://storage.example:abc/x?sig=SECRET",
        "https://user:pa[ss@storage.example/x?sig=SECRET",
        "https://user:[SECRET]@storage.example/x",
        "https://me:SECRET/2@storage.example/x",
        "https://me:SECRET\u2100@storage.example/x",
        "https://me:SECRET@exa mple.com/x?sig=SECRET",
        "https://me:SECRET@.example.com/x?sig=SECRET",
    ],
)
def test_what_is_no_url_is_refused_without_its_secrets(url):
    with pytest.raises(DataRefused) as raised:
        peek(url, Policy(private=True))
    assert str(raised.value).startswith("tuning.input.urls[0]")
    assert "this is no URL" in str(raised.value)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, DataNotFound, "make the file public or renew a signed URL"),
        (403, DataNotFound, "make the file public"),
        (404, DataNotFound, "there is no such file"),
        (410, DataNotFound, "there is no such file"),
        (400, DataNotFound, "which is no file"),
        (204, DataNotFound, "which is no file"),
        (429, DataUnreachable, "429"),
        (500, DataUnreachable, "500"),
        (503, DataUnreachable, "503"),
    ],
)
def test_bad_statuses(files, status, error, words):
    files.files["/a"] = lambda request: files.reply(request, status)
    with pytest.raises(error) as raised:
        peek(f"{files.url}/a")
    assert type(raised.value) is error
    assert words in str(raised.value)
    assert "tuning.input.urls[0]" in str(raised.value)


def redirect(files, target):
    return lambda request: files.reply(request, 302, b"", {"Location": target})


def test_redirects_are_followed(files):
    files.files["/a"] = redirect(files, "/b?x=1")
    files.files["/b"] = b'{"text": 1}'
    assert peek(f"{files.url}/a") == "json"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("http://169.254.169.254/latest/meta-data", "never allowed"),
        ("http://10.0.0.1/a", "10.0.0.1 is a private address"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("http://metadata.google.internal/a", "never allowed"),
    ],
)
def test_every_redirect_is_judged(files, target, words):
    files.files["/a"] = redirect(files, target)
    with pytest.raises(DataRefused) as raised:
        peek(f"{files.url}/a")
    assert words in str(raised.value)


def test_behind_a_proxy_redirects_are_judged_too(files, monkeypatch):
    monkeypatch.setenv("http_proxy", files.url)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    files.files["/a"] = redirect(files, "http://169.254.169.254/latest")
    with pytest.raises(DataRefused, match="never allowed"):
        peek("http://data.example/a", Policy())
    assert [path for _, path, _ in files.asked] == ["http://data.example/a"]


def test_endless_redirects_end(files):
    files.files["/a"] = redirect(files, "/a")
    with pytest.raises(DataNotFound, match="more than 5 redirects"):
        peek(f"{files.url}/a")


@pytest.mark.parametrize(("written", "sent"), [("mine", "mine"), ("m%C3%A9%C5%82%3A", "méł:")])
def test_a_password_in_the_url_goes_to_its_host_only(files, written, sent):
    other = servers.Files()
    other.files["/b"] = b'{"text": 1}'
    files.files["/a"] = redirect(files, f"{other.url}/b")
    peek(f"http://me:{written}@{files.host}/a")
    assert files.asked[0][2]["Authorization"] == "Basic " + base64.b64encode(f"me:{sent}".encode()).decode()
    assert "Authorization" not in other.asked[0][2]
    other.close()


def test_private_hosts_are_refused_before_anything_is_sent(files):
    with pytest.raises(DataRefused, match=r"tuning.input.urls\[0\].* private address"):
        peek(f"{files.url}/a", Policy())
    assert files.asked == []


def test_nobody_there():
    with pytest.raises(DataUnreachable, match="does not answer"):
        peek(f"http://127.0.0.1:{servers.free_port()}/a")


def test_a_certificate_that_nobody_trusts(certificate):
    server = servers.Files(tls=certificate)
    with pytest.raises(DataRefused, match="a certificate that is not trusted"):
        peek(f"https://localhost:{server.port}/a", Policy(["127.0.0.0/8", "::1/128"]))
    server.close()


def test_one_of_several_files_can_be_picked():
    found = fetch.sources(("https://e.com/a.json", "https://e.com/x/b.json?download=true"))
    assert [source.field for source in fetch.picked(found, "/data/b.json")] == ["tuning.input.urls[1]"]
    with pytest.raises(ConfigInvalid, match=r"DatasetConfig.dataset_path: 'c.json' .*a.json, b.json"):
        fetch.picked(found, "c.json")
