import base64
import hashlib
import io
import random
import time

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
    NodeTrouble,
)
from tuning.training_config import DatasetConfig

LOOPBACK = Policy(["127.0.0.0/8"])
EAGER = fetch.Pace(pause=0.05)
BIG = b"a,b\n" + random.Random(0).randbytes(3 << 20).hex().encode()


def parquet():
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"] * 10}), sink)
    return sink.getvalue()


def peek(url, policy=LOOPBACK):
    (source,) = fetch.sources((url,))
    with Remote(policy) as opened:
        return heads.of_source(source, opened, DatasetConfig()).words.partition(";")[0]


@pytest.fixture
def download(tmp_path):
    def go(*urls, policy=LOOPBACK, pace=EAGER, **options):
        with Remote(policy) as opened:
            return fetch.download(fetch.sources(urls), tmp_path / "data", opened, pace=pace, **options)

    return go


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


def test_a_download_is_whole_and_has_its_checksum(files, download):
    files.files["/x/big.csv"] = BIG
    shares = []
    (file,) = download(f"{files.url}/x/big.csv?download=true", on_share=shares.append)
    assert file.path.read_bytes() == BIG
    assert (file.field, file.name, file.size) == ("tuning.input.urls[0]", "big.csv", len(BIG))
    assert file.sha256 == hashlib.sha256(BIG).hexdigest()
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_equal_names_do_not_overwrite_each_other(files, download):
    files.files["/1/a.json"], files.files["/2/a.json"] = b'{"text": 1}', b'{"text": 2}'
    one, two = download(f"{files.url}/1/a.json", f"{files.url}/2/a.json")
    assert one.path.read_bytes() != two.path.read_bytes()


@pytest.mark.parametrize("path", ["/..%2F..%2Fetc%2Fpasswd", "/%2e%2e", "/", "/a%00b", "/" + "n" * 300])
def test_names_stay_in_the_folder(files, download, tmp_path, path):
    files.answer = lambda request: files.reply(request, 200, b'{"text": 1}')
    (file,) = download(files.url + path)
    assert file.path.parent == tmp_path / "data"
    assert len(file.path.name) <= 104


@pytest.mark.parametrize("etag", [True, False])
def test_a_cut_download_is_finished(files, download, etag):
    cuts = iter([1 << 20, 2 << 20, 1 << 20])

    def cut(request):
        files.send(request, BIG, cut_after=next(cuts, None), etag=etag)

    files.files["/big.csv"] = cut
    (file,) = download(f"{files.url}/big.csv")
    assert file.path.read_bytes() == BIG
    ranges = [headers.get("Range") for _, _, headers in files.asked]
    assert len(ranges) == 4
    assert (ranges[1] is not None) == etag  # without a version, a continuation could be of another file


def test_a_file_that_changes_midway_is_fetched_anew(files, download):
    other = b"c,d\n" + BIG[4:][::-1]
    versions = iter([(BIG, 1 << 20)])

    def change(request):
        content, cut_after = next(versions, (other, None))
        files.send(request, content, cut_after=cut_after)

    files.files["/big.csv"] = change
    (file,) = download(f"{files.url}/big.csv")
    assert file.path.read_bytes() == other
    assert file.sha256 == hashlib.sha256(other).hexdigest()


def test_a_server_that_ignores_ranges_is_asked_for_all_of_it(files, download):
    cuts = iter([1 << 20])

    def whole(request):
        del request.headers["Range"]
        files.send(request, BIG, cut_after=next(cuts, None))

    files.files["/big.csv"] = whole
    (file,) = download(f"{files.url}/big.csv")
    assert file.path.read_bytes() == BIG


def test_a_server_that_recovers_is_forgiven(files, download):
    statuses = iter([503, 429])

    def recover(request):
        if status := next(statuses, None):
            files.reply(request, status)
        else:
            files.send(request, BIG)

    files.files["/big.csv"] = recover
    (file,) = download(f"{files.url}/big.csv")
    assert file.size == len(BIG)


def test_a_dead_server_is_given_up(download):
    with pytest.raises(DataUnreachable):
        download(f"http://127.0.0.1:{servers.free_port()}/a", pace=fetch.Pace(patience=1.0))


def test_a_server_that_sends_hardly_anything_is_given_up(files, download):
    sent = []

    def trickle(request):
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        while len(sent) < 1000:
            sent.append(request.wfile.write(b","))
            time.sleep(0.02)

    files.files["/a.csv"] = trickle
    with pytest.raises(DataUnreachable, match=r"the server sends \d+ bytes in \d+ s; use a faster one"):
        download(f"{files.url}/a.csv", pace=fetch.Pace(patience=0.3, slowest=1000, pause=0.05))
    assert len(sent) < 500


def test_sizes_are_bounded(files, download):
    files.files["/big.csv"] = BIG
    with pytest.raises(DataInvalid, match="more than the 1,000,000 left"):
        download(f"{files.url}/big.csv", limit=1_000_000)


def test_sizes_are_bounded_together(files, download):
    files.files["/big.csv"] = BIG
    with pytest.raises(DataInvalid, match=r"urls\[1\]"):
        download(*[f"{files.url}/big.csv"] * 2, limit=len(BIG) + 1000)


def test_sizes_that_nobody_tells_are_bounded(files, download):
    files.files["/a.csv"] = lambda request: servers.in_pieces(request, *[b"a,b\n" * 0x4000] * 100)
    with pytest.raises(DataInvalid, match="larger than"):
        download(f"{files.url}/a.csv", limit=1 << 20)
    (file,) = download(f"{files.url}/a.csv")
    assert file.size == 100 * 0x10000


def test_a_disk_that_is_too_small_is_the_nodes_trouble(files, download):
    headers = {"Content-Length": str(1 << 60)}
    files.files["/a"] = lambda request: files.reply(request, 200, b"", headers)
    with pytest.raises(NodeTrouble, match=r"the file has 1,152,921,504,606,846,976 bytes, the disk at .* free"):
        download(f"{files.url}/a", limit=1 << 61)


def test_a_parquet_file_without_an_end(files, download):
    files.files["/a.parquet"] = parquet()[:-10]
    with pytest.raises(DataInvalid, match=r"urls\[0\].* has no end"):
        download(f"{files.url}/a.parquet")


def test_a_login_page_is_no_data(files, download):
    files.files["/a.parquet"] = b"<html><title>Login</title></html>"
    with pytest.raises(DataInvalid, match="a web page"):
        download(f"{files.url}/a.parquet")


def test_the_hubs_page_about_a_file_is_told_from_the_file(files, download):
    files.files["/acme/data/blob/main/a.parquet"] = b"<!doctype html><title>a.parquet</title>"
    with pytest.raises(DataInvalid, match=r"a web page.*; where its address has /blob/ write /resolve/"):
        download(f"{files.url}/acme/data/blob/main/a.parquet")


def test_one_of_several_files_can_be_picked():
    found = fetch.sources(("https://e.com/a.json", "https://e.com/x/b.json?download=true"))
    assert [source.field for source in fetch.picked(found, "/data/b.json")] == ["tuning.input.urls[1]"]
    with pytest.raises(ConfigInvalid, match=r"DatasetConfig.dataset_path: 'c.json' .*a.json, b.json"):
        fetch.picked(found, "c.json")
