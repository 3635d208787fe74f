"""Loaded decoders against `transformers`.

transformers_logits.json holds what transformers 5.23.0 on torch 2.13.0+cpu computes, eager attention in float32, for
tiny models whose weights `_make_logits.py` draws from seeds; that script wrote it, in the peer environment
`transformers` of the benchmarks.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from _make_logits import CASES, NEW_TOKENS, PLACES, PROMPT, weight
from posterax_particles.language import _pretrained
from posterax_particles.language._generate import generate
from posterax_particles.language._pretrained import load_decoder, load_tokenizer

safetensors = pytest.importorskip("safetensors.numpy")
HERE, ROOT = Path(__file__).parent, Path(__file__).parents[4]
REFERENCE = json.loads((HERE / "transformers_logits.json").read_text())


def saved(folder, case, *, shards=1, **changes):
    """A published model's files; `changes` are made to config.json after the weights, None takes a setting away."""
    folder.mkdir(exist_ok=True)
    settings = CASES[case]
    shapes = _pretrained._shapes(_pretrained._config(settings, "here"))
    tensors = {name: weight(name, shape) for name, shape in shapes.items()}
    names = sorted(tensors)
    parts = [names[i::shards] for i in range(shards)]
    files = [f"model-{i}.safetensors" if shards > 1 else "model.safetensors" for i in range(shards)]
    for file, part in zip(files, parts, strict=True):
        safetensors.save_file({name: tensors[name] for name in part}, folder / file)
    if shards > 1:
        where = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    settings = {name: value for name, value in {**settings, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@eqx.filter_jit
def full(decoder, tokens):
    return decoder(tokens)


def agrees(decoder, reference):
    logits = full(decoder, np.array(PROMPT))[np.array(PLACES)]
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)
    found = generate(decoder, [PROMPT, PROMPT[:5]], max_tokens=NEW_TOKENS, temperature=0, key=jr.key(0))
    assert found.row(0) == reference["greedy"]


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_tokens_are_those_of_transformers(tmp_path, case):
    agrees(load_decoder(saved(tmp_path, case, shards=3 if case == "qwen2" else 1)), REFERENCE[case])


def transformers_python():
    """A Python that has torch and transformers: this one, or that of the benchmarks' peers."""
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        return Path(sys.executable)
    return ROOT / ".cache" / "peers" / "transformers" / "bin" / "python"


@pytest.mark.slow
def test_models_that_transformers_saves_now_have_its_logits(tmp_path):
    python = transformers_python()
    if not python.exists():
        pytest.skip("neither this Python nor .cache/peers/transformers has torch and transformers")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, HERE / "_make_logits.py", "7", tmp_path],
        env={**clean, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for case, reference in json.loads(done.stdout.splitlines()[-1]).items():
        agrees(load_decoder(tmp_path / case), reference)


def test_weights_of_half_precision_are_converted_or_kept(tmp_path):
    folder = saved(tmp_path, "llama")
    tensors = safetensors.load_file(folder / "model.safetensors")
    half = {name: value.astype(jnp.bfloat16) for name, value in tensors.items()}
    safetensors.save_file(half, folder / "model.safetensors")
    whole, kept = load_decoder(folder), load_decoder(folder, dtype=jnp.bfloat16)
    assert whole.embedding.dtype == whole.blocks[0].qkv.dtype == jnp.float32
    assert kept.embedding.dtype == kept.blocks[0].qkv.dtype == jnp.bfloat16
    assert kept.norm.dtype == jnp.float32
    exact, rounded = full(whole, np.array(PROMPT)), full(kept, np.array(PROMPT))
    assert np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max()  # bfloat16 keeps 8 bits


def test_the_rotary_settings_of_transformers_5_are_read_too(tmp_path):
    old = CASES["llama3"]
    new = {"rope_parameters": {**old["rope_scaling"], "rope_theta": old["rope_theta"]}}
    folder = saved(tmp_path, "llama3", rope_scaling=None, rope_theta=None, **new)
    agrees(load_decoder(folder), REFERENCE["llama3"])


@pytest.mark.parametrize(
    ("case", "changes", "says"),
    [
        ("llama", {"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel; supported are LlamaForCausal"),
        ("llama", {"architectures": None, "model_type": "mistral"}, "architecture mistral; supported"),
        ("qwen2", {"use_sliding_window": True}, "sliding-window attention"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window attention"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rotary scaling 'yarn'"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "llama3", "factor": 4.0}},
            "must give low_freq_factor, high",
        ),
        ("llama", {"attention_bias": True}, "biases of other projections"),
        ("llama", {"hidden_act": "gelu"}, "the activation 'gelu'"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised weights"),
        ("llama", {"vocab_size": None}, "must give vocab_size"),
        ("llama", {"num_hidden_layers": 3}, r"lack model\.layers\.2\.input_layernorm\.weight.* and 4 more"),
        ("qwen2", {"tie_word_embeddings": False}, r"lack lm_head\.weight"),
        ("llama", {"intermediate_size": 45}, r"gate_proj\.weight` must have shape \(45, 32\) .* got \(44, 32\)"),
    ],
)
def test_what_the_decoder_has_not_is_refused_in_words(tmp_path, case, changes, says):
    with pytest.raises(ValueError, match=says):
        load_decoder(saved(tmp_path, case, **changes))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json in"):
        load_decoder(tmp_path)
    folder = saved(tmp_path, "llama", shards=2)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"not there: \['model-1"):
        load_decoder(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-0.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors in"):
        load_decoder(folder)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json in"):
        load_tokenizer(folder)


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"`load_decoder` needs .* safetensors: pip install 'posterax\[lm\]'"):
        load_decoder(saved(tmp_path, "llama"))


# Tokenizers


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('No tools here.') }}{% endif %}"
    "<|{{ m.role }}|> {% generation %}{{ m.content | trim }}{% endgeneration %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


@pytest.fixture
def folder(tmp_path):
    """A tokenizer of words, as published ones are laid out."""
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    words = ["<s>", "<|end|>", "<|user|>", "<|assistant|>", "[UNK]", "one", "and", "two", "is", "three"]
    vocabulary = {word: i for i, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(words[:4])
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.save(str(tmp_path / "tokenizer.json"))
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "<|end|>", "chat_template": TEMPLATE}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


MESSAGES = [{"role": "user", "content": "one and two"}, {"role": "assistant", "content": "is "}]


def test_text_goes_to_tokens_and_back(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("one and two") == [5, 6, 7]
    assert tokenizer.encode("one", begin=True) == [0, 5]
    assert tokenizer.encode("<|user|> one<|end|>") == [2, 5, 1]
    assert tokenizer.decode(np.array([2, 5, 6, 1])) == "one and"
    assert tokenizer.decode([2, 5], special=True) == "<|user|> one"
    assert tokenizer.vocab_size == 10


def test_a_conversation_is_rendered_for_an_answer_or_left_open(folder):
    tokenizer = load_tokenizer(folder)
    asked = "<s><|user|> one and two<|end|>"
    assert tokenizer.render(MESSAGES[:1]) == f"{asked}<|assistant|> "
    assert tokenizer.render(MESSAGES[:1], add_generation_prompt=False) == asked
    assert tokenizer.render(MESSAGES, continue_final=True) == f"{asked}<|assistant|> is "
    assert MESSAGES[1]["content"] == "is "
    with pytest.raises(ValueError, match=r"refused the messages: No tools here\."):
        tokenizer.render([{"role": "tool", "content": "3"}])
    with pytest.raises(ValueError, match="at least one message"):
        tokenizer.render([])


def test_a_template_of_its_own_file_comes_first_and_none_is_an_error(folder):
    (folder / "chat_template.jinja").write_text("{{ messages[0].content | tojson }}")
    assert load_tokenizer(folder).render([{"role": "user", "content": "a<b é"}]) == '"a<b é"'
    with pytest.raises(ValueError, match="leaves out the last message"):
        load_tokenizer(folder).render(MESSAGES, continue_final=True)
    (folder / "chat_template.jinja").unlink()
    named = {"chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    assert load_tokenizer(folder).render(MESSAGES) == "yes"
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(folder).render(MESSAGES)


def test_a_template_cannot_reach_python(folder):
    (folder / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    with pytest.raises(ValueError, match="refused"):
        load_tokenizer(folder).render(MESSAGES)


def test_tokens_that_end_an_answer_come_from_the_first_file_that_names_them(folder):
    assert load_tokenizer(folder).eos_ids == (1,)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 3}))
    assert load_tokenizer(folder).eos_ids == (3,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3]}))
    assert load_tokenizer(folder).eos_ids == (1, 3)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        (folder / name).unlink()
    assert load_tokenizer(folder).eos_ids == ()
