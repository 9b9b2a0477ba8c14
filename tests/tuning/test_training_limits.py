"""What would end a run on the node, with a GPU that is paid for, is refused as the config is read."""

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
