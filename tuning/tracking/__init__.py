"""Experiment trackers that `TrainingArguments.report_to` names, fed beside the training, which never waits for them.

Spoken to by their HTTP interfaces, or files, and not by their libraries: those bring servers, databases and processes
of their own (mlflow-skinny twenty packages, wandb 80 MB) and connect wherever they are told, where these go only to
addresses that data may come from too.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from artifacts import addresses
from tuning.config import TuningConfig
from tuning.places import Places
from tuning.report import Listener, log
from tuning.tracking import mlflow, tensorboard, wandb
from tuning.tracking.feed import Feed, Sink
from tuning.tracking.run import Run


@contextlib.contextmanager
def told(config: TuningConfig, places: Places, environment: Mapping[str, str] = os.environ) -> Iterator[list[Listener]]:
    """Listeners that pass each step on to the trackers that the config names."""
    feeds = [Feed(sink) for sink in sinks(config, places, environment)]
    outcome = "failed"
    try:
        yield list(feeds)
        outcome = "finished"
    except BaseException as error:
        outcome = "evicted" if type(error).__name__ == "Evicted" else outcome
        raise
    finally:
        for feed in feeds:
            feed.close(outcome)


def sinks(config: TuningConfig, places: Places, environment: Mapping[str, str]) -> list[Sink]:
    """Of the trackers that the config names those that can be told; the log says why the others cannot."""
    about, policy = Run.of(config), addresses.Policy(config.allowed_private_cidrs)
    made: dict[str, Callable[[], Sink]] = {
        "mlflow": lambda: mlflow.Server(about, environment, policy),
        "tensorboard": lambda: tensorboard.Files(about, _results(config, places)),
        "wandb": lambda: wandb.Server(about, environment, policy),
    }
    found = []
    for name in config.training.arguments.report_to:
        try:
            found.append(made[name]())
        except ValueError as why:
            log.warning("TrainingArguments.report_to: nothing goes to %s: %s", name, why)
    return found


def _results(config: TuningConfig, places: Places) -> str:
    if not config.output.volume:
        raise ValueError(
            "it writes files beside the adapter, and the output is an image; take tuning.output.volumeSource"
        )
    return str(places.results)
