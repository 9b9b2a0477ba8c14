"""A folder for models that several machines share: fetched once, by one at a time, and gone on with by another."""

import concurrent.futures
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


def test_a_cache_that_cannot_be_written_is_told(tmp_path, source):
    (tmp_path / "cache").write_text("")
    with pytest.raises(errors.StorageTrouble, match=r"model acme/tiny at 0.*: the cache .* cannot be used: "):
        shared.fetch(MODEL, tmp_path / "cache", source)
