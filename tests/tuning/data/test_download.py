"""Files behind addresses come whole, or it is said why not, whatever servers and disks do."""

import hashlib
import time

import pytest

from tests.tuning import servers
from tests.tuning.data.test_fetch import BIG, LOOPBACK, parquet
from tuning.data import fetch
from tuning.data.remote import Remote
from tuning.errors import DataInvalid, DataUnreachable, NodeTrouble

EAGER = fetch.Pace(pause=0.05)


@pytest.fixture
def download(tmp_path):
    def go(*urls, policy=LOOPBACK, pace=EAGER, **options):
        with Remote(policy) as opened:
            return fetch.download(fetch.sources(urls), tmp_path / "data", opened, pace=pace, **options)

    return go


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
