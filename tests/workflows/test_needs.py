import pytest

from presets import memory
from tuning import training_config
from workflows import needs


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ("", None),
        ("load_in_8bit: true", "8 bits"),
        ("bnb_4bit_use_double_quant: false", "4 bits"),
    ],
)
def test_how_the_base_model_is_stored_is_what_the_config_says(said, stored):
    text = f"training_config:\n  QuantizationConfig:\n    {said}\n" if said else "training_config: {}"
    assert needs.batch(training_config.parse(text, "qlora")).stored == stored
    assert stored is None or stored in memory.BYTES
