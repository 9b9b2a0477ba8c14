import pytest


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A tiny model; nobody writes into its folder."""
    from tests.serving import tiny

    return tiny.checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def adapters(base, tmp_path_factory):
    """Three of it that count differently: as usual, by rslora on some layers, by patterns of names."""
    from tests.serving import tiny

    folder = tmp_path_factory.mktemp("adapters")
    return {
        "one": tiny.adapter(folder / "one", base, 1),
        "two": tiny.adapter(folder / "two", base, 2, r=8, use_rslora=True, target_modules=["qkv_proj", "down_proj"]),
        "patterns": tiny.adapter(
            folder / "patterns", base, 3, rank_pattern={"o_proj": 2}, alpha_pattern={"layers.0.self_attn.o_proj": 32}
        ),
    }
