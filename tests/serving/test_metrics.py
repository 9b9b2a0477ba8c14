"""`/metrics` as boards and scalers made for vLLM read it, `/metrics.json` as KAITO's."""

import concurrent.futures
import contextlib
import os
import re
import time
from pathlib import Path

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.api import figures
from serving.engine.protocol import RequestFailed
from tests.serving import fakes

HELLO = [{"role": "user", "content": "Hi"}]
ADAPTERS = '[{"name": "poet", "image": "r/poet:1", "strength": 0.5}]'
IMAGES = {"r/poet:1": ("sha256:" + "a" * 64, {})}
BOARDS = (
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
    "vllm:gpu_cache_usage_perc", "vllm:prompt_tokens_total", "vllm:generation_tokens_total",
    "vllm:num_preemptions_total", "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
    "vllm:request_success_total", "vllm:lora_requests_info", "vllm:admission_rejections_total",
    "vllm:time_to_first_token_seconds_bucket", "vllm:inter_token_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_sum", "vllm:request_time_per_output_token_seconds_sum",
    "vllm:request_queue_time_seconds_sum", "vllm:request_prompt_tokens_sum",
    "vllm:request_prefill_time_seconds_count", "vllm:request_decode_time_seconds_count",
    "vllm:request_generation_tokens_sum", "kaito_hera_engine_steps_total", "kaito_hera_engine_step_seconds_total",
    "kaito_hera_drain_state", "kaito_hera_engine_info",
)  # fmt: skip


def scrape(client):
    """Sample's name and own labels to value."""
    response = client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            assert (sample.labels.pop("model_name"), sample.labels.pop("engine")) == ("tiny", "0")
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def value(client, name, **labels):
    return scrape(client)[name, tuple(sorted(labels.items()))]


def test_all_that_boards_ask_for_is_there(tmp_path):
    with fakes.server(tmp_path) as client:
        names = {name for name, _ in scrape(client)}
        assert set(BOARDS) <= names
        assert all(re.match("vllm:|kaito_hera_", name) for name in names)
        assert value(client, "vllm:generation_tokens_total") == client.engine.stats().generated_tokens
        assert value(client, "vllm:prefix_cache_hits_total") == client.engine.stats().prefix_hits


def test_answers_are_counted_by_how_they_end_and_measured(tmp_path):
    with fakes.server(tmp_path) as client:
        client.post("/v1/chat/completions", messages=HELLO)
        client.post("/v1/completions", prompt="abcd", max_tokens=3)
        with pytest.raises(KeyError):
            value(client, "kaito_hera_rejected_total", status="400")
        client.post("/v1/completions", prompt="abcd", max_tokens=30_000)
        found = scrape(client)
        assert found["vllm:request_success_total", (("finished_reason", "stop"),)] == 1
        assert found["vllm:request_success_total", (("finished_reason", "length"),)] == 1
        assert found["kaito_hera_rejected_total", (("status", "400"),)] == 1
        assert found["vllm:request_generation_tokens_sum", ()] == 16 + 3
        assert found["vllm:request_prompt_tokens_count", ()] == 2
        assert found["vllm:inter_token_latency_seconds_count", ()] == 15 + 2
        for name in ("time_to_first_token_seconds", "request_queue_time_seconds", "request_prefill_time_seconds"):
            assert found[f"vllm:{name}_count", ()] == 2
        waits = found["vllm:request_queue_time_seconds_sum", ()] + found["vllm:request_prefill_time_seconds_sum", ()]
        assert waits == pytest.approx(found["vllm:time_to_first_token_seconds_sum", ()], abs=0.05)


def test_a_client_that_hangs_up_is_an_abort_and_a_failure_an_error(tmp_path):
    with fakes.server(tmp_path) as client:
        client.engine.gate.clear()
        body = {"messages": HELLO, "stream": True}
        with requests.post(client.url + "/v1/chat/completions", json=body, stream=True, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            assert value(client, "vllm:num_requests_running") == 1
        client.eventually(lambda: value(client, "vllm:request_success_total", finished_reason="abort") == 1)
        client.engine.fails = RequestFailed("lost it")
        client.post("/chat", prompt="p")
        assert value(client, "vllm:request_success_total", finished_reason="error") == 1
        assert value(client, "vllm:num_requests_running") == 0


def test_adapters_are_counted_and_named_while_they_are_in_use(tmp_path):
    with fakes.server(tmp_path, images=IMAGES, adapters=ADAPTERS) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)
        client.engine.gate.clear()
        body = {"messages": HELLO, "stream": True, "model": "poet"}
        with contextlib.closing(
            requests.post(client.url + "/v1/chat/completions", json=body, stream=True, timeout=60)
        ) as response:
            lines = response.iter_lines()
            next(lines)
            info = next(dict(labels) for name, labels in scrape(client) if name == "vllm:lora_requests_info")
            assert (info["running_lora_adapters"], info["max_lora"]) == ("poet", "1")
        assert value(client, "kaito_hera_adapter_requests_total", adapter="poet") == 1


def test_before_the_model_is_loaded_there_are_metrics_without_the_engines(tmp_path):
    with fakes.server(tmp_path, load=fakes.failing(OSError("no"))) as client:
        assert "vllm:num_requests_running" not in client.get("/metrics").text


def test_kaitos_json_tells_of_the_processors_where_there_is_no_gpu(tmp_path):
    with fakes.server(tmp_path) as client:
        told = client.get("/metrics.json").json()
        assert told["gpu_info"] is None
        assert told["cpu_info"]["total_cores"] >= 1
        assert re.fullmatch(r"\d+\.\d\d GB", told["cpu_info"]["memory"]["total"])


def test_many_who_ask_at_once_cost_one_look(tmp_path, monkeypatch):
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho once >>{asked}\nsleep 0.2\necho '0, NVIDIA L4, 5, 40, 1024, 23034'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with fakes.server(tmp_path) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        told = list(pool.map(lambda _: client.get("/metrics.json").json()["gpu_info"][0]["name"], range(40)))
        looks = 1 + (time.monotonic() - began) // figures.FRESH_SECONDS
    assert told == ["NVIDIA L4"] * 40
    assert len(asked.read_text().split()) <= looks


def test_gpus_are_told_in_kaitos_words():
    told = "0, NVIDIA A100 80GB PCIe, 25, 55, 1024, 81920\n1, Other, [N/A], [N/A], 0, 81920\n"
    first, second = figures.parse_gpus(told)
    assert first == {
        "id": "0", "name": "NVIDIA A100 80GB PCIe", "load": "25.00%", "temperature": "55 C",
        "memory": {"used": "1.00 GB", "total": "80.00 GB"},
    }  # fmt: skip
    assert (second["load"], second["temperature"]) == ("[N/A]", "[N/A]")


def test_the_example_for_keda_asks_for_what_is_there():
    example = yaml.safe_load((Path(__file__).parents[2] / "examples/scaling/keda.yaml").read_text())
    queries = " ".join(trigger["metadata"]["query"] for trigger in example["spec"]["triggers"])
    asked = re.findall(r"vllm:\w+", queries)
    assert asked
    assert set(asked) <= set(BOARDS)
