"""Apply every Workspace that KAITO published to a real API server with our rules, and compare with the list.

python -m tests.conformance CLONE [--write]      CLONE: a clone of KAITO's repository; nothing is checked out
"""

import argparse
import collections
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from kaito_hera import cluster as clusters
from kaito_hera import errors
from serving import inference_config
from tests.cluster import testing
from tests.conformance import corpus, placeholders, verdicts
from tuning import training_config

_NAMESPACES = clusters.Kind("Namespace", "namespaces", namespaced=False)
_LONGEST = 300
_PROBLEMS = re.compile(r"[,;] (?=(?:[a-z]\w*(?:[.\[][^ ]*)?|<nil>): )")
"""Between two problems: what follows begins with a field."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.partition("\n")[0])
    parser.add_argument("clone", type=Path, help="a clone of KAITO's repository, bare or not")
    parser.add_argument("--write", action="store_true", help="write the list of verdicts anew")
    asked = parser.parse_args()
    try:
        read = corpus.read(_git_folder(asked.clone))
    except subprocess.CalledProcessError as error:
        print(f"{asked.clone} is no clone of KAITO's repository: {error.stderr.strip()}", file=sys.stderr)
        return 2
    with testing.apiserver() as kubeconfig:
        testing.install(kubeconfig)
        os.environ["KUBECONFIG"] = str(kubeconfig)
        cluster = clusters.Cluster.connect()
        cluster.create(_NAMESPACES, {"metadata": {"name": "conformance"}})
        found = judge(cluster, "conformance", read.manifests)
    _show(read, found)
    if asked.write:
        verdicts.write(found)
    different = verdicts.differences(found, verdicts.read())
    for line in different:
        print(f"differs: {line}", file=sys.stderr)
    return 1 if different else 0


def judge(cluster: clusters.Cluster, namespace: str, manifests: tuple[corpus.Manifest, ...]) -> list[verdicts.Verdict]:
    """Create each Workspace in the namespace without keeping it, and read each ConfigMap as preflight does."""

    def refusal(body: dict[str, Any]) -> str:
        if body["kind"] == "ConfigMap":
            return _unread(body["data"])
        group, _, version = str(body.get("apiVersion")).partition("/")
        kind = clusters.Kind("Workspace", "workspaces", version, group)
        try:
            cluster.create(kind, {**body, "metadata": {**body["metadata"], "namespace": namespace}}, dry_run=True)
        except errors.KaitoError as error:
            return _essence(str(error))
        return ""

    found = []
    for one in manifests:
        body = placeholders.filled(one.body)
        unreplaced = ""
        if body != one.body:
            unreplaced = verdicts.REFUSED if refusal(one.body) else verdicts.ADMITTED
        found.append(verdicts.Verdict(one.digest, one.path, one.span, one.body["kind"], refusal(body), unreplaced))
    return found


def _unread(data: dict[str, str]) -> str:
    """What cannot be read of a ConfigMap; a training_config is written for one of the two methods."""
    try:
        if text := data.get("inference_config.yaml"):
            inference_config.parse(text)
        if text := data.get("training_config.yaml"):
            four_bits = yaml.safe_load(text)["training_config"].get("QuantizationConfig", {}).get("load_in_4bit")
            training_config.parse(text, "qlora" if four_bits else "lora")
    except ValueError as error:
        return _essence(str(error))
    return ""


def _essence(message: str) -> str:
    """The problems alone, each with its field, in an order of their own: the API server's changes from call to call.

    Advice and figures of memory are left out, since a list that changes with every price and estimate is not read.
    """
    text = re.sub(r"\s+", " ", message)
    for introduction in (" is invalid: ", " denied request: ", "strict decoding error: "):
        text = text.rpartition(introduction)[2]
    text = re.sub(r"\d[\d.,]* GiB", "... GiB", text.removeprefix("[").removesuffix("]"))
    found = [piece for piece in _PROBLEMS.split(text) if piece]
    return "; ".join(sorted(piece.partition("; ")[0] for piece in found))[:_LONGEST]


def _show(read: corpus.Corpus, found: list[verdicts.Verdict]) -> None:
    for verdict in found:
        print(f"{verdict.word:<9} {verdict.tags:<20} {verdict.kind:<9} {verdict.path}")
        if verdict.says:
            print(f"{'':<9} {verdict.says}")
    counts = collections.Counter(verdict.word for verdict in found)
    placeheld = sum(bool(verdict.unreplaced) for verdict in found)
    others = ", ".join(f"{count} {kind}" for kind, count in read.others.most_common())
    print(
        f"\n{counts['admitted']} admitted, {counts['refused']} refused; {placeheld} of them with placeholders replaced"
    )
    print(f"left aside: {others or 'nothing'}")
    print(f"{read.fragments} fragments, which show a field or an annotation and are no whole manifest")
    for line in read.unreadable:
        print(f"not YAML: {line}")


def _git_folder(clone: Path) -> Path:
    return clone / ".git" if (clone / ".git").exists() else clone


if __name__ == "__main__":
    sys.exit(main())
