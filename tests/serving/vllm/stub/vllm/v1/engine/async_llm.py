"""The engine: the recorded signatures of AsyncLLM, and under them a tiny real model."""

import asyncio
from types import SimpleNamespace

import peft
import torch
import transformers

from vllm import made
from vllm.exceptions import VLLMClientError
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor import over_ray

CompletionOutput = made("vllm/outputs.py", "CompletionOutput")
Logprob = made("vllm/logprobs.py", "Logprob")
SchedulerStats = made("vllm/v1/metrics/stats.py", "SchedulerStats")
CacheStats = made("vllm/v1/metrics/stats.py", "BaseCacheStats")


class UsageContext:
    """Who starts it."""

    ENGINE_CONTEXT = "engine"


class AsyncLLM:
    """One model; requests take turns at every token."""

    def __init__(self, engine_args, stat_loggers):
        self.args = engine_args
        if engine_args.distributed_executor_backend == "ray":
            shares, stages = engine_args.tensor_parallel_size, engine_args.pipeline_parallel_size
            self.workers = over_ray.started(shares * stages, stages)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(engine_args.model, dtype=torch.float32).eval()
        text = self.model.config.get_text_config()
        self.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(
                hf_text_config=text,
                dtype=torch.float32,
                max_model_len=text.max_position_embeddings if engine_args.max_model_len == -1
                else engine_args.max_model_len,
            ),
            scheduler_config=SimpleNamespace(max_num_seqs=engine_args.max_num_seqs or 256),
        )  # fmt: skip
        self.loggers = [make(self.vllm_config, 0) for make in stat_loggers]
        for logger in self.loggers:
            logger.log_engine_initialized()
        self.loaded = {}
        self.seen = []
        self.aborted = set()
        self.open = set()
        self.dead = False
        self.gate = asyncio.Event()
        self.gate.set()

    @classmethod
    def from_engine_args(
        cls,
        engine_args,
        start_engine_loop=True,  # noqa: FBT002 (vLLM's)
        usage_context=UsageContext.ENGINE_CONTEXT,
        stat_loggers=None,
    ):
        return cls(engine_args, stat_loggers)

    async def generate(
        self, prompt, sampling_params, request_id, *, prompt_text=None, lora_request=None, tokenization_kwargs=None,
        trace_headers=None, priority=0, data_parallel_rank=None, session_id=None, kv_hints=None, reasoning_ended=None,
        reasoning_parser_kwargs=None,
    ):  # fmt: skip
        self.seen.append(SimpleNamespace(params=sampling_params, lora=lora_request))
        if sampling_params.seed == 13:
            raise VLLMClientError("vLLM does not like this seed")
        self.open.add(request_id)
        tokens, finish = list(prompt["prompt_token_ids"]), None
        draw = torch.Generator().manual_seed(sampling_params.seed or 0)
        try:
            while finish is None:
                await self.gate.wait()
                await asyncio.sleep(0)
                if self.dead:
                    raise EngineDeadError("EngineCore encountered an issue.")
                if request_id in self.aborted:
                    yield self._output(request_id, [], "abort", None)
                    return
                scores = self._scores(tokens, lora_request)
                token = self._choose(scores, sampling_params, len(tokens) - len(prompt["prompt_token_ids"]), draw)
                tokens.append(token)
                made_so_far = len(tokens) - len(prompt["prompt_token_ids"])
                finish = "stop" if token in sampling_params.stop_token_ids else None
                finish = finish or ("length" if made_so_far == sampling_params.max_tokens else None)
                self._record()
                yield self._output(request_id, [token], finish, self._likely(scores, token, sampling_params.logprobs))
        finally:
            self.open.discard(request_id)

    async def abort(self, request_id, internal=False):  # noqa: FBT002 (vLLM's)
        self.aborted.update([request_id] if isinstance(request_id, str) else request_id)
        self.gate.set()

    async def add_lora(self, lora_request):
        self._with(lora_request)
        return True

    async def remove_lora(self, lora_id):
        return self.loaded.pop(lora_id, None) is not None

    def shutdown(self, timeout=None):
        self.dead = True

    @property
    def errored(self):
        return self.dead

    @property
    def dead_error(self):
        return EngineDeadError("EngineCore encountered an issue.")

    def _with(self, lora):
        """The model with an adapter, scaled as its config says."""
        if lora is None:
            return self.model
        if lora.lora_int_id not in self.loaded:
            base = transformers.AutoModelForCausalLM.from_pretrained(self.args.model, dtype=torch.float32)
            self.loaded[lora.lora_int_id] = peft.PeftModel.from_pretrained(base, lora.lora_path).eval()
        return self.loaded[lora.lora_int_id]

    def _scores(self, tokens, lora):
        with torch.inference_mode():
            return self._with(lora)(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].float()

    def _choose(self, scores, params, done, draw):
        scores = scores.clone()
        for token, bias in (params.logit_bias or {}).items():
            scores[token] += bias
        if done < params.min_tokens:
            scores[params.stop_token_ids] = -torch.inf
        if params.temperature == 0:
            return int(scores.argmax())
        if params.top_k:
            scores[scores < scores.topk(params.top_k).values[-1]] = -torch.inf
        return int(torch.multinomial((scores / params.temperature).softmax(-1), 1, generator=draw))

    def _likely(self, scores, token, wanted):
        if wanted is None:
            return None
        logs = scores.log_softmax(-1)
        order = logs.argsort(descending=True).tolist()
        shown = {*order[:wanted], token}
        # as vLLM's table, the chosen token comes first whatever its rank is
        found = sorted(shown, key=lambda each: each != token)
        return [{each: Logprob(float(logs[each]), order.index(each) + 1, None) for each in found}]

    def _output(self, request_id, tokens, finish, logprobs):
        answer = CompletionOutput(0, "", tokens, None, logprobs, finish_reason=finish)
        return SimpleNamespace(request_id=request_id, outputs=[answer], finished=finish is not None)

    def _record(self):
        scheduled = SchedulerStats(
            num_running_reqs=len(self.open), num_waiting_reqs=0, num_skipped_waiting_reqs=0, kv_cache_usage=0.25,
            prefix_cache_stats=CacheStats(queries=3, hits=1),
        )  # fmt: skip
        for logger in self.loggers:
            logger.record(scheduled, SimpleNamespace(num_preempted_reqs=0), mm_cache_stats=None, engine_idx=0)
