"""Makes transformers_logits.json: what `transformers` computes for tiny decoders whose weights come from seeds.

Run from an environment with torch and transformers, which the numbers then name:

    python tests/plugins/particles/language/_make_logits.py            # writes the file
    python tests/plugins/particles/language/_make_logits.py SEED FOLDER  # for other weights; saves the models too

NumPy alone is imported at the top: the tests take `CASES`, `weight` and `PROMPT` from here.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

_TINY = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
_LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **_TINY}
CASES = {
    "llama": {**_LLAMA, "num_key_value_heads": 2, "head_dim": 12, "tie_word_embeddings": False},
    "llama3": {
        **_LLAMA, "num_key_value_heads": 1, "tie_word_embeddings": True, "rope_theta": 500.0,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **_TINY, "num_key_value_heads": 2,
        "tie_word_embeddings": True, "rope_theta": 1e6, "use_sliding_window": False, "sliding_window": 64,
    },
}  # fmt: skip
PROMPT = [3, 1, 4, 15, 9, 26, 5, 35, 8, 9, 7, 32]
SEED, NEW_TOKENS = 20_260, 16
PLACES = [0, 5, 11]  # whose logits are kept


def weight(name: str, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """Float32 numbers that depend on the name, shape and seed alone."""
    normal = np.random.default_rng([seed, zlib.crc32(name.encode())]).normal(size=shape)
    if name.endswith("bias"):
        normal *= 0.5
    elif len(shape) == 1:
        normal = 1 + 0.1 * normal
    elif "embed" in name:
        normal *= 0.2  # tied embeddings of full size would repeat the last token for ever
    else:
        normal /= np.sqrt(shape[1])
    return normal.astype(np.float32)


def reference(case: str, seed: int = SEED, folder: Path | None = None) -> dict:
    """Logits and greedy tokens of `transformers`; where a folder is given, the model is saved there in shards."""
    import torch
    import transformers

    settings = dict(CASES[case])
    (architecture,) = settings.pop("architectures")
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    config._attn_implementation = "eager"
    model = getattr(transformers, architecture)(config).eval()
    state = {name: torch.tensor(weight(name, tuple(old.shape), seed)) for name, old in model.state_dict().items()}
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    if folder is not None:
        model.save_pretrained(folder / case, max_shard_size="20KB")
    tokens = torch.tensor([PROMPT])
    with torch.no_grad():
        logits = model(tokens).logits[0].numpy()
        made = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=0
        )
    return {
        "logits": [[round(float(x), 6) for x in logits[place]] for place in PLACES],
        "greedy": made[0, len(PROMPT) :].tolist(),
    }


def main(arguments: list[str]) -> None:
    """Prints or writes the references."""
    if arguments:
        seed, folder = int(arguments[0]), Path(arguments[1])
        print(json.dumps({case: reference(case, seed, folder) for case in CASES}))
        return
    from importlib.metadata import version

    made = {"made_with": {name: version(name) for name in ("transformers", "torch", "numpy")}}
    made |= {case: reference(case) for case in CASES}
    Path(__file__).with_name("transformers_logits.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
