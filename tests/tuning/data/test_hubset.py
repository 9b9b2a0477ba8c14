"""A data set's page as an address: its files at one commit, and where the token goes."""

import json
import re
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from artifacts.addresses import Policy
from tests.tuning import conftest, servers
from tuning.data import fetch, heads, hubset, inputs
from tuning.data.remote import Remote, Source
from tuning.errors import ConfigInvalid, DataInvalid, DataNotFound, DataRefused, DataTooLarge, DataUnreachable
from tuning.places import Places
from tuning.training_config import DatasetConfig

COMMIT, OLD, PARQUET = "a" * 40, "b" * 40, "c" * 40
ROWS = b'{"text": "t"}\n'
README = b"""---
license: mit
configs:
- config_name: small
  default: true
  data_files:
  - {split: train, path: "small/*.jsonl"}
  - {split: extra, path: ["other/1.jsonl", "other/2.jsonl"]}
- config_name: large
  data_files: "large/**"
---
# words
"""


class Hub(servers.Server):
    """Data sets by id, revision and path; large files are on another host, as with the original."""

    def __init__(self, elsewhere):
        super().__init__()
        self.elsewhere = elsewhere
        self.sets = {}
        self.token = ""

    def put(self, name, paths, *, revision="main", commit=COMMIT, readme=None):
        files = dict.fromkeys(paths, ROWS) | ({"README.md": readme} if readme else {})
        self.sets.setdefault(name, {}).update({revision: (commit, files), commit: (commit, files)})

    def answer(self, request):
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            self.reply(request, 401, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        parts, query = urlsplit(request.path), parse_qs(urlsplit(request.path).query)
        api = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/(revision|tree)/([^/]+)", parts.path)
        file = re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", parts.path)
        name, revision = (api[1], unquote(api[3])) if api else (file[1], unquote(file[2]))
        commit, files = self.sets.get(name, {}).get(revision, ("", None))
        if files is None:
            code = "RevisionNotFound" if name in self.sets else "RepoNotFound"
            self.reply(request, 404 if name in self.sets else 401, b"{}", {"X-Error-Code": code})
        elif file:
            self.file(request, files.get(unquote(file[3])))
        elif api[2] == "revision":
            self.reply(request, 200, json.dumps({"id": name, "sha": commit}).encode())
        else:
            self.page(request, files, int(query.get("cursor", ["0"])[0]))

    def page(self, request, files, start):
        entries = [{"type": "file", "path": path, "size": len(content)} for path, content in sorted(files.items())]
        entries.insert(0, {"type": "directory", "path": "data", "size": 0})
        following = f'<{self.url}{urlsplit(request.path).path}?recursive=true&cursor={start + 2}>; rel="next"'
        more = {"Link": following} if start + 2 < len(entries) else {}
        self.reply(request, 200, json.dumps(entries[start : start + 2]).encode(), more)

    def file(self, request, content):
        if content and content.startswith(b"---"):
            self.reply(request, 200, content)
        elif content is not None:
            self.reply(request, 302, b"", {"Location": f"{self.elsewhere.url}/large.jsonl"})
        else:
            self.reply(request, 404, b"", {"X-Error-Code": "EntryNotFound"})


@pytest.fixture
def hub(files, monkeypatch):
    files.files["/large.jsonl"] = ROWS
    server = Hub(files)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.close()


def resolved(address, *, limit=1 << 30, pinned=""):
    source = Source("tuning.input.urls[0]", address)
    with Remote(Policy()) as opened:
        asked = hubset.asked(source, opened.hub)
        return hubset.files(source, asked, opened, limit=limit, pinned=pinned)


def paths(address, **options):
    return [unquote(source.url.split("/resolve/")[1]) for source in resolved(address, **options).sources]


PAGE = "https://huggingface.co/datasets/org/name"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (PAGE, ("org/name", "main", "", "", "")),
        (f"{PAGE}/", ("org/name", "main", "", "", "")),
        (f"{PAGE}?config=c&split=s&revision=r", ("org/name", "r", "", "c", "s")),
        (f"{PAGE}/tree/refs%2Fpr%2F1", ("org/name", "refs/pr/1", "", "", "")),
        (f"{PAGE}/tree/main/a%20b/c?split=s", ("org/name", "main", "a b/c", "", "s")),
        ("https://huggingface.co/datasets/squad", ("squad", "main", "", "", "")),
        ("https://hf.co/datasets/org/name", ("org/name", "main", "", "", "")),
        ("http://127.0.0.1:5/datasets/org/name", ("org/name", "main", "", "", "")),
        (f"{PAGE}/resolve/main/a.parquet", None),
        (f"{PAGE}/blob/main/a.parquet", None),
        ("https://huggingface.co/org/name", None),
        ("https://example.org/datasets/org/name", None),
        ("https://[", None),
    ],
)
def test_which_addresses_are_data_sets(address, found):
    assert hubset.asked(Source("f", address), "http://127.0.0.1:5") == (found and hubset.Asked(*found))


@pytest.mark.parametrize("query", ["?download=true", "?revision=a/tree/b&x=", "/tree/main?revision=other"])
def test_what_means_nothing_in_an_address_is_refused(query):
    with pytest.raises(ConfigInvalid, match=r"means nothing here|two revisions"):
        hubset.asked(Source("f", PAGE + query), "https://huggingface.co")


def test_all_files_of_the_split_at_one_commit(hub):
    hub.put(
        "org/name", [f"data/train-{n:05}-of-00003.parquet" for n in range(3)] + ["data/test-00000-of-00001.parquet"]
    )
    found = resolved(PAGE)
    assert [source.url for source in found.sources] == [
        f"{hub.url}/datasets/org/name/resolve/{COMMIT}/data/train-{n:05}-of-00003.parquet" for n in range(3)
    ]
    assert found.said == f"3 files of data set org/name, split train at commit {COMMIT}, 42 bytes"
    assert paths(f"{PAGE}?split=test") == [f"{COMMIT}/data/test-00000-of-00001.parquet"]
    assert len(paths(f"{PAGE}?split=all")) == len(paths(f"{PAGE}?split=train%2Btest")) == 4


def test_a_readme_names_configs(hub):
    listed = ["small/a.jsonl", "other/1.jsonl", "other/2.jsonl", "large/x/y.jsonl", "stray.jsonl"]
    hub.put("org/name", listed, readme=README)
    assert paths(PAGE) == [f"{COMMIT}/small/a.jsonl"]
    assert paths(f"{PAGE}?split=extra") == [f"{COMMIT}/other/1.jsonl", f"{COMMIT}/other/2.jsonl"]
    assert paths(f"{PAGE}?config=large") == [f"{COMMIT}/large/x/y.jsonl"]
    assert paths(f"{PAGE}/tree/main/other") == [f"{COMMIT}/other/1.jsonl", f"{COMMIT}/other/2.jsonl"]
    with pytest.raises(ConfigInvalid, match="has the configs small, large; name one by"):
        resolved(f"{PAGE}?config=odd")


def test_revisions(hub):
    hub.put("org/name", ["new.csv"])
    hub.put("org/name", ["old.csv"], revision="v1", commit=OLD)
    assert paths(f"{PAGE}?revision=v1") == paths(f"{PAGE}/tree/v1") == paths(PAGE, pinned=OLD) == [f"{OLD}/old.csv"]
    with pytest.raises(DataNotFound, match="has data set org/name, but not revision v2"):
        resolved(f"{PAGE}?revision=v2")


def test_what_is_not_read_here_is_taken_from_the_hubs_conversion(hub):
    hub.put("org/name", ["name.py", "sounds.tar"])
    with pytest.raises(DataInvalid, match="the hub has not converted it; archives of pictures"):
        resolved(PAGE)
    converted = ["default/train/0000.parquet", "default/train/0001.parquet", "default/partial-test/0000.parquet"]
    hub.put("org/name", converted, revision=hubset.CONVERTED, commit=PARQUET)
    assert paths(PAGE) == [f"{PARQUET}/default/train/0000.parquet", f"{PARQUET}/default/train/0001.parquet"]
    assert paths(f"{PAGE}?split=test") == [f"{PARQUET}/default/partial-test/0000.parquet"]


def test_what_was_found_once_is_found_again_whatever_came_since(hub):
    hub.put("org/name", ["a.csv"])
    first = resolved(PAGE)
    assert (first.url, first.commit) == (PAGE, COMMIT)
    hub.put("org/name", ["a.csv", "b.csv"], commit=OLD)
    assert resolved(PAGE).commit == OLD
    assert resolved(PAGE, pinned=COMMIT) == first
    del hub.sets["org/name"][COMMIT]
    with pytest.raises(DataNotFound, match=f"no more at {COMMIT}, where it was .*name another by .revision="):
        resolved(PAGE, pinned=COMMIT)


def test_a_conversion_is_found_again_as_one(hub):
    hub.put("org/name", ["name.py"])
    hub.put("org/name", ["default/partial-test/0000.parquet"], revision=hubset.CONVERTED, commit=PARQUET)
    first = resolved(f"{PAGE}?config=default&split=test")
    assert first.commit == f"{hubset.CONVERTED}@{PARQUET}"
    hub.put("org/name", ["default/test/0000.parquet"], revision=hubset.CONVERTED, commit=OLD)
    assert resolved(f"{PAGE}?config=default&split=test").commit == f"{hubset.CONVERTED}@{OLD}"
    assert resolved(f"{PAGE}?config=default&split=test", pinned=first.commit) == first


@pytest.mark.parametrize("only", [None, "old.jsonl"])
def test_a_run_and_a_check_keep_to_the_commits_that_were_found_before(hub, files, tmp_path, only):
    hub.put("org/name", ["old.jsonl"], commit=OLD)
    hub.put("org/name", ["new.jsonl"])
    files.files["/old.jsonl"] = ROWS
    urls = [PAGE, f"{files.url}/old.jsonl"]
    config = conftest.tuning_config("r/i:t", urls, training={"dataset": {"dataset_path": only}})
    found = {**config.input.model_dump(), "commits": ["", OLD]}
    pinned = type(config).model_validate({**config.model_dump(), "input": found})
    assert [pinned.input.commit(url) for url in urls] == [OLD, ""], "in alphabetical order"
    fetched = inputs.files(pinned, Places(scratch=tmp_path), lambda _share: None)
    assert [file.name for file in fetched] == ["old.jsonl", "old.jsonl"]
    seen = [look() for look in inputs.looks(pinned, Places(scratch=tmp_path), seconds=9).values()]
    assert inputs.commits(pinned, seen) == ("", OLD)


def test_files_have_no_commits(files, tmp_path):
    files.files["/more.jsonl"] = ROWS
    config = conftest.tuning_config("r/i:t", [f"{files.url}/more.jsonl"])
    (look,) = inputs.looks(config, Places(scratch=tmp_path), seconds=9).values()
    assert inputs.commits(config, [look()]) == ()


@pytest.mark.parametrize(
    ("listed", "query", "error", "words"),
    [
        (["dev.csv", "test.csv"], "", ConfigInvalid, r"has the splits validation, test; name one by \?split="),
        (["train.csv"], "?split=odd", ConfigInvalid, "has the splits train; .* odd is none of them"),
        (["train.csv"], "?config=odd", ConfigInvalid, "has no config 'odd'"),
        (
            ["a.tar"],
            "?revision=" + COMMIT,
            DataInvalid,
            "no parquet, JSON, JSON lines, CSV or Arrow files",
        ),
        (["a.csv"], "/nothing", DataNotFound, "is not on the hub, or is private"),
    ],
)
def test_what_cannot_be_chosen_is_told(hub, listed, query, error, words):
    hub.put("org/name", listed)
    address = PAGE + query if query.startswith("?") or not query else "https://huggingface.co/datasets/org/other"
    with pytest.raises(error, match=words):
        resolved(address)


def test_sizes_are_bounded_before_anything_is_fetched(hub):
    hub.put("org/name", ["a.csv", "b.csv"])
    with pytest.raises(DataTooLarge, match="has 28 bytes, more than 20"):
        resolved(PAGE, limit=20)


def test_the_token_goes_to_the_hub_and_nowhere_else(hub, files, monkeypatch, tmp_path):
    hub.put("org/name", ["a.jsonl"])
    hub.token = "hf_secret"
    with pytest.raises(DataNotFound, match="is gated"):
        resolved(PAGE)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = resolved(PAGE)
    with Remote(Policy(["127.0.0.0/8"])) as opened:
        (file,) = fetch.download(found.sources, tmp_path, opened)
    assert file.path.read_bytes() == ROWS
    assert [headers.get("Authorization") for _, _, headers in files.asked] == [None]


def test_nobody_elses_redirect_takes_the_token_to_the_hub(hub, files, monkeypatch, tmp_path):
    hub.put("org/name", ["a.jsonl"])
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    to = f"{hub.url}/datasets/org/name/resolve/main/a.jsonl"
    files.files["/lure"] = lambda request: files.reply(request, 302, b"", {"Location": to})
    with Remote(Policy(["127.0.0.0/8"])) as opened:
        heads.of_source(Source("f", f"{files.url}/lure"), opened, DatasetConfig())
    assert [headers.get("Authorization") for _, _, headers in hub.asked] == [None]


def test_a_file_of_the_hub_gets_the_token_too(hub, monkeypatch):
    hub.put("org/name", ["a.jsonl"])
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with Remote(Policy(["127.0.0.0/8"])) as opened:
        assert (
            heads.of_source(
                Source("f", f"{hub.url}/datasets/org/name/resolve/main/a.jsonl"), opened, DatasetConfig()
            ).words
            == "json"
        )


def test_where_the_hub_sends_to_is_judged(hub):
    hub.put("org/name", ["a.jsonl"])
    (source,) = resolved(PAGE).sources  # the operator has said where the hub is
    with Remote(Policy()) as opened, pytest.raises(DataRefused, match="private address"):
        heads.of_source(source, opened, DatasetConfig())


def test_an_offline_cluster_asks_nobody(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataRefused, match="the hub is not asked here"):
        resolved(PAGE)
    assert not hub.asked


@pytest.mark.parametrize("said", [b"no JSON", b"[]", b'{"id": "x"}', b'{"id": "x", "sha": "../.."}', b"[" * 100_000])
def test_a_hub_that_talks_nonsense_may_do_better_later(files, monkeypatch, said):
    monkeypatch.setenv("HF_ENDPOINT", files.url)
    files.files[f"/api/datasets/org/name/revision/{quote('main')}"] = said
    with pytest.raises(DataUnreachable, match=r"tuning\.input\.urls\[0\] .*the hub"):
        resolved(PAGE)


def test_a_run_has_all_files_and_a_check_looks_into_the_first(hub, files, tmp_path):
    hub.put("org/name", ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"])
    files.files["/more.jsonl"] = ROWS
    config = conftest.tuning_config("r/i:t", [PAGE, f"{files.url}/more.jsonl"])
    places = Places(scratch=tmp_path)
    found = inputs.files(config, places, lambda _share: None)
    assert [file.name for file in found] == ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "more.jsonl"]
    looks = inputs.looks(config, places, seconds=9)
    assert list(looks) == [f"tuning.input.urls[0] ({PAGE})", f"tuning.input.urls[1] ({files.url}/more.jsonl)"]
    seen = looks[f"tuning.input.urls[0] ({PAGE})"]()
    assert seen.words == f"2 files of data set org/name, split train at commit {COMMIT}, 28 bytes: json"
    assert seen.found[0].example == "t"


def test_one_file_of_a_data_set_can_be_picked(hub, tmp_path):
    hub.put("org/name", ["a.jsonl", "b.jsonl"])
    config = conftest.tuning_config("r/i:t", [PAGE], training={"dataset": {"dataset_path": "b.jsonl"}})
    (file,) = inputs.files(config, Places(scratch=tmp_path), lambda _share: None)
    assert file.name == "b.jsonl"
    (look,) = inputs.looks(config, Places(scratch=tmp_path), seconds=9).values()
    assert look().found[0].where == "b.jsonl row 1"


def test_a_hub_that_recovers_is_forgiven(hub, files, monkeypatch, tmp_path):
    hub.put("org/name", ["a.jsonl"])
    away = iter([503, 429])
    answer = hub.answer
    hub.answer = lambda request: hub.reply(request, status) if (status := next(away, None)) else answer(request)
    config = conftest.tuning_config("r/i:t", [PAGE])
    assert len(inputs.files(config, Places(scratch=tmp_path), lambda _share: None)) == 1
