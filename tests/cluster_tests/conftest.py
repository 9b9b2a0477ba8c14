import pytest

from tests.cluster import layout


@pytest.fixture(autouse=True)
def _folders(tmp_path, monkeypatch):
    monkeypatch.setenv("KAITO_HERA_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("KAITO_HERA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cluster():
    return layout.Cluster("demo")
