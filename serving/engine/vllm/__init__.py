"""The Engine protocol over vLLM: how it is started, what it is asked, its adapters. In the image serving-vllm alone."""
