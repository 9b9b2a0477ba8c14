"""A folder for models that several machines share: fetched once, by one at a time, and gone on with by another."""

import concurrent.futures
import errno
import hashlib
import threading

import pytest

from artifacts.weights import errors, shared
from artifacts.weights.config import Model

MODEL = Model(id="acme/tiny", revision="0" * 40)


class Source:
    """What fetches; where `gate` is closed it stays in the middle."""

    def __init__(self):
        self.times, self.inside, self.most = 0, 0, 0
        self.began, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.fails = None

    def __call__(self, place):
        self.times += 1
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            self.began.set()
            assert self.gate.wait(60)
            if self.fails:
                raise self.fails
            folder = place / "model" / "files"
            if not folder.exists():
                folder.mkdir(parents=True)
                (folder / "config.json").write_text("{}")
            return folder
        finally:
            self.inside -= 1


@pytest.fixture
def source():
    return Source()


def abandoned(tmp_path, source, by):
    """The cache as a pod leaves it that is killed while it fetches."""
    source.fails = errors.HubUnavailable("cut")
    with pytest.raises(errors.HubUnavailable):
        shared.fetch(MODEL, tmp_path, source, me=by)
    source.fails = None
    (turn,) = tmp_path.glob("*/turn-1")
    turn.touch()


def test_the_files_are_fetched_once(tmp_path, source):
    first = shared.fetch(MODEL, tmp_path, source, me="a")
    assert (first / "config.json").read_text() == "{}"
    assert shared.fetch(MODEL, tmp_path, source, me="b") == first
    assert source.times == 1
    other = MODEL.model_copy(update={"revision": "1" * 40})
    assert shared.fetch(other, tmp_path, source, me="a") != first


def test_of_several_one_fetches_and_the_others_wait(tmp_path, source):
    source.gate.clear()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = [pool.submit(shared.fetch, MODEL, tmp_path, source, me=name) for name in "abc"]
        assert source.began.wait(60)
        done = concurrent.futures.wait(asked, timeout=0.5).done
        source.gate.set()
        assert not done
        assert len({each.result(timeout=60) for each in asked}) == 1
    assert (source.times, source.most) == (1, 1)


def test_where_nobody_goes_on_the_next_one_does(tmp_path, source):
    abandoned(tmp_path, source, by="dead")
    assert shared.fetch(MODEL, tmp_path, source, me="b", left=0.5).is_dir()
    assert sorted(turn.name for turn in tmp_path.glob("*/turn-*")) == ["turn-1", "turn-2"]


def test_one_that_fails_or_comes_again_holds_nobody_up(tmp_path, source):
    source.fails = errors.HubUnavailable("not now")
    with pytest.raises(errors.HubUnavailable, match="not now"):
        shared.fetch(MODEL, tmp_path, source, me="a", left=3600)
    source.fails = None
    assert shared.fetch(MODEL, tmp_path, source, me="b", left=3600).is_dir()


def test_a_pod_need_not_wait_for_a_container_of_its_own(tmp_path, source):
    abandoned(tmp_path, source, by="a")
    assert shared.fetch(MODEL, tmp_path, source, me="a", left=3600).is_dir()


class Slow:
    """Writes half of a file, and the other half once it is told to."""

    def __init__(self, word):
        self.word, self.began, self.gate = word, threading.Event(), threading.Event()
        self.fails = None

    def __call__(self, place):
        folder = place / "hub" / "snapshot"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "model.safetensors").open("r+" if (folder / "model.safetensors").exists() else "w") as file:
            file.write(self.word * 2)
            file.flush()
            self.began.set()
            assert self.gate.wait(60)
            file.write(self.word * 2)
        if self.fails:
            raise self.fails
        return folder


@pytest.mark.parametrize("fails", [None, OSError("its folder is gone")])
@pytest.mark.parametrize("first_ends", ["first", "second"])
def test_one_that_wakes_up_writes_nothing_that_the_next_one_keeps(tmp_path, fails, first_ends):
    sleeper, next_one = Slow("a"), Slow("b")
    sleeper.fails = fails
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(shared.fetch, MODEL, tmp_path, sleeper, me="a", left=3600)
        assert sleeper.began.wait(60)
        second = pool.submit(shared.fetch, MODEL, tmp_path, next_one, me="b", left=0.5)
        assert next_one.began.wait(60)
        order = [(sleeper, first), (next_one, second)]
        for each, asked in order if first_ends == "first" else order[::-1]:
            each.gate.set()
            if each is next_one:
                asked.result(timeout=60)
        found = {first.result(timeout=60), second.result(timeout=60)}
    (folder,) = found
    assert (folder / "model.safetensors").read_text() == "bbbb"


class Client:
    """Keeps files as the hub's client does: under their sha256, with a link beside."""

    def __init__(self, **contents):
        self.contents, self.fetched = contents, []

    def __call__(self, place):
        blobs, folder = place / "hub" / "blobs", place / "hub" / "snapshot"
        blobs.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        for name, content in self.contents.items():
            blob = blobs / hashlib.sha256(name.encode()).hexdigest()
            if not blob.exists():
                self.fetched.append(name)
                blob.write_text(content)
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(blob)
        return folder


def test_whole_files_of_one_that_fell_silent_come_along(tmp_path, source):
    abandoned(tmp_path, source, by="dead")
    (place,) = tmp_path.iterdir()
    blobs = place / "files-1" / "hub" / "blobs"
    blobs.mkdir(parents=True)
    for name in ("one", "two.incomplete"):
        word, _, ending = name.partition(".")
        (blobs / f"{hashlib.sha256(word.encode()).hexdigest()}{ending and '.' + ending}").write_text(word)
    client = Client(one="one", two="two")
    folder = shared.fetch(MODEL, tmp_path, client, me="b", left=0.5)
    assert client.fetched == ["two"]
    assert {file.name: file.read_text() for file in folder.iterdir()} == {"one": "one", "two": "two"}
    assert [each.name for each in place.glob("files-*")] == ["files-2"]


def test_a_file_with_another_sha256_than_its_own_is_not_kept(tmp_path):
    client = Client(one="one", two="mixed")
    with pytest.raises(errors.StorageTrouble, match=r"acme/tiny at 0.*: two came with another sha256 than the hub's"):
        shared.fetch(MODEL, tmp_path, client, me="a")
    client.contents["two"] = "two"
    assert (shared.fetch(MODEL, tmp_path, client, me="a") / "two").read_text() == "two"
    assert client.fetched == ["one", "two", "two"]


@pytest.mark.parametrize("harm", ["cut", "gone", "nonsense"])
def test_what_is_not_whole_any_more_is_fetched_again(tmp_path, source, harm):
    folder = shared.fetch(MODEL, tmp_path, source, me="a")
    if harm == "nonsense":
        next(tmp_path.glob("*/complete.json")).write_text("[1]")
    elif harm == "cut":
        (folder / "config.json").write_text("")
    else:
        (folder / "config.json").unlink()
    assert (shared.fetch(MODEL, tmp_path, source, me="b") / "config.json").read_text() == "{}"
    assert source.times == 2


def test_a_part_that_found_no_room_takes_none(tmp_path):
    other = MODEL.model_copy(update={"id": "acme/other"})
    shared.fetch(other, tmp_path, Client(one="one"), me="a")

    def full(place):
        (place / "part").write_text("half")
        raise errors.StorageTrouble("could not be stored") from OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(errors.StorageTrouble):
        shared.fetch(MODEL, tmp_path, full, me="a")
    assert not list(tmp_path.rglob("part"))
    (said,) = shared.kept(tmp_path)
    assert said.endswith("('acme/other', 0.0 GiB)")


def test_a_cache_that_cannot_be_written_is_told(tmp_path, source):
    (tmp_path / "cache").write_text("")
    with pytest.raises(errors.StorageTrouble, match=r"model acme/tiny at 0.*: the cache .* cannot be used: "):
        shared.fetch(MODEL, tmp_path / "cache", source)
