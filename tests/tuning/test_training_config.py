import json

import pytest

from tuning import training_config, training_keys
from tuning.config import TuningConfig
from tuning.training_config import TrainingConfig, parse

# what KAITO's charts shipped, by the first release that had it
STOCK_2024_04 = """
training_config:
  ModelConfig: {torch_dtype: "bfloat16", local_files_only: true, device_map: "auto"}
  TokenizerParams: {padding: true, truncation: true}
  QuantizationConfig: {QUANTIZATION}
  LoraConfig: {r: 16, lora_alpha: 32, target_modules: "query_key_value", lora_dropout: 0.05, bias: "none"}
  TrainingArguments: {output_dir: "/mnt/results", num_train_epochs: 4, auto_find_batch_size: true,
                      ddp_find_unused_parameters: false, save_strategy: "epoch"}
  DatasetConfig: {shuffle_dataset: true, train_test_split: 1}
  DataCollator: {mlm: true}
"""
STOCK_V0_3 = """
training_config:
  ModelConfig:  # a comment
    torch_dtype: "bfloat16"
    local_files_only: true
    device_map: "auto"

  QuantizationConfig: {QUANTIZATION}

  LoraConfig: {r: 8, lora_alpha: 8, lora_dropout: 0.0}

  TrainingArguments:
    output_dir: "/mnt/results"
    # num_train_epochs: <Defaults to 3, adjustable>
    ddp_find_unused_parameters: false
    save_strategy: "epoch"
    per_device_train_batch_size: 1

  DataCollator: {mlm: true}
  DatasetConfig: {shuffle_dataset: true, train_test_split: 1}
"""
STOCK_V0_12 = STOCK_V0_3.replace('"epoch"', '"no"')
EXAMPLE_PHI_3 = STOCK_V0_3.replace("lora_dropout: 0.0", "target_modules: [q_proj, k_proj, v_proj, o_proj]").replace(
    "per_device_train_batch_size: 1", "per_device_train_batch_size: 2"
)
QUANTIZATION = {
    "lora": "{load_in_4bit: false}",
    "qlora": "{load_in_4bit: true, bnb_4bit_quant_type: nf4, bnb_4bit_compute_dtype: bfloat16,"
    " bnb_4bit_use_double_quant: true}",
}


def stock(text, method):
    return text.replace("{QUANTIZATION}", QUANTIZATION[method])


def one(section, key, value, method="qlora"):
    return parse(f"training_config: {{{section}: {{{key}: {value}}}}}", method)


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("text", [STOCK_2024_04, STOCK_V0_3, STOCK_V0_12, EXAMPLE_PHI_3])
def test_stock_maps_of_all_eras_parse(text, method):
    config = parse(stock(text, method), method)
    assert config.model.torch_dtype == "bfloat16"
    assert bool(config.quantization.load_in_4bit) == (method == "qlora")
    assert config.lora.lora_alpha in (8, 32)


def test_the_newest_stock_map_needs_one_warning():
    config = parse(stock(STOCK_V0_12, "qlora"), "qlora")
    assert [warning.split(":")[0] for warning in config.warnings] == ["DataCollator.mlm"]


def test_the_oldest_stock_map_is_told_what_has_no_effect():
    config = parse(stock(STOCK_2024_04, "lora"), "lora")
    assert config.lora.target_modules == ("query_key_value",)
    told = {warning.split(":")[0] for warning in config.warnings}
    assert told == {
        "TokenizerParams",
        "TrainingArguments.auto_find_batch_size",
        "TrainingArguments.save_strategy",
        "DataCollator.mlm",
    }


def test_silence_has_good_defaults():
    config = parse("training_config: {}", "qlora")
    assert config == TrainingConfig()
    assert config.arguments.learning_rate == 2e-4
    assert config.arguments.lr_scheduler_type == "cosine"
    assert config.arguments.warmup_ratio == 0.03
    assert (config.arguments.num_train_epochs, config.arguments.max_length) == (3, 2048)
    assert (config.arguments.per_device_train_batch_size, config.arguments.gradient_accumulation_steps) == (2, 4)
    assert (config.lora.r, config.lora.lora_alpha, config.lora.target_modules) == (8, 16, ())
    assert config.dataset.loss == "answers"
    assert config.warnings == ()


def test_defaults_follow_what_is_given():
    assert one("LoraConfig", "r", 32).lora.lora_alpha == 64
    assert one("TrainingArguments", "per_device_train_batch_size", 16).arguments.gradient_accumulation_steps == 1


@pytest.mark.parametrize(
    "empty", ["training_config:", "training_config: {LoraConfig: }", "training_config: {LoraConfig: {r: null}}"]
)
def test_null_is_silence(empty):
    assert parse(empty, "qlora") == TrainingConfig()


def test_an_absolute_output_dir_is_joined_to_mnt_as_with_kaito():
    assert one("TrainingArguments", "output_dir", "/etc") == TrainingConfig()


def test_numbers_that_yaml_takes_for_text():
    assert one("TrainingArguments", "learning_rate", "2e-4").arguments.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [(section, old, new) for section, names in training_keys.RENAMED.items() for old, new in names.items()],
)
def test_other_releases_names_are_honoured_with_a_warning(section, old, new):
    values = {"activation_checkpointing": "true", "torch_dtype": "float16", "eval_strategy": "steps"}
    value = values.get(new, 64)
    config = one(section, old, value)
    field = training_config.SECTIONS[section][0]
    assert getattr(getattr(config, field), new) in (True, 64, "float16", "steps")
    assert config.warnings == (f"{section}.{old}: is called {new} here, and is honoured",)


KAITOS_OWN = """
training_config:
  ModelConfig: {pretrained_model_name_or_path: /workspace/tfs/weights, state_dict: null, cache_dir: null,
                from_tf: false, force_download: false, resume_download: false, proxies: null,
                output_loading_info: false,
                local_files_only: false, revision: main, trust_remote_code: false, load_in_4bit: false,
                load_in_8bit: false, torch_dtype: null, device_map: auto, chat_template: null}
  QuantizationConfig: {quant_method: bitsandbytes, load_in_8bit: false, load_in_4bit: true, llm_int8_threshold: 6.0,
                       llm_int8_skip_modules: null, llm_int8_enable_fp32_cpu_offload: false,
                       llm_int8_has_fp16_weight: false, bnb_4bit_compute_dtype: float32, bnb_4bit_quant_type: fp4,
                       bnb_4bit_use_double_quant: false}
  LoraConfig: {init_lora_weights: true, target_modules: null, layers_to_transform: null, layers_pattern: null,
               loftq_config: {}}
  DatasetConfig: {dataset_path: null, dataset_extension: null, shuffle_dataset: true, shuffle_seed: 42,
                  context_column: null, response_column: text, messages_column: null, train_test_split: 0.8}
"""


def test_the_defaults_of_kaitos_own_classes_written_out_need_no_warning():
    config = parse(KAITOS_OWN, "qlora")
    assert config.warnings == ()
    assert config.dataset.train_test_split == 0.8


def test_idle_keys_are_never_silent_unless_they_ask_for_what_happens_anyway():
    for section, keys in training_keys.IDLE.items():
        for key, idle in keys.items():
            warned = one(section, key, "surely-not-the-default").warnings
            assert [warning.split(":")[0] for warning in warned] == [f"{section}.{key}"]
            for harmless in idle.harmless:
                assert one(section, key, json.dumps(harmless)).warnings == ()


def test_what_the_server_cannot_load_is_not_trained():
    config = one("LoraConfig", "use_dora", "true")
    assert config.lora == TrainingConfig().lora
    (warning,) = config.warnings
    assert warning.startswith("LoraConfig.use_dora: ")
    assert "not among the LoRA variants that the server can load" in warning


def test_no_key_is_both_idle_and_used():
    for section, (_, kind) in training_config.SECTIONS.items():
        assert not set(training_keys.IDLE[section]) & set(kind.model_fields)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("all-linear", ()),
        ("[all-linear]", ()),
        ("q_proj", ("q_proj",)),
        ("'q_proj, k_proj'", ("q_proj", "k_proj")),
        ("[q_proj, o_proj]", ("q_proj", "o_proj")),
    ],
)
def test_target_modules_as_kaito_takes_them(written, meant):
    assert one("LoraConfig", "target_modules", written).lora.target_modules == meant


def test_a_one_line_template_has_its_escapes_resolved():
    config = parse("training_config: {ModelConfig: {chat_template: '{{ messages }}\\n'}}", "lora")
    assert config.model.chat_template == "{{ messages }}\n"


def test_a_template_keeps_its_letters():
    config = parse("training_config:\n  ModelConfig:\n    chat_template: '{{ messages }} \\n é'", "lora")
    assert "é" in config.model.chat_template


def test_kaitos_template_files_mean_the_models_own_template():
    config = one("ModelConfig", "chat_template", "/workspace/chat_templates/phi-3.jinja")
    assert config.model.chat_template is None
    assert config.warnings[0].startswith("ModelConfig.chat_template: ")


def test_it_travels_as_json_inside_the_tuning_config():
    config = parse(stock(EXAMPLE_PHI_3, "qlora"), "qlora")
    whole = TuningConfig(
        workspace="a/b",
        preset="p",
        model={"id": "x/y", "revision": "main"},
        method="qlora",
        training=config,
        input={"urls": ["https://example.com/a"]},
        output={"image": "example.com/a:b"},
        intent="i",
    )
    assert TuningConfig.model_validate_json(whole.model_dump_json()) == whole


def test_it_is_frozen_and_strict():
    with pytest.raises(ValueError, match="frozen"):
        TrainingConfig().lora.r = 3
    with pytest.raises(ValueError, match="extra"):
        TrainingConfig.model_validate({"lora": {"rr": 3}})


@pytest.mark.parametrize(
    ("written", "told", "warned"),
    [
        ("none", (), ""),
        ("[none]", (), ""),
        ("wandb", ("wandb",), ""),
        ("[mlflow, wandb, mlflow]", ("mlflow", "wandb"), ""),
        ("all", ("wandb", "mlflow", "tensorboard"), ""),
        ("[comet_ml, tensorboard]", ("tensorboard",), "report_to: comet_ml are told nothing"),
    ],
)
def test_trackers_that_are_told(written, told, warned):
    found = training_config.parse(f"training_config: {{TrainingArguments: {{report_to: {written}}}}}", "lora")
    assert found.arguments.report_to == told
    assert [warned in each for each in found.warnings] == ([True] if warned else [])
