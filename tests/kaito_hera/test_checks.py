import pytest

import presets
from kaito_hera import checks, errors
from kaito_hera.settings import Azure, Settings
from tests import making

AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
AKS = Settings(node_provider="aks", azure=AZURE)


def passed(workspace, settings=AKS):
    checks.pass_facts(making.parsed(workspace), settings)


def test_the_users_manifests_pass_where_the_gpu_check_only_warns(capsys):
    workspace = making.edited(making.tuning(), instanceType="Standard_NC6s_v3")
    passed(workspace, AKS.model_copy(update={"gpu_capability_check": "warn"}))
    assert "capability 7.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("workspace", "error", "words"),
    [
        pytest.param(
            making.edited(making.inference(), inference={"preset": {"name": "phi-3-mini-4k-instrukt"}}),
            errors.UnknownPresetError,
            ["inference.preset.name", "'phi-3-mini-4k-instrukt'", "phi-3-mini-4k-instruct"],
            id="preset-with-a-slip",
        ),
        pytest.param(
            making.edited(making.inference(), instanceType="Standard_NC24ads_A100"),
            errors.UnknownInstanceTypeError,
            ["resource.instanceType", "Standard_NC24ads_A100_v4"],
            id="size-with-a-slip",
        ),
        pytest.param(
            making.edited(making.inference(), instanceType="Standard_NC6s_v3"),
            errors.UnsupportedGPUError,
            ["Standard_NC6s_v3", "7.0", "7.5", "Standard_NC4as_T4_v3"],
            id="no-kernels",
        ),
        pytest.param(
            making.edited(
                making.inference(),
                instanceType="Standard_NC4as_T4_v3",
                inference={"preset": {"name": "qwen2.5-coder-32b-instruct"}},
            ),
            errors.InsufficientGPUMemoryError,
            ["Standard_NC4as_T4_v3", "16 GiB", "serve qwen2.5-coder-32b-instruct", "take "],
            id="too-small-to-serve",
        ),
        pytest.param(
            making.edited(making.inference(), instanceType=None),
            errors.InvalidWorkspaceError,
            ["resource.instanceType"],
            id="no-size",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_field_value_and_remedy(workspace, error, words):
    with pytest.raises(error) as refused:
        passed(workspace)
    for word in words:
        assert word in str(refused.value)


def test_tuning_needs_more_room_than_serving_only_where_it_does():
    large = making.edited(making.tuning_only(), instanceType="Standard_NC4as_T4_v3")
    large["tuning"]["preset"]["name"] = "phi-4"
    passed(large)  # 4-bit weights of 14B fit 16 GiB, and nothing is to be served
    large["tuning"]["method"] = "lora"
    with pytest.raises(errors.InsufficientGPUMemoryError, match="tune phi-4"):
        passed(large)


def test_brought_nodes_need_no_size():
    passed(making.edited(making.inference(), instanceType=None), Settings(node_provider="byo"))


def test_every_retired_size_names_what_to_take_instead():
    for size in presets.sizes().values():
        for other in size.instead:
            assert checks.unusable(presets.size(other)) == ""
