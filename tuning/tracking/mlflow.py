"""MLflow by its REST API 2.0. The run is found again by a tag with its id; attempts go on in it."""

import time
from collections.abc import Mapping
from typing import Any

from artifacts import addresses
from tuning.tracking.http import Api, Refused, basic, bearer
from tuning.tracking.run import Point, Run

TAG = "sh.kaito.hera.intent"
_MOST_PARAMS, _MOST_METRICS = 100, 1000
"""Of one request."""
_LONGEST = 500
"""Letters of a parameter that every release takes."""
_ENDS = {"finished": "FINISHED", "failed": "FAILED", "evicted": "KILLED"}


class Server:
    """One tracking server."""

    name = "mlflow"

    def __init__(self, run: Run, environment: Mapping[str, str], policy: addresses.Policy) -> None:
        """Raises ValueError where the environment names none."""
        url = environment.get("MLFLOW_TRACKING_URI", "").strip()
        if not url:
            raise ValueError("MLFLOW_TRACKING_URI is not set; put it into the Secret of kaito.sh/tracking-secret")
        user, token = environment.get("MLFLOW_TRACKING_USERNAME", ""), environment.get("MLFLOW_TRACKING_TOKEN", "")
        sign = bearer(token.strip()) if token.strip() else None
        if user:
            sign = basic(user, environment.get("MLFLOW_TRACKING_PASSWORD", ""))
        self._api = Api(url, policy, sign)
        self._experiment = environment.get("MLFLOW_EXPERIMENT_NAME") or "kaito-hera"
        self._run = run
        self._id = ""

    def open(self) -> None:
        """The experiment's run of this id; made where there is none, and going on where there is."""
        experiment = self._experiment_id()
        asked = {"experiment_ids": [experiment], "filter": f"tags.`{TAG}` = '{self._run.id}'", "max_results": 1}
        found = self._ask("runs/search", asked).get("runs", [])
        if found:
            self._id = str(found[0]["info"]["run_id"])
            self._ask("runs/update", {"run_id": self._id, "status": "RUNNING"})
            return
        tags = [{"key": TAG, "value": self._run.id}, {"key": "mlflow.source.name", "value": "kaito-hera"}]
        now = int(time.time() * 1000)
        asked = {"experiment_id": experiment, "run_name": self._run.name, "start_time": now, "tags": tags}
        self._id = str(self._ask("runs/create", asked)["run"]["info"]["run_id"])
        params = [{"key": key, "value": str(value)[:_LONGEST]} for key, value in self._run.settings.items()]
        self._ask("runs/log-batch", {"run_id": self._id, "params": params[:_MOST_PARAMS]})

    def log(self, points: list[Point]) -> None:
        """Each value of each point, by its plain name, as transformers' callback has it."""
        metrics = [
            {
                "key": name.removeprefix("train/").replace("/", "_"),
                "value": value,
                "timestamp": int(point.seconds * 1000),
                "step": point.step,
            }
            for point in points
            for name, value in point.values.items()
        ]
        for first in range(0, len(metrics), _MOST_METRICS):
            self._ask("runs/log-batch", {"run_id": self._id, "metrics": metrics[first : first + _MOST_METRICS]})

    def close(self, outcome: str) -> None:
        """Say how it ended."""
        self._ask("runs/update", {"run_id": self._id, "status": _ENDS[outcome], "end_time": int(time.time() * 1000)})

    def _experiment_id(self) -> str:
        try:
            found = self._ask("experiments/get-by-name", None, experiment_name=self._experiment)
            return str(found["experiment"]["experiment_id"])
        except Refused as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST":
                raise
        return str(self._ask("experiments/create", {"name": self._experiment})["experiment_id"])

    def _ask(self, what: str, body: Mapping[str, object] | None, **query: str) -> dict[str, Any]:
        return self._api.ask(f"/api/2.0/mlflow/{what}", body, **query)
