"""What of a training_config.yaml cannot be used is refused as it is read, not on a node whose GPU is paid for."""

import inspect
import typing

import pytest

from tuning import training_config, training_keys

RESTS = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}


def refused(text):
    with pytest.raises(ValueError, match=r"^training_config.yaml: ") as told:
        training_config.parse(f"training_config: {text}", "qlora")
    return str(told.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "training_config: {LoraConfig: {lora_apha: 3}}",
            "LoraConfig.lora_apha: unknown key with value 3; did you mean lora_alpha?",
        ),
        (
            "training_config: {LoraConfig: {learning_rate: 3}}",
            "LoraConfig.learning_rate: unknown key with value 3; it belongs into TrainingArguments",
        ),
        (
            "training_config: {TrainingArguments: {xyzzy: 3}}",
            "TrainingArguments.xyzzy: unknown key with value 3; remove it",
        ),
        ("training_config: {LoraConfg: {}}", "LoraConfg: unrecognized section; did you mean LoraConfig?"),
        (
            "training_config: {LoraConfig: {r: 0}}",
            "LoraConfig.r: 0 cannot be used; Input should be greater than or equal to 1",
        ),
        ("training_config: {LoraConfig: {init_lora_weights: pissa}}", "LoraConfig.init_lora_weights"),
        (
            "training_config: {TrainingArguments: {learning_rate: 2e4}}",
            "TrainingArguments.learning_rate: '2e4' cannot be used; Input should be less than",
        ),
        ("training_config: {TrainingArguments: {learning_rate: .nan}}", "finite number"),
        (
            "training_config: {TrainingArguments: {lr_scheduler_type: cosin}}",
            "TrainingArguments.lr_scheduler_type: 'cosin' cannot be used",
        ),
        (
            "training_config: {TrainingArguments: {packing: true, packing_strategy: wrapped}}",
            "packing_strategy: 'wrapped' cannot be used; Value error, it cuts rows in two",
        ),
        ("training_config: {DatasetConfig: {packing: true}}", "it belongs into TrainingArguments"),
        ("training_config: {DatasetConfig: {train_test_split: 0}}", "DatasetConfig.train_test_split: 0 cannot be used"),
        (
            "training_config: {QuantizationConfig: {load_in_4bit: 'true'}}",
            "QuantizationConfig.load_in_4bit: 'true' cannot be used; Input should be a valid boolean",
        ),
        (
            "training_config: {QuantizationConfig: {load_in_4bit: true, load_in_8bit: true}}",
            "load_in_4bit and load_in_8bit are both true; keep one",
        ),
        (
            "training_config: {QuantizationConfig: {load_in_4bit: false}}",
            "load_in_4bit is false, but the method is qlora",
        ),
        (
            "training_config: {TrainingArguments: {output_dir: ../etc}}",
            "TrainingArguments.output_dir: '../etc' is not a directory below /mnt",
        ),
        ("training_config: {TrainingArguments: {output_dir: /mnt}}", "TrainingArguments.output_dir: '/mnt' is not"),
        ("training_config: {TrainingArguments: {output_dir: /mnt/a/../..}}", "TrainingArguments.output_dir"),
        ("training_config: {TrainingArguments: {output_dir: 3}}", "TrainingArguments.output_dir: 3 is not"),
        (
            "training_config: {ModelConfig: {chat_template: /my/own.jinja}}",
            "ModelConfig.chat_template: '/my/own.jinja' is a path",
        ),
        ("training_config: {LoraConfig: {r: 8, r: 16}}", "r is written twice"),
        ("training_config: [LoraConfig]", "training_config is ['LoraConfig'], but it must be a map"),
        ("training_config: {LoraConfig: 8}", "LoraConfig is 8, but a section is a map"),
        ("LoraConfig: {r: 8}", "the top key training_config is missing, found {'LoraConfig': {'r': 8}}"),
        ("", "the top key training_config is missing, found None"),
        ("training_config: {", "this is no YAML"),
        ("[" * 20_000, "this is no YAML"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_value_and_the_way_out(text, words):
    with pytest.raises(ValueError) as raised:
        training_config.parse(text, "qlora")
    assert words in str(raised.value)
    assert len(str(raised.value)) < 1500


@pytest.mark.parametrize("key", ["load_in_4bit", "load_in_8bit"])
def test_lora_does_not_quantise(key):
    with pytest.raises(ValueError, match="is true with method lora"):
        training_config.parse(f"training_config: {{QuantizationConfig: {{{key}: true}}}}", "lora")


def test_several_errors_come_at_once():
    told = refused("{LoraConfig: {r: 0, x: 1}, TrainingArguments: {max_length: 1}}")
    assert all(key in told for key in ("LoraConfig.r", "LoraConfig.x", "TrainingArguments.max_length"))


def test_a_value_without_end_is_shown_in_part():
    text = "a: &a [x]\n" + "".join(
        f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}, *{'a' if n == 0 else f'b{n - 1}'}]\n" for n in range(40)
    )
    with pytest.raises(ValueError) as raised:
        training_config.parse(text + "training_config: *b39", "qlora")
    assert len(str(raised.value)) < 500


def test_a_key_under_both_names_is_refused():
    told = refused("{TrainingArguments: {max_seq_length: 64, max_length: 128}}")
    assert "TrainingArguments.max_seq_length: is another name of max_length" in told


def test_an_unknown_tracker_is_an_error():
    told = refused("{TrainingArguments: {report_to: wandbb}}")
    assert "TrainingArguments.report_to.0: 'wandbb' cannot be used" in told


@pytest.mark.parametrize(
    ("kind", "said", "words"),
    [
        ("cosine", "{num_cycle: 1}", "num_cycle: 1 is nothing that cosine knows; did you mean num_cycles?"),
        ("linear", "{power: 1}", "power: 1 is nothing that linear knows; remove it"),
        ("cosine", "{num_cycles: many}", "num_cycles: 'many' is no number; write one"),
        ("warmup_stable_decay", "{}", "lr_scheduler_kwargs: warmup_stable_decay needs num_decay_steps; set it"),
        ("cosine_with_min_lr", "{}", "lr_scheduler_kwargs: cosine_with_min_lr needs min_lr or min_lr_rate; set it"),
        ("warmup_stable_decay", "{num_decay_steps: 9, decay_type: fast}", "decay_type: 'fast' cannot be used; take"),
    ],
)
def test_a_schedule_has_what_it_needs_and_nothing_else(kind, said, words):
    text = f"{{TrainingArguments: {{lr_scheduler_type: {kind}, lr_scheduler_kwargs: {said}}}}}"
    assert words in refused(text)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
        ("warmup_stable_decay", {"num_decay_steps": 9, "decay_type": "1-sqrt"}),
        ("polynomial", {"power": 2, "lr_end": 1e-6}),  # which YAML takes for text,
    ],
)
def test_a_schedule_that_is_whole_is_taken(kind, said):
    text = f"{{TrainingArguments: {{lr_scheduler_type: {kind}, lr_scheduler_kwargs: {said}}}}}"
    assert training_config.parse(f"training_config: {text}", "qlora").arguments.lr_scheduler_kwargs == said


@pytest.mark.torch
def test_schedules_take_what_transformers_functions_take():
    from transformers import optimization

    kinds = typing.get_args(training_config.TrainingArguments.model_fields["lr_scheduler_type"].annotation)
    functions = {kind.value: call for kind, call in optimization.TYPE_TO_SCHEDULER_FUNCTION.items()}
    takes = {kind: set(inspect.signature(functions[kind]).parameters) - RESTS for kind in kinds}
    assert takes == {kind: set(training_keys.SCHEDULES.get(kind, ((), ()))[0]) for kind in kinds}


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("TrainingArguments", "max_steps", 10**12, "max_steps: 1000000000000 cannot be used"),
        ("TrainingArguments", "gradient_accumulation_steps", 10**12, "steps: 1000000000000 cannot be used"),
        ("LoraConfig", "lora_alpha", 10**400, "cannot be used; Input should be less than or equal to 1000000"),
        ("LoraConfig", "rank_pattern", "{o_proj: 0}", "rank_pattern.o_proj: 0 cannot be used"),
        ("LoraConfig", "alpha_pattern", "{o_proj(: 4}", "'o_proj(' cannot be used; Value error, it is no regular"),
    ],
)
def test_numbers_and_patterns_that_no_run_can_have_are_refused(section, key, value, words):
    assert words in refused(f"{{{section}: {{{key}: {value}}}}}")
