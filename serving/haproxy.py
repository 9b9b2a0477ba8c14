"""HAProxy, which Ray Serve starts: open to the network on one port, and everything else of it behind Unix sockets.

Ray writes HAProxy's configuration anew for each reload and binds its statistics and metrics to all interfaces, with no
setting for it. What it does have is a setting for the program to run: ours edits three lines, opens a pipe by which
`deaths` knows that it lives, and becomes HAProxy. The rest of Serve (its fallback proxy, the replica's own port)
follows `http_options.host`, which is loopback.
"""

import os
import shlex
from pathlib import Path

SCRIPT = """#!/bin/sh
# Edits the configuration that Ray Serve wrote, then becomes HAProxy.
for argument in "$@"; do
  [ "$before" = -f ] && config=$argument
  before=$argument
done
sed -i -e 's|^ *bind 127\\.0\\.0\\.1:{port}$|    bind {listen}|' \\
  -e 's|^ *bind :{metrics}$|    bind unix@{folder}/metrics.sock mode 600|' \\
  -e 's|^ *bind \\*:{stats}$|    bind unix@{folder}/stats.sock mode 600|' "$config" || exit 1
exec 9<>{folder}/{alive}
exec {binary} "$@"
"""

METRICS_PORT = 9101
STATS_PORT = 8404
ALIVE = "alive"
"""The pipe, in the folder of the program."""


def environment(folder: Path, *, host: str, port: int, binary: str) -> dict[str, str]:
    """Write the program into `folder` and return the settings with which Ray Serve uses it, and only this folder."""
    script = folder / "haproxy"
    listen = f"[{host}]:{port}" if ":" in host and host != "::" else f"{host}:{port}"
    script.write_text(
        SCRIPT.format(
            port=port,
            listen=f"{listen} v4v6" if host == "::" else listen,
            metrics=METRICS_PORT,
            stats=STATS_PORT,
            folder=folder,
            alive=ALIVE,
            binary=shlex.quote(binary),
        )
    )
    script.chmod(0o700)
    os.mkfifo(folder / ALIVE, 0o600)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.dgram"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(METRICS_PORT),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(STATS_PORT),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(min(2, os.cpu_count() or 1)),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # draining is ours and is over by then
    }
