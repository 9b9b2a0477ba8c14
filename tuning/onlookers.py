"""Who is told of a run's progress: the log, a bar where somebody looks, and whoever asks on the pod's port."""

import contextlib
import sys
from collections.abc import Iterator

from tuning import bar, metrics, tracking
from tuning.config import TuningConfig
from tuning.places import Places
from tuning.report import Report


@contextlib.contextmanager
def told(config: TuningConfig, places: Places) -> Iterator[Report]:
    """The report of one run; a terminal that shows the bar is spared the lines that say the same."""
    with contextlib.ExitStack() as stack:
        drawn = stack.enter_context(bar.drawn(sys.stderr))
        figures = metrics.Metrics()
        if config.metrics_port:
            stack.enter_context(metrics.served(figures, config.metrics_port))
        trackers = stack.enter_context(tracking.told(config, places))
        out = None if drawn and sys.stdout.isatty() else sys.stdout
        yield Report(out, listeners=[figures, *([drawn] if drawn else []), *trackers])
