"""inference_config.yaml: KAITO's files of every release, what is honoured of them, and what is said of the rest."""

import pytest

from serving import inference_keys
from serving.inference_config import InferenceConfig, parse

KAITO = {
    "v0.4.1 template": (
        (
            "max_probe_steps: 6\nvllm:\n  cpu-offload-gb: 0\n  gpu-memory-utilization: 0.95\n  swap-space: 4\n"
            "  # max-seq-len-to-capture: 8192\n"
        ),
        {},
        ("gpu-memory-utilization",),
    ),
    "v0.4.5 custom": (
        (
            "# Maximum number of steps to find the max available seq len\nmax_probe_steps: 6\n"
            "vllm:\n  cpu-offload-gb: 0\n  gpu-memory-utilization: 0.95\n  swap-space: 4\n  max-model-len: 131072\n"
            "  max-seq-len-to-capture: 8192\n  num-scheduler-steps: 1\n  enable-chunked-prefill: true\n"
            "  tensor-parallel-size: 2\n"
        ),
        {"max_model_len": 131072},
        ("gpu-memory-utilization", "max-seq-len-to-capture", "tensor-parallel-size"),
    ),
    "v0.4.6 tool calling": (
        (
            "max_probe_steps: 6\nvllm:\n  cpu-offload-gb: 0\n  swap-space: 4\n  max-model-len: 4096\n"
            "  tool-call-parser: phi4_mini_json\n"
            '  chat-template: "/workspace/chat_templates/tool-chat-phi4-mini.jinja"\n'
        ),
        {"max_model_len": 4096, "tool_call_parser": "phi4_mini_json"},
        ("chat-template",),
    ),
    "a parser that is not here": ("vllm: {tool_call_parser: deepseek_v3}\n", {}, ("tool-call-parser",)),
    "v0.6 multi-node": (
        "vllm:\n  gpu-memory-utilization: 0.95\n  max-model-len: 163840\n",
        {"max_model_len": 163840},
        ("gpu-memory-utilization",),
    ),
    "v0.7 gpt-oss": (
        "kv_cache_cpu_memory_utilization: 0.5\nmax_probe_steps: 6\nvllm:\n  gpu-memory-utilization: 0.82\n",
        {},
        ("kv_cache_cpu_memory_utilization", "gpu-memory-utilization"),
    ),
    "e2e tests": (
        "vllm:\n  swap-space: 4\n  served-model-name: test\n  dtype: float16\n  max_model_len: 1024\n",
        {"served_model_name": "test", "dtype": "float16", "max_model_len": 1024},
        (),
    ),
    "v0.12 template": ("kv_cache_cpu_memory_utilization: 0\nvllm:\n  cpu-offload-gb: 0\n", {}, ()),
}


@pytest.mark.parametrize("era", KAITO)
def test_kaito_s_own_files_are_taken(era):
    text, honoured, without_effect = KAITO[era]
    config, warnings = parse(text)
    assert config == InferenceConfig(**honoured)
    assert [warning.split(": ")[1].removeprefix("vllm.") for warning in warnings] == list(without_effect)


@pytest.mark.parametrize("text", ["", "# nothing\n", "vllm:\n", "vllm: {}\n", "vllm: {max-model-len: null}\n"])
def test_silence_is_nothing(text):
    assert parse(text) == (InferenceConfig(), ())


@pytest.mark.parametrize(
    ("written", "tokens"),
    [("4096", 4096), ("'4096'", 4096), ("16k", 16000), ("16K", 16384), ("1.5K", 1536), ("auto", None), ("-1", None)],
)
def test_lengths_as_vllm_reads_them(written, tokens):
    assert parse(f"vllm: {{max-model-len: {written}}}")[0].max_model_len == tokens


@pytest.mark.parametrize(
    ("written", "kind"), [("half", "float16"), ("float", "float32"), ("bfloat16", "bfloat16"), ("auto", "auto")]
)
def test_number_types_by_all_their_names(written, kind):
    assert parse(f"vllm: {{dtype: {written}}}")[0].dtype == kind


def test_a_template_is_taken_with_its_escapes_in_one_line_or_many():
    one, _ = parse(r"""vllm: {chat-template: '{% for m in messages %}{{ m.content }}\n{% endfor %}'}""")
    many, _ = parse("vllm:\n  chat-template: |\n    {% for m in messages %}{{ m.content }}\n    {% endfor %}\n")
    assert one.chat_template == "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert many.chat_template == one.chat_template + "\n"
    assert parse("vllm: {chat-template: 'é{{ m }}\\n'}")[0].chat_template == "é{{ m }}\\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vllm: {max-model-len: ten}", "vllm.max-model-len: 'ten' is no number of tokens; write a whole number"),
        ("vllm: {max-model-len: true}", "vllm.max-model-len: True is no number of tokens"),
        ("vllm: {max-model-len: 4096.5}", "vllm.max-model-len: 4096.5 is no number of tokens"),
        ("vllm: {max-model-len: 0}", "vllm.max-model-len: 0 leaves no room"),
        ("vllm: {max-model-len: [1]}", "vllm.max-model-len: [1] is no number of tokens"),
        (f"vllm: {{max-model-len: {'9' * 5000}}}", "inference_config.yaml: "),
        ("vllm: {max-model-lenght: 1}", "vllm.max-model-lenght: unknown key with value 1; did you mean max-model-len?"),
        ("max-model-len: 1", "max-model-len: unknown key with value 1; it belongs below vllm, as max-model-len"),
        ("vllm: {max_probe_steps: 6}", "max_probe_steps belongs beside vllm, not below it"),
        ("vlm: {}", "vlm: unknown key with value {}; did you mean vllm?"),
        ("vllm: {max-model-len: 1024, max_model_len: 2048}", "max_model_len: is there twice, as max-model-len too"),
        ("vllm: {dtype: float16, dtype: auto}", "dtype is written twice; keep one of them"),
        ("vllm: {dtype: int8}", "vllm.dtype: 'int8' is no number type; write one of auto, bfloat16"),
        ("vllm: {served-model-name: [a, b]}", "vllm.served-model-name: ['a', 'b'] has not one name"),
        ("vllm: {served-model-name: 'a b'}", "vllm.served-model-name: 'a b' is no name that clients can ask for"),
        ("vllm: {chat-template: /data/mine.jinja}", "is a path, but there is no such file where the server runs"),
        (f"vllm: {{chat-template: '{{{{{'x' * 70_000}}}}}'}}", "is longer than 65,536 bytes"),
        ("vllm: {quantization: fp8}", "vllm.quantization: 'fp8' cannot be honoured: weights are served as"),
        ("vllm: {port: 8000}", "vllm.port: 8000 cannot be honoured: the Service leads to port 5000"),
        ("vllm: {model: other}", "vllm.model: 'other' cannot be honoured"),
        (
            "vllm: {api-key: k}",
            "a ConfigMap keeps no secret; take it out, put the key as API_KEY into a Secret and name",
        ),
        ("vllm: {task: embed}", "vllm.task: 'embed' cannot be honoured: only text generation is served"),
        ("vllm: {ssl-keyfile: /k}", "vllm.ssl-keyfile: '/k' cannot be honoured: this server speaks plain HTTP"),
        ("vllm: {lora-modules: a=/b}", "cannot be honoured: adapters come from inference.adapters"),
        ("vllm: [a]", "vllm is ['a'], but it must be a map"),
        ("- a", "is ['a'], but it must be a map"),
        ("vllm: {a: [", "no YAML that can be read"),
        ("when: 2026-99-99", "no YAML that can be read"),
        ("[" * 5000, "no YAML that can be read"),
    ],
)
def test_what_cannot_be_honoured_is_told_with_value_and_remedy(text, words):
    with pytest.raises(ValueError, match=r"^inference_config.yaml: ") as raised:
        parse(text)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 1200


def test_every_problem_is_told_up_to_five():
    with pytest.raises(ValueError, match=r"vllm.a: .*vllm.b: .*; and 2 more"):
        parse("vllm: {a: 1, b: 1, c: 1, d: 1, e: 1, f: 1, g: 1}")


def test_a_secret_is_never_shown():
    with pytest.raises(ValueError, match=r"vllm.api-key: \(not shown\) cannot be honoured") as raised:
        parse("vllm: {api-key: swordfish}")
    assert "swordfish" not in str(raised.value)
    assert "swordfish" not in str(parse("vllm: {hf_token: swordfish}")[1])


def test_keys_with_parts_and_opposites_are_those_that_they_are_of():
    _, warnings = parse(
        "vllm: {compilation-config.level: 3, no-enable-prefix-caching: true, no-enable-chunked-prefill: false}"
    )
    assert [warning.split(": ")[1] for warning in warnings] == [
        "vllm.compilation-config.level",
        "vllm.no-enable-prefix-caching",
    ]


@pytest.mark.parametrize("key", ["swap-space", "cpu-offload-gb", "tensor-parallel-size", "port", "enable-lora", "task"])
def test_a_value_that_asks_for_what_happens_anyway_is_no_word_worth(key):
    known = {**inference_keys.IDLE, **inference_keys.REFUSED}[key]
    for value in known.harmless:
        assert parse(f"vllm: {{{key}: {value}}}") == (InferenceConfig(), ())
        assert parse(f"vllm: {{{key}: '{value}'}}") == (InferenceConfig(), ())


def test_no_key_is_in_two_lists():
    assert not inference_keys.IDLE.keys() & inference_keys.REFUSED.keys()


def test_an_alias_bomb_is_survived():
    bomb = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 8)}]\n" for n in range(12)
    )
    with pytest.raises(ValueError, match="unfolds to more than") as raised:
        parse(bomb)
    assert len(str(raised.value)) < 2000
