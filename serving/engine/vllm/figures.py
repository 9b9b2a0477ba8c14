"""What vLLM tells of itself at each step, kept for our metrics: one of its stat loggers, without its base class."""

from typing import Any

from serving.engine.protocol import Stats


class Figures:
    """The latest of what changes, the sums of what adds up."""

    def __init__(self) -> None:
        self.prompt_tokens = self.generated_tokens = 0
        self._running = self._waiting = self._preemptions = 0
        self._queries = self._hits = 0
        self._kv_usage = 0.0

    def logger(self, _vllm_config: Any, _engine_index: int = 0) -> "Figures":
        """As vLLM makes its loggers: this one is there already."""
        return self

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """Called after each step."""
        del mm_cache_stats, engine_idx  # only text, and one engine
        if scheduler_stats is not None:
            self._running = scheduler_stats.num_running_reqs
            self._waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            self._kv_usage = scheduler_stats.kv_cache_usage
            self._queries += scheduler_stats.prefix_cache_stats.queries
            self._hits += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            self._preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Called once."""

    def log(self) -> None:
        """Called now and then."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Called where an engine sleeps, which this one never does."""

    def stats(self) -> Stats:
        """As the protocol has it; how long steps take vLLM tells nobody."""
        return Stats(
            running=self._running,
            waiting=self._waiting,
            kv_usage=self._kv_usage,
            prompt_tokens=self.prompt_tokens,
            generated_tokens=self.generated_tokens,
            prefix_queries=self._queries,
            prefix_hits=self._hits,
            preemptions=self._preemptions,
            steps=0,
            step_seconds=0.0,
        )
