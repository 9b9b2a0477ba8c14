"""Which sizes are advised."""

import presets
from kaito_hera import loads, offers


def test_one_gpu_that_holds_a_model_is_not_advised_at_any_price():
    falcon, small = (loads.serve(presets.preset(name)) for name in ("falcon-40b", "phi-4"))
    assert offers.holders(falcon)[0].name == "Standard_NC48ads_A100_v4"
    assert all(size.usd() >= 7 for size in offers.able((falcon,)))
    assert offers.able((falcon,))[0].usd() < 8
    assert all(small.taken(size.gib_per_gpu * size.usable, size.gpus) == 1 for size in offers.holders(small))
