"""What one GPU must hold, in words."""

import presets
from kaito_hera import loads


def test_what_is_served_without_a_context_is_said():
    model = presets.preset("phi-4")
    assert loads.serve(model).note == "without max-model-len, requests of up to 16,384 are taken as far as memory goes"
    assert loads.serve(model, loads.Server(4096)).note == ""
    assert loads.serve(presets.preset("falcon-7b")).note == "", "it takes no more than is judged"
