import datetime
from pathlib import Path

import pytest
import yaml

import presets

ALL = list(presets.sizes().values())
TODAY = datetime.date(2026, 11, 21)
KAITO = yaml.safe_load((Path(__file__).parent / "kaito.yaml").read_text())["all_sizes"]


def test_every_size_that_kaito_ever_listed_is_there():
    assert len(KAITO) == 116
    assert set(KAITO) <= set(presets.sizes())


@pytest.mark.parametrize("size", ALL, ids=lambda size: size.name)
def test_a_size_is_plausible(size):
    assert size.vcpus > 0
    assert (size.gpus == 0) == (size.gpu_memory_gib == 0) == (size.gib_per_gpu == 0)
    assert size.slice <= 1
    assert size.slice < 1 or size.gpus == 0 or size.gib_per_gpu >= 8
    assert (size.vendor == "nvidia") == (size.capability is not None) == (size.compute > (0, 0))
    assert set(size.prices) <= {"lowest", "highest", *size.priced_regions}
    assert size.usd_per_hour is None or size.usd_per_hour <= min(size.prices.values())
    assert size.cloud == "azure" or not size.prices


@pytest.mark.parametrize("size", ALL, ids=lambda size: size.name)
def test_what_is_to_be_taken_instead_is_a_usable_size_of_the_same_cloud(size):
    for name in size.instead:
        other = presets.size(name)
        assert (other.cloud, other.vendor, other.arch, other.slice) == (size.cloud, "nvidia", "amd64", 1)
        assert other.compute >= (7, 5)
        assert not other.retired(TODAY)


@pytest.mark.parametrize("size", [size for size in ALL if size.cloud == "azure"], ids=lambda size: size.name)
def test_what_cannot_be_had_or_used_names_what_to_take_instead(size):
    lost = size.retired(TODAY) or size.compute < (7, 5) or size.arch != "amd64"
    assert size.instead or not lost or size.gpus == 0


def test_a_size_retires_on_its_day():
    v100 = presets.size("standard_nc6S_V3")
    assert v100.name == "Standard_NC6s_v3"
    assert not v100.retired(datetime.date(2025, 9, 29))
    assert v100.retired(datetime.date(2025, 9, 30))
    assert not presets.size("Standard_NC24ads_A100_v4").retired(datetime.date(2040, 1, 1))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Standard_NC24ads_A100", "Standard_NC24ads_A100_v4"),
        ("NC24ads_A100_v4", "Standard_NC24ads_A100_v4"),
        ("Standard_NV6ads_A10_v4", "Standard_NV6ads_A10_v5"),
        ("Standard_D4s_v3", ""),
        ("Standard_E96as_v5", ""),
        ("t3.xlarge", ""),
        ("4", ""),
    ],
)
def test_a_slip_suggests_sizes_of_the_same_family_only(name, meant):
    with pytest.raises(presets.UnknownNameError) as raised:
        presets.size(name)
    said = f"did you mean one of: {meant}" if meant else "it has no GPU, or is new: `kaito-hera sizes` lists"
    assert str(raised.value).startswith(f"{name!r} is not known; {said}")


def test_every_region_with_prices_is_one():
    for size in ALL:
        assert [presets.region(region) for region in size.priced_regions] == list(size.priced_regions)


def test_a_price_is_the_regions_or_the_lowest_where_the_region_was_not_looked_up():
    t4 = presets.size("Standard_NC4as_T4_v3")
    assert (t4.usd(), t4.usd("westeurope"), t4.usd("japaneast")) == (0.526, 0.658, 0.526)
    assert t4.priced_on == datetime.date(2026, 6, 18)
    h200 = presets.size("Standard_ND96isr_H200_v5")
    assert h200.usd("westeurope") is None, "it is not sold there"
    assert presets.size("g5.xlarge").usd("eastus") is None


def test_a_slice_of_a_card_is_a_size_and_no_whole_card():
    sixth = presets.size("Standard_NV6ads_A10_v5")
    assert (sixth.gpus, sixth.gib_per_gpu, sixth.slice) == (1, 4, 0.167)


def test_what_is_in_preview_is_known_and_marked():
    assert {size.gpu for size in ALL if size.preview} == {"NVIDIA RTX PRO 6000 Blackwell Server Edition 96GB"}
