"""From the images' configs to the numbers that GPU memory follows from, since `sizing` knows no image. Pure."""

from kaito_hera import sizing
from tuning.training_config import TrainingConfig


def batch(training: TrainingConfig) -> sizing.Batch:
    """What a training_config puts on the GPU at once; of the rows no more is known than that `max_length` cuts them."""
    arguments, lora, quantised = training.arguments, training.lora, training.quantization
    return sizing.Batch(
        rows=arguments.per_device_train_batch_size,
        length=arguments.max_length,
        rank=max([lora.r, *lora.rank_pattern.values()]),
        recompute=arguments.activation_checkpointing is not False,
        stored="8 bits" if quantised.load_in_8bit else None if quantised.bnb_4bit_use_double_quant else "4 bits",
    )
