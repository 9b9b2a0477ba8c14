"""Settings as platform teams write them into a ConfigMap."""

from pathlib import Path

import pydantic
import pytest
import yaml

from kaito_hera.settings import Settings, problem

ROOT = Path(__file__).parents[2]
AZURE = "tenantId: t\nclientId: c\nsubscriptionId: s\nresourceGroup: g\nclusterName: k\nlocation: eastus"


@pytest.mark.parametrize("text", [AZURE, f"\n{AZURE}\n", "{" + AZURE.replace("\n", ", ") + "}"])
def test_a_setting_with_keys_of_its_own_is_yaml_of_any_style(text):
    azure = Settings.of({"azure": text}).azure
    assert azure is not None
    assert (azure.resource_group, azure.location) == ("g", "eastus")


@pytest.mark.parametrize("text", ["[10.0.0.0/8, fd00::/8]", "- 10.0.0.0/8\n- fd00::/8\n"])
def test_so_is_a_list(text):
    assert Settings.of({"allowedPrivateCIDRs": text}).allowed_private_cidrs == ("10.0.0.0/8", "fd00::/8")


def test_all_else_is_text_as_it_stands():
    read = Settings.of({"version": " 1.10\n", "hfOffline": "true", "startTimeoutSeconds": "900"})
    assert (read.version, read.hf_offline, read.start_timeout_seconds) == ("1.10", True, 900)


@pytest.mark.parametrize("text", ["{tenantId: t", "tenantId", "tenantId: t", "[" * 20_000])
def test_what_is_no_such_setting_is_an_error(text):
    with pytest.raises(pydantic.ValidationError, match="azure"):
        Settings.of({"azure": text})


def test_the_example_for_aks_is_read():
    data = yaml.safe_load((ROOT / "examples" / "aks" / "settings.yaml").read_text())["data"]
    assert Settings.of(data).region == "eastus"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"nodeprovider": "aks"}, "setting nodeprovider: is unknown; did you mean nodeProvider?"),
        (
            {"azure": f"{AZURE}\nresourcegroup: g"},
            "setting azure.resourcegroup: is unknown; did you mean azure.resourceGroup?",
        ),
        ({"colour": "red"}, "setting colour: is unknown; take it out; there are namespace, registry, "),
        ({"nodeProvider": "aws"}, "setting nodeProvider: 'aws': "),
    ],
)
def test_what_is_wrong_with_a_setting_is_told_with_the_way_out(data, words):
    with pytest.raises(pydantic.ValidationError) as found:
        Settings.of(data)
    assert problem(found.value).startswith(words)
