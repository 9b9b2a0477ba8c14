"""`python -m tests.cluster.simulators.azure`: see the package."""

import argparse
from pathlib import Path

from tests.cluster.simulators import azure, web
from tests.cluster.simulators.azure.account import Account
from tests.cluster.simulators.azure.cloud import Cloud
from tests.cluster.simulators.azure.issuer import Issuer
from tests.cluster.simulators.azure.machines import ClusterMachines

STEPS = "system:serviceaccount:kaito-hera:kaito-hera-steps"


def main() -> None:
    asked = _parser().parse_args()
    cloud = Cloud(
        asked.state,
        Account(**{field: getattr(asked, field) for field in Account._fields}),
        ClusterMachines(asked.cluster),
        verifier=Issuer(asked.kubeconfig),
        subjects=frozenset(asked.federated_subject or [STEPS]),
        token_seconds=asked.token_seconds,
    )
    cloud.start()
    try:
        web.run(asked.listen, asked.cert, asked.key, handle=cloud.handle, log=cloud.log)
    finally:
        cloud.stop()


def _parser() -> argparse.ArgumentParser:
    parser = web.arguments(azure)
    parser.add_argument("--state", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kubeconfig", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cluster", required=True, metavar="NAME")
    parser.add_argument("--federated-subject", action="append", metavar="SUBJECT")
    parser.add_argument("--token-seconds", type=float, default=3600.0, metavar="N")
    for field, default in Account._field_defaults.items():
        parser.add_argument(f"--{field.replace('_', '-')}", default=default, metavar="TEXT")
    return parser


if __name__ == "__main__":
    main()
