"""The keys of an inference_config.yaml that our engine cannot honour, and why: data for `inference_config`.

They are the options of vLLM's server from 0.6 to 0.33, since KAITO hands every key on to it. `IDLE` ones decide nothing
here and become warnings, unless they ask for what happens anyway. `REFUSED` ones would change who may ask, what is
answered or what is served: to go on without them would be to do something else than was asked.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

SECRET = frozenset({"api-key", "hf-token"})
"""Keys whose values nobody may read in a message."""


class Key(NamedTuple):
    """Why a key cannot be honoured."""

    reason: str
    harmless: tuple[Any, ...] = ()
    """Values that ask for what happens anyway."""


def _keys(reason: str, keys: str, harmless: tuple[Any, ...] = ()) -> Iterator[tuple[str, Key]]:
    return ((key, Key(reason, harmless)) for key in keys.split())


TOP: Mapping[str, Key] = {
    "max_probe_steps": Key("the context is not probed for, it is vllm.max-model-len or the model's own", (0, 6)),
    "kv_cache_cpu_memory_utilization": Key("the cache of keys and values never leaves the GPU", (0,)),
}
"""KAITO's own keys beside `vllm`. 6 steps, like 4 GiB of swap space below, are what its template has always written."""

_MEMORY = (
    *_keys("the engine takes the memory that weights and cache need", "gpu-memory-utilization kv-cache-memory-bytes"),
    *_keys("weights and cache never leave the GPU", "swap-space", (0, 4)),
    *_keys("weights and cache never leave the GPU", "cpu-offload-gb", (0,)),
    *_keys(
        "weights and cache never leave the GPU",
        "kv-offloading-size kv-offloading-backend offload-group-size offload-num-in-group offload-prefetch-step "
        "offload-params preemption-mode",
    ),
    *_keys("the cache has the number type of the model", "kv-cache-dtype calculate-kv-scales", ("auto", False)),
    *_keys("the cache is not made of blocks", "block-size num-gpu-blocks-override num-lookahead-slots"),
    *_keys(
        "the cache is not made of blocks",
        "use-v2-block-manager disable-hybrid-kv-cache-manager kv-sharing-fast-prefill",
        (True, False),
    ),
    *_keys("the cache is the model's own", "mamba-cache-dtype mamba-ssm-cache-dtype mamba-block-size mamba-cache-mode"),
)

_PARALLEL = (
    *_keys(
        "a model that one GPU does not hold is laid onto all of its node; further servers come with resource.count",
        "tensor-parallel-size pipeline-parallel-size data-parallel-size data-parallel-size-local nnodes "
        "prefill-context-parallel-size decode-context-parallel-size",
        (1,),
    ),
    *_keys(
        "a model that one GPU does not hold is laid onto all of its node; further servers come with resource.count",
        "distributed-executor-backend data-parallel-rank data-parallel-start-rank data-parallel-address "
        "data-parallel-rpc-port data-parallel-hybrid-lb data-parallel-external-lb data-parallel-backend "
        "enable-expert-parallel all2all-backend enable-dbo ubatch-size dbo-decode-token-threshold eplb-config "
        "dbo-prefill-token-threshold disable-nccl-for-dp-synchronization enable-eplb expert-placement-strategy "
        "master-addr master-port node-rank max-parallel-loading-workers disable-custom-all-reduce num-gpus "
        "dcp-kv-cache-interleave-size cp-kv-cache-interleave-size ray-workers-use-nsight worker-cls "
        "worker-extension-cls api-server-count headless",
        (False,),
    ),
)

_SCHEDULING = (
    *_keys(
        "as many requests are answered together as the memory holds, and others wait",
        "max-num-seqs max-num-batched-tokens max-num-partial-prefills max-long-partial-prefills "
        "long-prefill-token-threshold scheduler-delay-factor scheduler-cls stream-interval",
    ),
    *_keys("each token is a step of its own", "num-scheduler-steps", (1,)),
    *_keys(
        "prompts are read in chunks, and what they begin with in common is read once, in any case",
        "enable-chunked-prefill enable-prefix-caching",
        (True,),
    ),
    *_keys("requests are answered in the order in which they come", "scheduling-policy", ("fcfs",)),
    *_keys(
        "this engine has no such stage",
        "prefix-caching-hash-algo async-scheduling disable-cascade-attn "
        "multi-step-stream-outputs disable-async-output-proc disable-chunked-mm-input enable-sleep-mode",
        (False,),
    ),
    *_keys(
        "this engine compiles nothing",
        "max-seq-len-to-capture cudagraph-capture-sizes max-cudagraph-capture-size compilation-config "
        "optimization-level additional-config performance-mode",
    ),
    *_keys("this engine compiles nothing", "enforce-eager", (True,)),
    *_keys(
        "attention is transformers' own",
        "attention-backend attention-config override-attention-dtype disable-sliding-window model-impl",
        ("auto", "transformers", False),
    ),
    *_keys(
        "tokens are made one by one; the answers are the same",
        "speculative-config speculative-model speculative-model-quantization num-speculative-tokens "
        "speculative-disable-mqa-scorer speculative-draft-tensor-parallel-size speculative-max-model-len "
        "speculative-disable-by-batch-size ngram-prompt-lookup-max ngram-prompt-lookup-min "
        "spec-decoding-acceptance-method typical-acceptance-sampler-posterior-threshold "
        "typical-acceptance-sampler-posterior-alpha disable-logprobs-during-spec-decoding",
    ),
)

_LOADING = (
    *_keys("weights are downloaded once, then read from safetensors files", "download-dir model-loader-extra-config"),
    *_keys(
        "weights are downloaded once, then read from safetensors files",
        "load-format config-format tokenizer-mode safetensors-load-strategy",
        ("auto", "hf", "safetensors"),
    ),
    *_keys(
        "weights are downloaded once, then read from safetensors files",
        "ignore-patterns use-tqdm-on-load pt-load-map-location",
    ),
    *_keys("models run on transformers' own classes, never on code from the hub", "trust-remote-code", (False,)),
    *_keys("inference.preset.presetOptions.modelAccessSecret has the token", "hf-token"),
    *_keys("the device is the GPU", "device", ("auto", "cuda")),
    *_keys("adapters of every number and rank are loaded", "enable-lora", (True,)),
    *_keys(
        "adapters of every number and rank are loaded",
        "max-loras max-lora-rank max-cpu-loras lora-dtype lora-extra-vocab-size fully-sharded-loras enable-lora-bias "
        "long-lora-scaling-factors specialize-active-lora enable-tower-connector-lora",
    ),
    *_keys(
        "only text is read and written",
        "limit-mm-per-prompt mm-processor-kwargs mm-processor-cache-gb mm-processor-cache-type mm-encoder-only "
        "mm-encoder-tp-mode mm-encoder-attn-backend mm-shm-cache-max-object-size-mb enable-mm-embeds "
        "disable-mm-preprocessor-cache interleave-mm-strings media-io-kwargs skip-mm-profiling video-pruning-rate "
        "io-processor-plugin allowed-local-media-path allowed-media-domains enable-prompt-embeds "
        "enable-mm-processor-stats",
    ),
)

_API = (
    *_keys(
        "calls of tools are read in the way that the chat template teaches",
        "enable-auto-tool-choice tool-parser-plugin tool-server exclude-tools-when-tool-choice-none",
        (False,),
    ),
    *_keys("what a model thinks is part of its answer", "reasoning-parser reasoning-parser-plugin enable-reasoning"),
    *_keys("llguidance gives answers their form", "guided-decoding-backend"),
    *_keys("llguidance gives answers their form", "structured-outputs-config"),
    *_keys("a request may ask for the 20 likeliest tokens", "max-logprobs logprobs-mode return-tokens-as-token-ids"),
    *_keys("a request without a seed is drawn anew each time", "seed"),
    *_keys("messages are text", "chat-template-content-format", ("auto", "string")),
    *_keys("the answer's role is assistant", "response-role", ("assistant",)),
    *_keys(
        "no such headers are sent; let a gateway add them",
        "allowed-origins allowed-methods allowed-headers allow-credentials",
    ),
    *_keys("every answer has X-Request-Id", "enable-request-id-headers", (True,)),
    *_keys("paths begin at /; let a gateway take the prefix away", "root-path", ("", "/")),
    *_keys("a template in a request is refused", "trust-request-chat-template", (False,)),
    *_keys(
        "logs, metrics and documents of the server are as they are",
        "uvicorn-log-level disable-uvicorn-access-log disable-access-log-for-endpoints log-config-file max-log-len "
        "disable-log-requests enable-log-requests enable-log-outputs enable-log-deltas disable-log-stats "
        "aggregate-engine-logging log-error-stack otlp-traces-endpoint collect-detailed-traces kv-cache-metrics "
        "kv-cache-metrics-sample cudagraph-metrics enable-layerwise-nvtx-tracing enable-mfu-metrics profiler-config "
        "enable-logging-iteration-details show-hidden-metrics-for-version enable-server-load-tracking "
        "enable-prompt-tokens-details enable-per-request-metrics enable-force-include-usage disable-fastapi-docs "
        "enable-tokenizer-info-endpoint h11-max-incomplete-event-size h11-max-header-count fingerprint-mode "
        "fingerprint-value disable-frontend-multiprocessing tokenizer-pool-size tokenizer-pool-type "
        "tokenizer-pool-extra-config engine-use-ray enable-offline-docs kv-events-config",
    ),
)

IDLE: Mapping[str, Key] = dict([*_MEMORY, *_PARALLEL, *_SCHEDULING, *_LOADING, *_API])

REFUSED: Mapping[str, Key] = dict(
    [
        *_keys(
            "a ConfigMap keeps no secret; take it out, put the key as API_KEY into a Secret and name that in the"
            " annotation kaito.sh/api-key-secret",
            "api-key",
        ),
        *_keys(
            "this server speaks plain HTTP; take it out and let a gateway in front of the Service speak TLS",
            "ssl-keyfile ssl-certfile ssl-ca-certs ssl-cert-reqs ssl-ciphers enable-ssl-refresh",
        ),
        *_keys("the Service leads to port 5000; take it out", "port", (5000,)),
        *_keys("the server listens on all of its pod's addresses; take it out", "host", ("0.0.0.0", "::")),  # noqa: S104
        *_keys("the server listens on a port, not on a file; take it out", "uds"),
        *_keys(
            "what is served is the preset, as it is on the hub at its pinned revision; take it out, or name another"
            " model in inference.preset.name",
            "model tokenizer revision code-revision tokenizer-revision hf-config-path hf-overrides rope-scaling "
            "rope-theta skip-tokenizer-init model-weights",
        ),
        *_keys(
            "weights are served as the model's files have them, and that is found by itself; take it out, or name a"
            " preset whose files are quantised",
            "quantization quantization-config allow-deprecated-quantization load-in-4bit",
            (False,),
        ),
        *_keys("only text generation is served; take it out", "task runner convert", ("auto", "generate", "none")),
        *_keys("only text generation is served; take it out", "pooler-config override-pooler-config"),
        *_keys(
            "adapters come from inference.adapters; list them there and take it out",
            "lora-modules qlora-adapter-name-or-path prompt-adapters default-mm-loras",
        ),
        *_keys("adapters are LoRA's; take it out", "enable-prompt-adapter", (False,)),
        *_keys(
            "the model's own defaults hold; take it out and send the values with each request",
            "generation-config override-generation-config",
            ("auto",),
        ),
        *_keys(
            "a template gets messages and nothing else; take it out and write it into chat-template",
            "default-chat-template-kwargs",
        ),
        *_keys(
            "no code of others runs in the server; take it out",
            "middleware logits-processors logits-processor-pattern",
        ),
        *_keys(
            "prompts are read and answered by the same server; take it out",
            "kv-transfer-config ec-transfer-config tokens-only weight-transfer-config",
            (False,),
        ),
    ]
)
