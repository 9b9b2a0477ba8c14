import pytest

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
            ["inference.preset.name", '"phi-3-mini-4k-instrukt"', "phi-3-mini-4k-instruct"],
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
            making.edited(making.inference(), instanceType=None),
            errors.InvalidWorkspaceError,
            ["resource.instanceType"],
            id="no-size",
        ),
        pytest.param(
            making.tuning(annotations={"kaito.sh/serve": "perhaps"}),
            errors.InvalidWorkspaceError,
            ["metadata.annotations[kaito.sh/serve]", '"perhaps"', "true", "false"],
            id="neither-true-nor-false",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_field_value_and_remedy(workspace, error, words):
    with pytest.raises(error) as refused:
        passed(workspace)
    for word in words:
        assert word in str(refused.value)


def test_brought_nodes_need_no_size():
    passed(making.edited(making.inference(), instanceType=None), Settings(node_provider="byo"))
