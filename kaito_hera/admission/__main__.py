"""Print the admission policies and their tables, or with --kind the kind of the tables: argo/policy*.yaml."""

import sys

import yaml

from kaito_hera.admission import policy

_HEAD = "# Generated: make golden\n"


def main() -> None:
    """All objects as YAML."""
    made = [policy.definition()] if sys.argv[1:] == ["--kind"] else policy.manifests()
    print(_HEAD + yaml.safe_dump_all(made, sort_keys=False, width=120, allow_unicode=True), end="")


if __name__ == "__main__":
    main()
