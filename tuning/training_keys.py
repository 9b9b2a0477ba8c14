"""The keys of a training_config.yaml that decide nothing here, and why: data for `training_config`.

They are the fields of the classes that KAITO parses each section into, over all its releases: transformers'
TrainingArguments from 4.35 to 5.x, trl's SFTConfig, peft's LoraConfig, BitsAndBytesConfig. Every one that a user sets
becomes a warning, unless he asks for what happens anyway.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Idle(NamedTuple):
    """Why a key decides nothing."""

    reason: str
    harmless: tuple[object, ...] = ()
    """Values that ask for what happens anyway and need no warning."""


def _idle(reason: str, keys: str, harmless: tuple[object, ...] = ()) -> Iterator[tuple[str, Idle]]:
    return ((key, Idle(reason, harmless)) for key in keys.split())


RENAMED: Mapping[str, Mapping[str, str]] = {
    "ModelConfig": {"dtype": "torch_dtype"},
    "TrainingArguments": {
        "gradient_checkpointing": "activation_checkpointing",
        "max_seq_length": "max_length",
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "per_gpu_eval_batch_size": "per_device_eval_batch_size",
        "evaluation_strategy": "eval_strategy",
    },
}
"""Other releases' names of keys, by section: honoured, with a warning."""

_CYCLES = frozenset({"num_cycles"})
_LEAST = frozenset({"min_lr", "min_lr_rate"})
_PARTS = frozenset({"num_decay_steps", "num_stable_steps", "min_lr_ratio", "warmup_type", "decay_type"})
SCHEDULES: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "cosine": (_CYCLES, frozenset()),
    "cosine_with_restarts": (_CYCLES, frozenset()),
    "cosine_with_min_lr": (_CYCLES | _LEAST, _LEAST),
    "polynomial": (frozenset({"lr_end", "power"}), frozenset()),
    "inverse_sqrt": (frozenset({"timescale"}), frozenset()),
    "warmup_stable_decay": (_CYCLES | _PARTS, frozenset({"num_decay_steps"})),
}
"""What TrainingArguments.lr_scheduler_kwargs may say for a schedule, and one of what it must; for others nothing."""

SCHEDULE_TEXTS: Mapping[str, tuple[str, ...]] = dict.fromkeys(
    ("warmup_type", "decay_type"), ("linear", "cosine", "1-sqrt")
)
"""The keys of those that are no numbers, and their values."""

SECTIONS_IDLE: Mapping[str, str] = {
    "TokenizerParams": "padding and truncation follow TrainingArguments.max_length",
}
"""Sections of early KAITO maps that no longer exist."""

TRACKERS = ("wandb", "mlflow", "tensorboard")
"""What `report_to` may name, and `all` means."""

TRACKERS_IDLE = frozenset({"none", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte"})
TRACKERS_IDLE |= {"kubeflow", "neptune", "swanlab", "trackio"}
"""What transformers knows beside them."""


def idle_trackers(named: object) -> str:
    """Those of the names that nothing goes to."""
    names = [named] if isinstance(named, str) else named if isinstance(named, list | tuple) else []
    return ", ".join(str(name) for name in names if name in TRACKERS_IDLE and name != "none")


_MODEL = dict(
    [
        *_idle(
            "the weights are those of the preset, at its pinned revision",
            "pretrained_model_name_or_path revision state_dict cache_dir force_download resume_download proxies "
            "output_loading_info from_tf",
            ("/workspace/tfs/weights", "/workspace/weights", "main", False),
        ),
        *_idle("weights are downloaded once, then read from disk", "local_files_only", (True, False)),
        *_idle("say it in QuantizationConfig", "load_in_4bit load_in_8bit", (False,)),
        *_idle("the whole model goes to the one GPU", "device_map", ("auto", "cuda", "cuda:0")),
        *_idle("models run on transformers' own classes, never on code from the hub", "trust_remote_code", (False,)),
        *_idle("scaled dot product attention is used", "attn_implementation", ("sdpa",)),
    ]
)

_QUANTIZATION = dict(
    [
        *_idle("bitsandbytes is the one method", "quant_method", ("bitsandbytes",)),
        *_idle("weights never leave the GPU", "llm_int8_enable_fp32_cpu_offload", (False,)),
        *_idle("frozen weights stay quantised", "llm_int8_has_fp16_weight", (False,)),
        *_idle("4-bit weights are stored as bytes", "bnb_4bit_quant_storage", ("uint8",)),
    ]
)

_LORA = dict(
    [
        *_idle("the task is always a causal language model", "task_type", ("CAUSAL_LM",)),
        *_idle("the adapter's kind is always LoRA", "peft_type auto_mapping", ("LORA",)),
        *_idle("set when the adapter is saved", "base_model_name_or_path revision inference_mode", (False,)),
        *_idle("not among the LoRA variants that the server can load", "bias", ("none",)),
        *_idle(
            "not among the LoRA variants that the server can load", "use_dora use_qalora use_bdlora lora_bias", (False,)
        ),
        *_idle(
            "not among the LoRA variants that the server can load",
            "fan_in_fan_out megatron_config megatron_core trainable_token_indices loftq_config eva_config corda_config "
            "lora_ga_config velora_config alora_invocation_tokens qalora_group_size monteclora_config "
            "layer_replication runtime_config target_parameters arrow_config kasa_config ensure_weight_tying "
            "modules_to_save",
            (False, {}, "megatron.core"),
        ),
    ]
)

_TRAINING = dict(
    [
        *_idle(
            "loss, rate and time left of every step are reported as they are",
            "logging_dir logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter "
            "include_num_input_tokens_seen include_tokens_per_second log_level log_level_replica disable_tqdm "
            "project trackio_space_id trackio_bucket_id trackio_static_space_id skip_memory_metrics debug",
        ),
        *_idle(
            "checkpoints are taken by time, see tuning.checkpoint, and gone on from by themselves",
            "save_strategy save_steps save_total_limit save_only_model save_safetensors save_on_each_node "
            "overwrite_output_dir enable_jit_checkpoint resume_from_checkpoint ignore_data_skip "
            "restore_callback_states_from_checkpoint",
            ("no", False),
        ),
        *_idle(
            "rows held out are evaluated as eval_strategy and eval_steps say, and at the end",
            "eval_delay eval_on_start eval_do_concat_batches "
            "eval_use_gather_object eval_accumulation_steps eval_packing prediction_loss_only include_for_metrics "
            "include_inputs_for_metrics batch_eval_metrics do_train do_eval do_predict use_legacy_prediction_loop",
            ("no", False),
        ),
        *_idle(
            "the adapter goes to tuning.output",
            "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision "
            "push_to_hub_model_id push_to_hub_organization push_to_hub_token",
            (False,),
        ),
        *_idle(
            "the GPUs of the node divide the rows of a step by themselves",
            "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend "
            "ddp_timeout fsdp fsdp_config fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap deepspeed local_rank "
            "accelerator_config parallelism_config average_tokens_across_devices use_cpu no_cuda use_mps_device "
            "tpu_num_cores tpu_metrics_debug ray_scope xpu_backend dispatch_batches split_batches mp_parameters",
            (False,),
        ),
        *_idle(
            "precision follows ModelConfig.torch_dtype and what the GPU can do",
            "bf16 fp16 tf32 bf16_full_eval fp16_full_eval fp16_backend fp16_opt_level half_precision_backend",
        ),
        *_idle(
            "rows are tokenised before training, and batches are made of them as they are",
            "dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers "
            "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order remove_unused_columns "
            "label_names train_sampling_strategy group_by_length length_column_name past_index",
        ),
        *_idle(
            "nothing is compiled or replaced by other kernels",
            "torch_compile torch_compile_backend torch_compile_mode torchdynamo jit_mode_eval use_ipex "
            "use_liger_kernel liger_kernel_config",
            (False,),
        ),
        *_idle("the batch size is the one that is given", "auto_find_batch_size torch_empty_cache_steps"),
        *_idle("runs are seeded, kernels are the fast ones", "full_determinism", (False,)),
        *_idle("caches are for generating", "use_cache", (False,)),
        *_idle("checkpointing is non-reentrant", "activation_checkpointing_kwargs gradient_checkpointing_kwargs"),
        *_idle("the optimiser takes its own defaults", "optim_args optim_target_modules adafactor", (False,)),
        *_idle(
            "what is trained on follows the row's shape and DatasetConfig.loss",
            "padding_free assistant_only_loss completion_only_loss dataset_text_field "
            "dataset_kwargs dataset_num_proc dataset_batch_size num_of_sequences chars_per_token eos_token pad_token "
            "chat_template_path model_init_kwargs pad_to_multiple_of loss_type truncation_mode shuffle_dataset "
            "use_liger activation_offloading",
            (False,),
        ),
    ]
)

_COLLATOR = dict(
    [
        *_idle("a causal model has no mask token (KAITO turns it off too)", "mlm", (False,)),
        *_idle(
            "a causal model has no mask token",
            "mlm_probability mask_replace_prob random_replace_prob seed whole_word_mask",
        ),
        *_idle("batches are PyTorch tensors", "return_tensors tf_experimental_compile tokenizer", ("pt", False)),
    ]
)

_DATASET = dict([*_idle("the format is read from the file's first bytes", "dataset_extension")])

IDLE: Mapping[str, Mapping[str, Idle]] = {
    "ModelConfig": _MODEL,
    "QuantizationConfig": _QUANTIZATION,
    "LoraConfig": _LORA,
    "TrainingArguments": _TRAINING,
    "DataCollator": _COLLATOR,
    "DatasetConfig": _DATASET,
}
"""Section, then key."""
