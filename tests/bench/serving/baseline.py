"""What ours is held against: `/chat` as KAITO did it, one `generate` per request in a thread pool; nothing of ours.

    python baseline.py FOLDER PORT [--lock]

With --lock one request generates at a time: threads that generate beside each other are slower than one after another,
so this is the fairer of the two.
"""

import contextlib
import sys
import threading

import fastapi
import torch
import transformers
import uvicorn


def application(folder, lock):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    app = fastapi.FastAPI()

    @app.get("/health")
    def health():
        return {"status": "Healthy"}

    @app.post("/chat")
    def chat(body: dict):
        ids = tokenizer(body["prompt"], return_tensors="pt")["input_ids"]
        with lock, torch.inference_mode():
            output = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **body["generate_kwargs"])
        return {"Result": tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)}

    return app


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    guard = threading.Lock() if "--lock" in sys.argv else contextlib.nullcontext()
    uvicorn.run(application(sys.argv[1], guard), host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
