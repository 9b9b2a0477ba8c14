"""`make install` and `make uninstall`, with users' own kubectl; what would be applied or deleted is written down."""

import os
import shutil
import subprocess

import pytest
import yaml

from tests.apiserver.conftest import ROOT
from tests.cluster import build

KUBECTL = """#!/bin/bash
echo "$*" >> {folder}/calls
case "$*" in
  kustomize*) exec {kubectl} "$@" ;;
  apply*) {kubectl} kustomize build/install > {folder}/applied.yaml ;;
  "get crd"*) {crd} ;;
  "get workspaces"*) {workspaces} ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Runs make on a copy of what it needs, with a kubectl that answers as told."""
    shutil.copytree(ROOT / "argo", tmp_path / "argo")
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "argo", tmp_path / "overlay")
    (tmp_path / "overlay" / "kustomization.yaml").write_text("resources: [../argo]\n")

    def run(target, *variables, crd="true", workspaces="true"):
        script = tmp_path / "kubectl"
        kubectl = build.binary("kubectl")
        script.write_text(KUBECTL.format(folder=tmp_path, kubectl=kubectl, crd=crd, workspaces=workspaces))
        script.chmod(0o755)
        command = ["make", target, f"KUBECTL={script}", "REGISTRY=r.example.com", "VERSION=1", *variables]
        environment = {**os.environ, "MAKEFLAGS": ""}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def installed(make, tmp_path):
    """What stands on the operator's pods after an install: if it changes, they are made anew."""

    def install(*variables):
        end = make("install", *variables)
        assert end.returncode == 0, end.stderr
        objects = yaml.safe_load_all((tmp_path / "applied.yaml").read_text())
        deployment = next(obj for obj in objects if obj["kind"] == "Deployment")
        return deployment["spec"]["template"]["metadata"]["annotations"]

    return install


def test_the_same_again_restarts_nothing(installed):
    assert installed() == installed()


def test_every_change_of_what_is_installed_is_a_new_operator(installed, tmp_path):
    seen = [installed(), installed("CA_BUNDLE=authorities"), installed("OVERLAY=overlay", "PULL_SECRET=x")]
    settings = tmp_path / "argo" / "settings.yaml"
    settings.write_text(settings.read_text().replace("nodeProvider: byo", "nodeProvider: aks"))
    seen.append(installed("OVERLAY=overlay", "PULL_SECRET=x"))
    assert len({str(annotations) for annotations in seen}) == 4


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        pytest.param({"crd": "echo forbidden >&2; exit 1"}, "forbidden", id="crd-unreadable"),
        pytest.param({"crd": "echo crd", "workspaces": "echo timeout >&2; exit 1"}, "timeout", id="list-unreadable"),
        pytest.param({"crd": "echo crd", "workspaces": "echo team w"}, "delete these Workspaces first", id="some-left"),
    ],
)
def test_uninstall_deletes_nothing_unless_it_saw_that_no_workspace_is_left(make, tmp_path, answers, words):
    end = make("uninstall", **answers)
    assert end.returncode != 0
    assert words in end.stderr
    assert "delete" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize("answers", [{"crd": "true"}, {"crd": "echo crd"}], ids=["no-crd", "none-left"])
def test_uninstall_goes_on_without_workspaces(make, tmp_path, answers):
    assert make("uninstall", **answers).returncode == 0
    assert "delete --ignore-not-found -k argo" in (tmp_path / "calls").read_text()
