"""huggingface_hub and requests against the hub, on content that takes no time to make."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import requests
from huggingface_hub import errors

from tests.cluster.simulators import web
from tests.cluster.simulators.hub import repositories, routes

MODEL = "microsoft/Phi-3-mini-4k-instruct"
DATASET = "philschmid/dolly-15k-oai-style"
PARQUET = "data/train-00000-of-00001-54e3756291ca09c6.parquet"
PINNED = "0a67737cc96d2554230f90338b163bc6380a2a85"
WEIGHTS = os.urandom(300_000)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    folder = tmp_path_factory.mktemp("content")
    model, dataset = folder / "models" / MODEL, folder / "datasets" / DATASET
    (model / "onnx").mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "phi3"}')
    (model / "model.safetensors").write_bytes(WEIGHTS)
    (model / "onnx/model.onnx.json").write_text("{}")
    (dataset / "data").mkdir(parents=True)
    (dataset / "README.md").write_text("a card")
    (dataset / PARQUET).write_bytes(b"PAR1 and so on")
    return folder


@pytest.fixture
def hub(content, tls):
    """Starts hubs; each is its address."""
    known = repositories.load(content)
    with contextlib.ExitStack() as stack:

        def start(*, cdn=False, **options):
            def handle(request):
                # Another name of the same server is another host to a client, as the original's is.
                return routes.Hub(known, **options, cdn=f"localhost:{server.port}" if cdn else "").handle(request)

            serving = web.serving(("127.0.0.1", 0), tls.cert, tls.key, handle=handle, log=lambda *_: None)
            server = stack.enter_context(serving)
            return f"https://127.0.0.1:{server.port}"

        yield start


@pytest.fixture
def client(tls, tmp_path):
    """huggingface_hub, with the cluster's authority and a cache of its own."""
    huggingface_hub.set_client_factory(lambda: httpx2.Client(verify=tls.context, timeout=10))
    yield lambda **more: {"cache_dir": tmp_path / "cache", **more}
    huggingface_hub.close_session()
    huggingface_hub.set_client_factory(httpx2.Client)


def test_a_pinned_revision_is_the_commit_that_clients_see(hub, client):
    api = huggingface_hub.HfApi(endpoint=hub())
    assert api.model_info(MODEL, revision=PINNED).sha == PINNED
    own = api.model_info(MODEL)
    assert (own.id, own.gated, len(own.sha)) == (MODEL, False, 40)
    assert [file.rfilename for file in own.siblings] == ["config.json", "model.safetensors", "onnx/model.onnx.json"]
    assert api.list_repo_refs(MODEL).branches[0].target_commit == own.sha


@pytest.mark.parametrize("cdn", [False, True], ids=["large files here", "large files on another host"])
def test_a_snapshot_comes_whole(hub, client, cdn):
    folder = Path(huggingface_hub.snapshot_download(MODEL, revision=PINNED, **client(endpoint=hub(cdn=cdn))))
    assert folder.name == PINNED
    weights = folder / "model.safetensors"
    assert weights.read_bytes() == WEIGHTS
    assert weights.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()
    assert (folder / "onnx/model.onnx.json").exists()


@pytest.mark.parametrize("cdn", [False, True], ids=["large files here", "large files on another host"])
def test_a_cut_download_goes_on(hub, client, cdn, tmp_path):
    blobs = tmp_path / "cache" / "models--microsoft--Phi-3-mini-4k-instruct" / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / f"{hashlib.sha256(WEIGHTS).hexdigest()}.incomplete"
    partial.write_bytes(WEIGHTS[:1000])
    path = huggingface_hub.hf_hub_download(MODEL, "model.safetensors", **client(endpoint=hub(cdn=cdn)))
    assert Path(path).read_bytes() == WEIGHTS


def test_a_listing_has_folders_and_files(hub, client):
    api = huggingface_hub.HfApi(endpoint=hub())
    assert [entry.path for entry in api.list_repo_tree(MODEL)] == ["config.json", "model.safetensors", "onnx"]
    deep = [entry.path for entry in api.list_repo_tree(MODEL, recursive=True)]
    assert deep == ["config.json", "model.safetensors", "onnx", "onnx/model.onnx.json"]
    assert [e.path for e in api.list_repo_tree(DATASET, "data", repo_type="dataset", expand=True)] == [PARQUET]
    weights, folder = api.get_paths_info(MODEL, ["model.safetensors", "onnx", "no such"])
    assert (weights.size, weights.lfs.sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert isinstance(folder, huggingface_hub.hf_api.RepoFolder)


def test_what_is_not_there_says_what_is_missing(hub, client):
    api = huggingface_hub.HfApi(endpoint=hub())
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("microsoft/Phi-9")
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info(MODEL, revision="v9")
    with pytest.raises(errors.RemoteEntryNotFoundError):
        huggingface_hub.hf_hub_download(MODEL, "tokenizer.model", **client(endpoint=api.endpoint))
    with pytest.raises(errors.RemoteEntryNotFoundError):
        list(api.list_repo_tree(MODEL, "no/such/folder"))


def test_a_gated_repository_wants_a_known_token(hub, client):
    ask = client(endpoint=hub(gated=frozenset({MODEL, "meta-llama/any"}), tokens=frozenset({"hf_good"})))
    for token in (False, "hf_other"):
        with pytest.raises(errors.GatedRepoError):
            huggingface_hub.hf_hub_download(MODEL, "config.json", token=token, **ask)
    with pytest.raises(errors.GatedRepoError):
        huggingface_hub.hf_hub_download("meta-llama/any", "config.json", token=False, **ask)
    assert huggingface_hub.hf_hub_download(MODEL, "config.json", token="hf_good", **ask)
    assert huggingface_hub.HfApi(endpoint=ask["endpoint"]).model_info(MODEL).gated == "manual"


@pytest.mark.parametrize("cdn", [False, True], ids=["large files here", "large files on another host"])
def test_the_seeds_data_set_is_under_its_own_address(hub, tls, cdn):
    url = f"{hub(cdn=cdn)}/datasets/{DATASET}/resolve/main/{PARQUET}?download=true"
    answer = requests.get(url, verify=tls.ca, timeout=10)
    assert (answer.status_code, answer.content) == (200, b"PAR1 and so on")
    head = requests.head(url, verify=tls.ca, timeout=10, allow_redirects=False)
    assert head.headers["X-Linked-Size"] == "14"
    assert head.headers["X-Linked-ETag"] == f'"{hashlib.sha256(b"PAR1 and so on").hexdigest()}"'
    assert head.status_code == (302 if cdn else 200)


def test_other_data_addresses_are_a_404_or_a_login_page(hub, tls):
    address = hub()
    for path in ("datasets/nobody/nothing/resolve/main/a.parquet", f"datasets/{DATASET}/resolve/main/b.csv", "x"):
        assert requests.get(f"{address}/{path}", verify=tls.ca, timeout=10).status_code == 404
    page = requests.get(
        f"{address}/datasets/kaito-hera/login-page/resolve/main/data.parquet", verify=tls.ca, timeout=10
    )
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert requests.get(f"{address}/healthz", verify=tls.ca, timeout=10).status_code == 200


def test_a_token_does_not_belong_on_the_other_host(hub, tls):
    url = f"{hub(cdn=True)}/{MODEL}/resolve/main/model.safetensors"
    where = requests.head(url, verify=tls.ca, timeout=10).headers["Location"]
    answer = requests.get(where, verify=tls.ca, timeout=10, headers={"Authorization": "Bearer hf_secret"})
    assert answer.status_code == 400
    assert requests.get(where.partition("?")[0], verify=tls.ca, timeout=10).status_code == 403


def test_errors_are_worded_as_the_original_words_them(hub, tls):
    answer = requests.get(f"{hub()}/{MODEL}/resolve/{PINNED}/nothing.json", verify=tls.ca, timeout=10)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert (answer.headers["X-Error-Message"], answer.headers["X-Repo-Commit"]) == ("Entry not found", PINNED)
    assert json.loads(answer.content) == {"error": "Entry not found"}
