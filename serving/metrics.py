"""Figures of the server for Prometheus, under vLLM's names, so that boards and scalers that were made for it work.

What vLLM has no name for begins with `kaito_hera_`. What the engine counts is asked at each scrape; what an answer
goes through is told by a `Watch`. Knows no HTTP; one registry for each server, so that two of them can be in a process.
"""

import bisect
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving.engine.protocol import ModelInfo, Stats

LABELS = ("model_name", "engine")

FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
BETWEEN_TOKENS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
REQUEST = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)
"""vLLM's buckets: `histogram_quantile` over servers of both kinds needs the same."""

HISTOGRAMS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "time_to_first_token_seconds": ("Seconds from a request's arrival to its first token.", FIRST_TOKEN),
    "inter_token_latency_seconds": ("Seconds between two tokens of an answer.", BETWEEN_TOKENS),
    "request_time_per_output_token_seconds": ("Seconds a token took, by answer, the first left out.", BETWEEN_TOKENS),
    "e2e_request_latency_seconds": ("Seconds from a request's arrival to its last token.", REQUEST),
    "request_queue_time_seconds": ("Seconds that an answer waited for its turn.", REQUEST),
    "request_prefill_time_seconds": ("Seconds from an answer's turn to its first token.", REQUEST),
    "request_decode_time_seconds": ("Seconds from an answer's first token to its last.", REQUEST),
    "request_prompt_tokens": ("Tokens of a prompt.", TOKENS),
    "request_generation_tokens": ("Tokens of an answer.", TOKENS),
}

GAUGES: Mapping[str, tuple[str, Callable[[Stats], float]]] = {
    "vllm:num_requests_running": ("Answers that are being made.", lambda stats: stats.running),
    "vllm:num_requests_waiting": ("Answers that wait for their turn.", lambda stats: stats.waiting),
    "vllm:kv_cache_usage_perc": ("Part of the cache of keys and values in use, 0 to 1.", lambda stats: stats.kv_usage),
    "vllm:gpu_cache_usage_perc": ("The same under vLLM's older name.", lambda stats: stats.kv_usage),
}
COUNTERS: Mapping[str, tuple[str, Callable[[Stats], float]]] = {
    "vllm:prompt_tokens": ("Tokens of prompts that were read.", lambda stats: stats.prompt_tokens),
    "vllm:generation_tokens": ("Tokens that were made.", lambda stats: stats.generated_tokens),
    "vllm:prefix_cache_queries": ("Prompt tokens looked up among known prefixes.", lambda stats: stats.prefix_queries),
    "vllm:prefix_cache_hits": ("Those that were found there.", lambda stats: stats.prefix_hits),
    "vllm:num_preemptions": ("Answers that had to give up their place.", lambda stats: stats.preemptions),
    "kaito_hera_engine_steps": ("Passes through the model.", lambda stats: stats.steps),
    "kaito_hera_engine_step_seconds": ("Seconds spent in them.", lambda stats: stats.step_seconds),
}


class Moment(NamedTuple):
    """What is asked of the server at each scrape."""

    info: ModelInfo
    stats: Stats
    draining: bool
    adapters: tuple[str, ...]
    """Those that are loaded."""
    adapters_in_use: tuple[str, ...]


class Metrics:
    """One server's figures."""

    def __init__(self, model: str, moment: Callable[[], Moment | None]) -> None:
        self._registry = CollectorRegistry()
        self._labels = {"model_name": model, "engine": "0"}
        self._tallies = {name: Tally(buckets) for name, (_, buckets) in HISTOGRAMS.items()}
        self._registry.register(_AtScrape(self._labels, moment, self._tallies))
        self._finished = self._counter("vllm:request_success", "Answers, by how they ended.", "finished_reason")
        for reason in ("stop", "length", "abort", "error"):
            self._finished.labels(**self._labels, finished_reason=reason)
        self._refused = self._counter("kaito_hera_rejected", "Requests refused or failed, by status.", "status")
        self._turned_away = self._counter("vllm:admission_rejections", "Requests refused for want of room.")
        self._turned_away.labels(**self._labels)
        self._adapters = self._counter("kaito_hera_adapter_requests", "Answers, by adapter.", "adapter")

    def watch(self, entered: float, prompt: int) -> "Watch":
        """Follow one answer; `entered` is `time.monotonic()`'s."""
        return Watch(self._tallies, self._finish, entered, prompt)

    def used(self, adapter: str) -> None:
        """An answer begins with this adapter."""
        self._adapters.labels(**self._labels, adapter=adapter).inc()

    def refused(self, status: int) -> None:
        """A request was answered with an error."""
        self._refused.labels(**self._labels, status=str(status)).inc()
        if status == 429:
            self._turned_away.labels(**self._labels).inc()

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)

    def _finish(self, reason: str) -> None:
        self._finished.labels(**self._labels, finished_reason=reason).inc()

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(name, told, (*LABELS, *labels), registry=self._registry)


class Tally:
    """A histogram of one thread: the client library's takes two locks for each token."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one more."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: each counts all that is not above its bound."""
        names = [*map(str, map(float, self.bounds)), "+Inf"]
        return list(zip(names, itertools.accumulate(map(float, self.counts)), strict=True))


class Watch:
    """One answer's way."""

    def __init__(
        self, tallies: Mapping[str, Tally], finish: Callable[[str], None], entered: float, prompt: int
    ) -> None:
        self._tallies = tallies
        self._finish = finish
        self._entered = entered
        self._prompt = prompt
        self._began = self._first = self._last = 0.0
        self._tokens = 0

    def saw(self, tokens: int) -> None:
        """So many tokens came; the first call, with none too, is its turn's beginning."""
        now = time.monotonic()
        if not self._began:
            self._began = now
            self._observe("request_queue_time_seconds", now - self._entered)
        if not tokens:
            return
        if self._first:
            for _ in range(tokens):
                self._observe("inter_token_latency_seconds", (now - self._last) / tokens)
        else:
            self._first = now
            self._observe("time_to_first_token_seconds", now - self._entered)
            self._observe("request_prefill_time_seconds", now - self._began)
        self._last = now
        self._tokens += tokens

    def end(self, reason: str) -> None:
        """Its last token came (`stop`, `length`), its client has gone (`abort`), or it failed (`error`)."""
        self._finish(reason)
        if reason not in ("stop", "length"):
            return
        decode = self._last - self._first
        self._observe("e2e_request_latency_seconds", time.monotonic() - self._entered)
        self._observe("request_decode_time_seconds", decode)
        self._observe("request_prompt_tokens", self._prompt)
        self._observe("request_generation_tokens", self._tokens)
        if self._tokens > 1:
            self._observe("request_time_per_output_token_seconds", decode / (self._tokens - 1))

    def _observe(self, name: str, value: float) -> None:
        self._tallies[name].observe(value)


class _AtScrape(Collector):
    """The tallies, and what the engine counts once the model is loaded."""

    def __init__(
        self, labels: Mapping[str, str], moment: Callable[[], Moment | None], tallies: Mapping[str, Tally]
    ) -> None:
        self._labels = labels
        self._moment = moment
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        for name, tally in self._tallies.items():
            histogram = HistogramMetricFamily(f"vllm:{name}", HISTOGRAMS[name][0], labels=LABELS)
            histogram.add_metric(tuple(self._labels.values()), tally.buckets(), tally.sum)
            yield histogram
        moment = self._moment()
        if moment is None:
            return
        values = tuple(self._labels.values())
        for name, (told, read) in GAUGES.items():
            gauge = GaugeMetricFamily(name, told, labels=LABELS)
            gauge.add_metric(values, read(moment.stats))
            yield gauge
        for name, (told, read) in COUNTERS.items():
            counter = CounterMetricFamily(name, told, labels=LABELS)
            counter.add_metric(values, read(moment.stats))
            yield counter
        yield from self._states(moment)

    def _states(self, moment: Moment) -> Iterator[Metric]:
        adapters = {
            "max_lora": str(len(moment.adapters)),
            "running_lora_adapters": ",".join(moment.adapters_in_use),
            "waiting_lora_adapters": "",
        }
        info = moment.info
        runs = {"kind": info.kind, "dtype": info.dtype, "device": info.device, "context": str(info.context)}
        yield self._gauge("vllm:lora_requests_info", "Adapters in use; the value is the time.", time.time(), adapters)
        yield self._gauge("kaito_hera_drain_state", "1 while the server shuts down.", moment.draining, {})
        yield self._gauge("kaito_hera_engine_info", "What runs the model.", 1, runs)

    def _gauge(self, name: str, told: str, value: float, labels: Mapping[str, str]) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(name, told, labels=(*LABELS, *labels))
        gauge.add_metric((*self._labels.values(), *labels.values()), value)
        return gauge
