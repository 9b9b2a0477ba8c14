"""An adapter of a request."""

from vllm import made

LoRARequest = made("vllm/lora/request.py", "LoRARequest")
