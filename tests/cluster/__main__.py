"""The one-machine cluster's command line.

python -m tests.cluster up [NAME]                   build and start what is missing
python -m tests.cluster down [NAME]                 stop it and leave nothing behind but the cache
python -m tests.cluster status [NAME]               what runs, where it answers, what it weighs
python -m tests.cluster enter NAME -- COMMAND       run a host command inside the cluster's network
python -m tests.cluster restart NAME DAEMON...      stop daemons of the control plane or the simulators, and `up`
python -m tests.cluster node-image NAME IMAGE...    unpack images from the registry into every future node's disk
python -m tests.cluster packages                    install the Debian packages that the cluster and the tests need
python -m tests.cluster binaries                    build the Go programs only (no root needed)
python -m tests.cluster apiserver [--down]          an API server alone, with the CRD and policies; no root needed
python -m tests.cluster prune                       forget old programs, kept images, the node image; no cluster may run
"""

import argparse
import contextlib
import sys
import time

from tests.cluster import build, layout, lifecycle, machines, node_image, prerequisites, shell, standing, status


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, told in {"up": "build and start what is missing", "down": "leave nothing behind but the cache"}.items():
        verbs.add_parser(verb, help=told).add_argument("name", nargs="?", default="demo")
    verbs.add_parser("status", help="what runs and where it answers").add_argument("name", nargs="?")
    enter = verbs.add_parser("enter", help="run a host command inside the cluster's network")
    enter.add_argument("name")
    enter.add_argument("command", nargs="+")
    restart = verbs.add_parser("restart", help="stop daemons of the control plane or the simulators, and `up`")
    restart.add_argument("name")
    restart.add_argument("daemons", nargs="+", metavar="DAEMON")
    image = verbs.add_parser("node-image", help="unpack images into every future node's disk")
    image.add_argument("name")
    image.add_argument("images", nargs="+", metavar="IMAGE")
    verbs.add_parser("packages", help="install the Debian packages that are missing")
    verbs.add_parser("binaries", help="build the Go programs only")
    alone = verbs.add_parser("apiserver", help="an API server alone, with the CRD and policies")
    alone.add_argument("--down", action="store_true", help="stop it and remove what it stored")
    verbs.add_parser("prune", help="forget old programs, kept images and the node image")
    asked = parser.parse_args()
    try:
        return _run(asked)
    except (layout.ClusterError, TimeoutError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues, `down` clears up", file=sys.stderr)
        return 130


def _run(asked: argparse.Namespace) -> int:  # noqa: C901 - one case a verb
    match asked.verb:
        case "up":
            _up(layout.Cluster(asked.name))
        case "down":
            lifecycle.down(layout.Cluster(asked.name))
        case "status":
            status.show([layout.Cluster(asked.name)] if asked.name else layout.clusters())
        case "enter":
            return shell.enter(layout.Cluster(asked.name), asked.command)
        case "restart":
            for daemon in asked.daemons:
                machines.Machine(layout.Cluster(asked.name)).stop_daemon(daemon)
            _up(layout.Cluster(asked.name))
        case "node-image":
            added = node_image.add(layout.Cluster(asked.name), asked.images)
            print(f"added: {', '.join(added)}" if added else "the node image holds them already")
        case "packages":
            prerequisites.ensure()
        case "binaries":
            build.ensure()
            print(build.tools())
        case "apiserver":
            _apiserver(down=asked.down)
        case "prune":
            lifecycle.prune()
    return 0


def _up(cluster: layout.Cluster) -> None:
    started = time.monotonic()
    print(f"cluster {cluster.name}, state in {cluster.state}", flush=True)
    lifecycle.up(cluster)
    print(f"up after {time.monotonic() - started:.0f} s\n")
    status.point_out(cluster)


def _apiserver(*, down: bool) -> None:
    """On stdout the kubeconfig's path alone, for `$(...)`."""
    if down:
        standing.down()
        return
    with contextlib.redirect_stdout(sys.stderr):
        kubeconfig = standing.up()
        print("an API server with the CRD and the admission policies runs; `make apiserver-down` stops it", flush=True)
    print(kubeconfig)


if __name__ == "__main__":
    sys.exit(main())
