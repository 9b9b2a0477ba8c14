"""`kaito-hera presets` and `kaito-hera sizes`."""

import json

import pytest
import yaml

import presets
from kaito_hera import offers
from kaito_hera.admission import tables
from presets import memory
from workflows import __main__ as command
from workflows.commands import presets as models
from workflows.commands import sizes
from workflows.outlook.documents import UnreadableError


@pytest.fixture
def kaito_hera(capsys):
    def run(*arguments):
        parsed = command._parser().parse_args(list(arguments))
        parsed.run(parsed)
        return capsys.readouterr().out

    return run


def test_every_preset_has_its_line_with_what_it_needs(kaito_hera):
    head, *lines = kaito_hera("presets").splitlines()
    assert head.split()[:4] == ["PRESET", "CONTEXT", "SERVE", "QLORA"]
    cells = {line.split()[0]: line.split() for line in lines}
    assert set(presets.presets()) <= set(cells)
    assert cells["phi-4"][1:6] == ["16,384", "33.0", "14.6", "36.3", "3.67"]
    assert cells["deepseek-r1-0528"][2:6] == ["-", "-", "-", "-"]


def test_an_apply_names_the_same_numbers(kaito_hera):
    """To serve; what it says of tuning is for the least that a config may ask for."""
    cells = {line.split()[0]: line.split() for line in kaito_hera("presets").splitlines()}
    rows = {name: tables.Tables().preset(name) for name in presets.presets()}
    assert {name: row.serve for name, row in rows.items() if cells[name][2] not in {"-", row.serve}} == {}


def test_one_preset_in_full(kaito_hera):
    shown = kaito_hera("presets", "PHI-3-mini-4k-instruct")
    for words in (
        "microsoft/Phi-3-mini-4k-instruct@0a67737cc96d2554230f90338b163bc6380a2a85",
        "mit",
        "public",
        "4,096 tokens",
        "qkv_proj, o_proj",
        "to serve: cache for 2,048 tokens",
        "to tune: qlora, rank 8, 2 rows of 2,048 tokens",
        "to tune: lora",
        "fits on Standard_NC4as_T4_v3 (0.53 USD/h)",
    ):
        assert words in shown


def test_what_is_known_not_to_work_is_said(kaito_hera):
    for name, model in presets.presets().items():
        if model.limits:
            shown = kaito_hera("presets", name)
            assert all(limit in shown for limit in model.limits)


def test_a_model_that_no_gpu_holds_says_so(kaito_hera):
    shown = kaito_hera("presets", "llama-3.3-70b-instruct")
    assert "no size that is known holds it; a smaller one of its family is llama-3.1-8b-instruct" in shown


def test_sizes_that_hold_a_model_are_those_that_presets_would_serve_it_on(kaito_hera):
    told = sizes.Sizes.model_validate_json(kaito_hera("sizes", "--fits", "phi-4", "--for", "lora", "-o", "json"))
    need = models.describe(presets.preset("phi-4"), None).need("lora")
    assert [size.name for size in told.sizes] == [holder.size for holder in need.sizes]
    assert all(need.gib <= size.usable_gib and size.share <= 1 and not size.unusable for size in told.sizes)
    prices = [size.usd_per_hour for size in told.sizes if size.usd_per_hour is not None]
    assert prices == sorted(prices)


def test_all_sizes_of_a_cloud(kaito_hera):
    told = sizes.Sizes.model_validate_json(kaito_hera("sizes", "--cloud", "aws", "-o", "json"))
    assert {size.name for size in told.sizes} == {s.name for s in presets.sizes().values() if s.cloud == "aws"}
    assert len(kaito_hera("sizes").splitlines()) == len(presets.sizes()) + 2


def test_a_size_that_the_images_cannot_use_says_why():
    old = sizes.describe(presets.size("Standard_NC6s_v3"), "westeurope")
    assert "capability 7.0" in old.unusable
    assert (old.usd_per_hour, old.region, str(old.retired_on)) == (3.823, "westeurope", "2025-09-30")
    assert (old.quota_family, old.vcpus) == ("standardNCSv3Family", 6)


def test_the_region_is_that_of_the_price(kaito_hera):
    shown = kaito_hera("sizes", "--fits", "phi-4", "--region", "westeurope")
    assert "4.78" in shown
    assert "in westeurope, 2026-06-18" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["presets", "phi-5"], "'phi-5' is not known; did you mean one of: phi-4"),
        (["presets", "Phi-3"], "did you mean one of: phi-3-medium-128k-instruct, phi-3-medium-4k-instruct, phi-3-mini"),
        (["presets", "llama-3"], "did you mean one of: llama-3.1-8b-instruct"),
        (["presets", "acme/none"], "'acme/none' is not known; a Workspace may name it all the same: preflight asks"),
        (["sizes", "--fits", "phi-5"], "'phi-5' is not known"),
        (["sizes", "--fits", "gemma-3-4b-instruct", "--for", "lora"], "is not made for it here, it is for serve"),
        (
            ["sizes", "--fits", "deepseek-r1-0528"],
            r"it is for vLLM alone \(kaito\.sh/runtime: vllm\): `kaito-hera plan`",
        ),
    ],
)
def test_a_name_that_cannot_be_is_a_usage_error(kaito_hera, arguments, words):
    with pytest.raises(UnreadableError, match=words):
        kaito_hera(*arguments)


def test_where_nothing_holds_the_model_the_exit_code_says_so(kaito_hera, capsys):
    with pytest.raises(SystemExit) as end:
        kaito_hera("sizes", "--fits", "llama-3.3-70b-instruct", "--for", "lora")
    assert end.value.code == 10
    assert "no size that is known has that" in capsys.readouterr().out


@pytest.mark.parametrize("line", [["presets"], ["presets", "phi-4"], ["sizes"], ["sizes", "--fits", "phi-4"]])
def test_json_and_yaml_say_the_same(kaito_hera, line):
    assert json.loads(kaito_hera(*line, "-o", "json")) == yaml.safe_load(kaito_hera(*line, "-o", "yaml"))


def test_the_needs_are_those_that_plan_holds_against_a_gpu():
    for model in presets.presets().values():
        told = models.describe(model, None)
        assert {need.name for need in told.needs} == set(models.demands(model))
        for need in told.needs:
            demand = models.demands(model)[need.name]
            able = offers.holders(demand) if need.use == "serve" else memory.cheapest(demand.need.gib)
            assert [holder.size for holder in need.sizes] == [size.name for size in able]
            assert all(demand.way(size.gib_per_gpu * size.usable, size.gpus) is not None for size in able)


def test_a_share_is_of_each_gpu_where_all_of_a_node_hold_the_model(kaito_hera):
    told = sizes.Sizes.model_validate_json(kaito_hera("sizes", "--fits", "llama-3.3-70b-instruct", "-o", "json"))
    assert told.sizes
    assert all(0 < size.share <= 1 and size.gpus > 1 for size in told.sizes)
