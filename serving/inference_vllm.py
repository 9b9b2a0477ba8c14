"""The options of an inference_config.yaml that are handed on to vLLM, where it serves: data and readers of values.

All others are judged as for our own engine (`inference_keys`): what would change who may ask or what is served is
refused under either, and what is left is a warning.
"""

from collections.abc import Callable, Mapping
from typing import Any

Reader = Callable[[object], Any]

LORA: Mapping[str, Any] = {"enable_lora": True, "max_loras": 4, "max_cpu_loras": 16, "max_lora_rank": 64}
"""Where inference_config.yaml says nothing: so many mixes in one step, further ones wait for a place among them."""

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's max_lora_rank can be."""


def _whole(least: int) -> Reader:
    def read(value: object) -> int:
        text = "" if isinstance(value, bool) else str(value)
        if not text.isdecimal() or len(text) > 9 or int(text) < least:
            raise ValueError(f"is no whole number from {least} on; write one")
        return int(text)

    return read


def _number(most: float, *, above: bool) -> Reader:
    def read(value: object) -> float:
        try:
            number = float("nan" if isinstance(value, bool) else str(value))
        except ValueError:
            number = float("nan")
        if not (0 < number <= most or (number == 0 and not above)):
            raise ValueError(f"is no number {'above' if above else 'from'} 0{'' if above else ' on'} to {most:g}")
        return number

    return read


def _truth(value: object) -> bool:
    text = str(value).strip().lower()
    if text not in {"true", "false"}:
        raise ValueError("is neither true nor false")
    return text == "true"


def _one_of(*words: str) -> Reader:
    def read(value: object) -> str:
        if str(value) not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return str(value)

    return read


def _rank(value: object) -> int:
    if str(value) not in map(str, RANKS):
        raise ValueError(f"is no rank that vLLM can be started for; write one of {', '.join(map(str, RANKS))}")
    return int(str(value))


OPTIONS: Mapping[str, Reader] = {
    **dict.fromkeys(
        ("max-num-seqs", "max-num-batched-tokens", "max-loras", "max-cpu-loras", "tensor-parallel-size", "block-size"),
        _whole(1),
    ),
    "seed": _whole(0),
    "max-lora-rank": _rank,
    "gpu-memory-utilization": _number(1, above=True),
    "cpu-offload-gb": _number(10_000, above=False),
    **dict.fromkeys(
        (
            "enforce-eager",
            "enable-prefix-caching",
            "enable-chunked-prefill",
            "enable-lora",
            "async-scheduling",
            "disable-cascade-attn",
        ),
        _truth,
    ),
    "kv-cache-dtype": _one_of("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"),
    "performance-mode": _one_of("balanced", "interactivity", "throughput"),
}
"""Names as on vLLM's command line; readers raise ValueError with what is wrong, after the value."""


def read(name: str, value: object) -> dict[str, Any] | None:
    """An option as arguments of vLLM's engine; None where it is not handed on."""
    if reader := OPTIONS.get(name):
        return {name.replace("-", "_"): reader(value)}
    if OPTIONS.get(opposite := name.removeprefix("no-")) is _truth:
        return {opposite.replace("-", "_"): not _truth(value)}
    return None
