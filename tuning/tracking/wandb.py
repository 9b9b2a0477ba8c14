"""Weights & Biases: the run by its GraphQL interface, its history by the stream of files that wandb's client sends.

The client's own protocol, which its releases have spoken for years; attempts go on after the last line that is there.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from artifacts import addresses
from tuning.tracking.http import Api, Refused, basic
from tuning.tracking.run import Point, Run

_UPSERT = """mutation Upsert($name: String, $project: String, $entity: String, $shown: String, $config: JSONString) {
  upsertBucket(input: {name: $name, modelName: $project, entityName: $entity, displayName: $shown, config: $config}) {
    bucket { name historyLineCount project { name entity { name } } }
  }
}"""


class Server:
    """One server: theirs, or one's own."""

    name = "wandb"

    def __init__(self, run: Run, environment: Mapping[str, str], policy: addresses.Policy) -> None:
        """Raises ValueError where the environment has no key."""
        key = environment.get("WANDB_API_KEY", "").strip()
        if not key:
            raise ValueError("WANDB_API_KEY is not set; put it into the Secret of kaito.sh/tracking-secret")
        self._api = Api(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai", policy, basic("api", key))
        self._project = environment.get("WANDB_PROJECT") or "kaito-hera"
        self._entity = environment.get("WANDB_ENTITY") or None
        self._run = run
        self._stream = ""
        self._lines = 0
        self._seconds: float | None = None

    def open(self) -> None:
        """The project's run of this id, made where there is none."""
        config = json.dumps({key: {"value": value} for key, value in self._run.settings.items()}, default=list)
        asked = {"name": self._run.id, "project": self._project, "entity": self._entity, "shown": self._run.name}
        answer = self._api.ask("/graphql", {"query": _UPSERT, "variables": {**asked, "config": config}})
        if problems := answer.get("errors"):
            raise Refused(f"it answers {str(problems)[:200]}")
        found = answer["data"]["upsertBucket"]["bucket"]
        parts = (found["project"]["entity"]["name"], found["project"]["name"], found["name"])
        self._stream = f"/files/{'/'.join(quote(part, safe='') for part in parts)}/file_stream"
        self._lines = int(found.get("historyLineCount") or 0)

    def log(self, points: list[Point]) -> None:
        """A line of history for each, and the last one's as what the run's table shows."""
        self._seconds = self._seconds or points[0].seconds
        lines = [json.dumps(self._line(point)) for point in points]
        files: dict[str, Any] = {
            "wandb-history.jsonl": {"offset": self._lines, "content": lines},
            "wandb-summary.json": {"offset": 0, "content": lines[-1:]},
        }
        self._api.ask(self._stream, {"files": files, "dropped": 0})
        self._lines += len(lines)

    def close(self, outcome: str) -> None:
        """Say how it ended; of an attempt after which another follows, that it was preempted."""
        if outcome == "evicted":
            self._api.ask(self._stream, {"preempting": True, "dropped": 0})
        else:
            self._api.ask(self._stream, {"complete": True, "exitcode": 0 if outcome == "finished" else 1, "dropped": 0})

    def _line(self, point: Point) -> dict[str, float]:
        since = point.seconds - (self._seconds or point.seconds)
        own = {"train/global_step": point.step, "_step": point.step, "_timestamp": point.seconds, "_runtime": since}
        return {**point.values, **own}
