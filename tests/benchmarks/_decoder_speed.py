"""What generation in process must reach: the tokens a second of `transformers` on the same tiny decoder."""

import os
import sys
import time

import _serve
import numpy as np

_SHAPE = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
_PROMPT, _NEW = 16, 64
_BATCHES = (8, 64)


def prompts(rows: int) -> np.ndarray:
    """Token ids, `(rows, prompt)`."""
    return np.random.default_rng(0).integers(0, _SHAPE["vocab_size"], (rows, _PROMPT))


def ours(rows: int):
    """Our sampling of 64 tokens a row, compiled at the first call."""
    import jax.random as jr
    from posterax_models import Decoder, DecoderConfig
    from posterax_particles.language._generate import generate

    layers, heads = _SHAPE["num_hidden_layers"], _SHAPE["num_attention_heads"]
    sizes = {name: _SHAPE[name] for name in ("vocab_size", "hidden_size", "intermediate_size")}
    config = DecoderConfig(**sizes, num_layers=layers, num_heads=heads, num_kv_heads=_SHAPE["num_key_value_heads"])
    decoder, texts = Decoder.init(config, key=jr.key(0)), prompts(rows).tolist()

    def once():
        return generate(decoder, texts, max_tokens=_NEW, key=jr.key(1)).lengths

    return once


def transformers(rows: int):
    """The same by `generate` with its cache, on one thread or on all, whatever is faster at this moment."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**_SHAPE, bos_token_id=None, eos_token_id=None, pad_token_id=0)
    decoder, texts = LlamaForCausalLM(config).eval(), torch.tensor(prompts(rows))
    seen = torch.ones_like(texts)

    def once():
        with torch.inference_mode():
            made = decoder.generate(
                texts, attention_mask=seen, do_sample=True, top_k=0, top_p=1.0, use_cache=True, max_new_tokens=_NEW
            )
        return np.full(rows, made.shape[1] - _PROMPT)

    def seconds(threads):
        torch.set_num_threads(threads)
        once()
        began = time.perf_counter()
        once()
        return time.perf_counter() - began

    # On a busy machine its threads wait for each other in loops, and all of them are many times slower than one.
    torch.set_num_threads(min({1, len(os.sched_getaffinity(0))}, key=seconds))
    return once


def _speed(batch: int):
    from _race import race
    from _timing import Figure, rows

    row = f"decoder-{batch}"

    @rows(row)
    def measure():
        programs = (f"transformers-{batch}",)
        peer = f"transformers 5.23.0, {batch} rows of {_NEW} tokens"
        found, children = race("transformers", ("_decoder_speed.py", f"ours-{batch}"), peer, programs, _FILE)
        if children:
            if any(child.value != batch * _NEW for child in children):
                raise RuntimeError(f"tokens: {', '.join(f'{child.label} {child.value:.0f}' for child in children)}")
            found = Figure(1 / found.value, f"tokens a second, ours / theirs; of seconds, ours / theirs: {found.text}")
        yield row, found

    return measure


_FILE = "_decoder_speed.py"

if __name__ == "__main__":
    program, _, batch = sys.argv[1].rpartition("-")
    _serve.serve(lambda: {"ours": ours, "transformers": transformers}[program](int(batch)))
else:
    MEASURES = tuple(_speed(batch) for batch in _BATCHES)
