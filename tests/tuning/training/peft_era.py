"""Run by the interpreter of an old peft: load an adapter onto a base of its own make, and say what arrived.

python peft_era.py FOLDER VOCABULARY HIDDEN LAYERS    prints one JSON object
"""

import json
import sys

import peft
import torch
import transformers

if __name__ == "__main__":
    folder, (vocabulary, hidden, layers) = sys.argv[1], map(int, sys.argv[2:])
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        original_max_position_embeddings=512,
        pad_token_id=0,
    )
    base = transformers.Phi3ForCausalLM(config).eval()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        before = base(ids).logits
        tuned = peft.PeftModel.from_pretrained(base, folder).eval()
        after = tuned(ids).logits
    arrived = peft.get_peft_model_state_dict(tuned)
    told = {
        "peft": peft.__version__,
        "moved": float((after - before).abs().max()),
        "weights": {name: float(tensor.float().sum()) for name, tensor in arrived.items()},
        "targets": sorted(tuned.peft_config["default"].target_modules),
        "alpha": tuned.peft_config["default"].lora_alpha,
    }
    print(json.dumps(told))
