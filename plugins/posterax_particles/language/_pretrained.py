"""Decoders and tokenizers from folders of published files."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from posterax_models._decoder import Block, Decoder, DecoderConfig, RopeScaling

_ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
_SCALING = {  # ours by theirs
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_length",
}


def load_decoder(folder: str | Path, *, dtype: DTypeLike = jnp.float32) -> Decoder:
    """The decoder in a folder of `config.json` and `*.safetensors`, as published for Llama and Qwen2.

    - `folder`: with one file of weights, or several and their `model.safetensors.index.json`.
    - `dtype`: of the matrices and embeddings, float32 or bfloat16; norms and biases are float32 in either case.

    The layers are separate (`Decoder.unstacked`), as generation wants them. Needs safetensors (`posterax[lm]`).

    Raises FileNotFoundError where a file is missing, and ValueError for another architecture, for a feature that
    `Decoder` has not (sliding windows, other rotary scalings, quantised weights), for missing tensors and wrong shapes.
    """
    folder = Path(folder)
    raw = _json(folder, "config.json")
    config = _config(raw, str(folder / "config.json"))
    safetensors = _optional("safetensors", "load_decoder")
    with ExitStack() as stack:
        homes = _homes(folder, lambda path: stack.enter_context(safetensors.safe_open(path, framework="flax")))
        wanted = _shapes(config)
        if missing := sorted(wanted.keys() - homes.keys()):
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise ValueError(
                f"The weights in {folder} lack {', '.join(missing[:5])}{more}, which config.json asks for."
            )

        def get(name: str, dtype: DTypeLike = jnp.float32) -> np.ndarray:
            found = np.asarray(homes[name].get_tensor(name))
            if found.shape != wanted[name]:
                raise ValueError(f"`{name}` must have shape {wanted[name]} by config.json; got {found.shape}.")
            return found.astype(dtype)

        def matrix(*names: str) -> jax.Array:
            return jnp.asarray(np.concatenate([get(f"{name}.weight", dtype) for name in names]).T)

        blocks = []
        for i in range(config.num_layers):
            layer = f"model.layers.{i}."
            attention, mlp = f"{layer}self_attn.", f"{layer}mlp."
            qkv = [f"{attention}{name}_proj" for name in "qkv"]
            biases = [get(f"{name}.bias") for name in qkv] if config.attention_bias else None
            blocks.append(
                Block(
                    attention_norm=jnp.asarray(get(f"{layer}input_layernorm.weight")),
                    qkv=matrix(*qkv),
                    qkv_bias=None if biases is None else jnp.asarray(np.concatenate(biases)),
                    out=matrix(f"{attention}o_proj"),
                    mlp_norm=jnp.asarray(get(f"{layer}post_attention_layernorm.weight")),
                    gate_up=matrix(f"{mlp}gate_proj", f"{mlp}up_proj"),
                    down=matrix(f"{mlp}down_proj"),
                )
            )
        embedding = jnp.asarray(get("model.embed_tokens.weight", dtype))
        head = None if config.tie_embeddings else matrix("lm_head")
        return Decoder(embedding, tuple(blocks), jnp.asarray(get("model.norm.weight")), head, config)


def _config(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    named = raw.get("architectures") or [str(raw.get("model_type"))]
    kind = next((_ARCHITECTURES.get(name, name) for name in named), None)
    if kind not in _ARCHITECTURES.values():
        raise ValueError(f"{where} is of the architecture {named[0]}; supported are {' and '.join(_ARCHITECTURES)}.")

    def refuse(what: str) -> ValueError:
        return ValueError(f"{where} asks for {what}, which `Decoder` has not.")

    sliding = raw.get("sliding_window") is not None and raw.get("use_sliding_window", kind != "qwen2")
    if sliding or "sliding_attention" in (raw.get("layer_types") or ()):
        raise refuse("sliding-window attention (unless `use_sliding_window` is false)")
    if raw.get("quantization_config"):
        raise refuse("quantised weights")
    if (kind == "llama" and raw.get("attention_bias")) or raw.get("mlp_bias"):
        raise refuse("biases of other projections than queries, keys and values")
    if raw.get("hidden_act", "silu") != "silu":
        raise refuse(f"the activation {raw['hidden_act']!r}")
    theta, scaling = _rope(raw, refuse)
    lacking = [name for name in _SIZES if name not in raw]
    if lacking:
        raise ValueError(f"{where} must give {', '.join(lacking)}.")
    return DecoderConfig(
        **{ours: raw[theirs] for theirs, ours in _SIZES.items()},
        num_kv_heads=raw.get("num_key_value_heads") or 0,
        head_dim=raw.get("head_dim") or 0,
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
        attention_bias=kind == "qwen2",
        tie_embeddings=raw.get("tie_word_embeddings", False),
    )


_SIZES = {  # ours by theirs
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
}


def _rope(raw: Mapping[str, Any], refuse: Callable[[str], ValueError]) -> tuple[float, RopeScaling | None]:
    # transformers 5 writes all of it into `rope_parameters`; earlier ones the base beside a `rope_scaling`.
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta", raw.get("rope_theta", 10_000.0)))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise refuse(f"the rotary scaling {kind!r} ('default' and 'llama3' are supported)")
    if lacking := [name for name in _SCALING if name not in rope]:
        raise ValueError(f"The rotary scaling 'llama3' of config.json must give {', '.join(lacking)}.")
    return theta, RopeScaling(**{ours: rope[theirs] for theirs, ours in _SCALING.items()})


def _shapes(c: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The published names of all tensors, and their shapes: matrices as (out, in)."""
    sizes = {"q": c.num_heads * c.head_dim, "k": c.num_kv_heads * c.head_dim, "v": c.num_kv_heads * c.head_dim}
    shapes = {"model.embed_tokens.weight": (c.vocab_size, c.hidden_size), "model.norm.weight": (c.hidden_size,)}
    if not c.tie_embeddings:
        shapes["lm_head.weight"] = (c.vocab_size, c.hidden_size)
    for i in range(c.num_layers):
        layer = {
            "input_layernorm.weight": (c.hidden_size,),
            "post_attention_layernorm.weight": (c.hidden_size,),
            "self_attn.o_proj.weight": (c.hidden_size, sizes["q"]),
            "mlp.gate_proj.weight": (c.intermediate_size, c.hidden_size),
            "mlp.up_proj.weight": (c.intermediate_size, c.hidden_size),
            "mlp.down_proj.weight": (c.hidden_size, c.intermediate_size),
        }
        for name, size in sizes.items():
            layer[f"self_attn.{name}_proj.weight"] = (size, c.hidden_size)
            if c.attention_bias:
                layer[f"self_attn.{name}_proj.bias"] = (size,)
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def _homes(folder: Path, opened: Callable[[Path], Any]) -> dict[str, Any]:
    """The open file in which each tensor is."""
    if (folder / "model.safetensors.index.json").exists():
        where = _json(folder, "model.safetensors.index.json")["weight_map"]
        paths = sorted({folder / name for name in where.values()})
        if absent := [path.name for path in paths if not path.exists()]:
            raise FileNotFoundError(
                f"model.safetensors.index.json in {folder} names files that are not there: {absent}."
            )
    else:
        whole = folder / "model.safetensors"
        paths = [whole] if whole.exists() else sorted(folder.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"There is no *.safetensors in {folder}; other formats of weights are not read.")
    return {name: file for file in map(opened, paths) for name in file.keys()}


def _json(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).exists():
        raise FileNotFoundError(f"There is no {name} in {folder}.")
    return json.loads((folder / name).read_text(encoding="utf-8"))


def _optional(package: str, who: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise ImportError(f"`{who}` needs the package {package}: pip install 'posterax[lm]'") from None


class Tokenizer:
    """Text to token ids and back, and messages to text; made by `load_tokenizer`.

    - `eos_ids`: the tokens that end an answer.
    """

    def __init__(self, backend: Any, eos_ids: tuple[int, ...], template: str | None, words: Mapping[str, str]):
        self.eos_ids = eos_ids
        self._backend, self._template, self._words = backend, template, dict(words)
        self._compiled: Any = None

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, the special ones among them."""
        return self._backend.get_vocab_size()

    @property
    def has_template(self) -> bool:
        """Whether `render` can be called."""
        return self._template is not None

    def encode(self, text: str, *, begin: bool = False) -> list[int]:
        """Token ids of a text; special tokens that are spelled out in it are read as such.

        - `begin`: adds what the tokenizer puts around a whole text (for Llama the token that begins one). Not for
          what `render` returns, which says all of that itself.
        """
        return self._backend.encode(text, add_special_tokens=begin).ids

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of token ids; special tokens are left out unless `special`."""
        return self._backend.decode([int(token) for token in ids], skip_special_tokens=not special)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, continue_final: bool = False
    ) -> str:
        """The text of a conversation by the model's chat template.

        - `messages`: `{"role": "user", "content": "..."}` and so on.
        - `add_generation_prompt`: ends with what begins an answer.
        - `continue_final`: leaves the last message open instead, so that the model goes on with it.

        Needs jinja2 (`posterax[lm]`). Raises ValueError if there is no template, or if it refuses the messages.
        """
        if self._template is None:
            raise ValueError(
                "This tokenizer has no chat template: its model was not made for messages; use plain text."
            )
        if not messages:
            raise ValueError("`messages` must hold at least one message; got none.")
        jinja2 = _optional("jinja2", "render")
        if self._compiled is None:
            self._compiled = _environment().from_string(self._template)
        messages, mark = [dict(message) for message in messages], "\ue000end\ue000"
        if continue_final:
            # Cutting at a mark keeps the spaces before it, which many a template strips from the end of a message.
            messages[-1]["content"] = f"{messages[-1]['content']}{mark}"
        asks = add_generation_prompt and not continue_final
        try:
            text = self._compiled.render(messages=messages, add_generation_prompt=asks, **self._words)
        except jinja2.TemplateError as error:
            raise ValueError(f"The chat template refused the messages: {error}") from None
        if not continue_final:
            return text
        if mark not in text:
            raise ValueError("The chat template leaves out the last message, so it cannot be continued.")
        return text[: text.rindex(mark)]


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in a folder of `tokenizer.json`, with the chat template if there is one.

    `eos_ids` come from the first of `generation_config.json`, `config.json` and `tokenizer_config.json` that has them;
    the template from `chat_template.jinja` or else `tokenizer_config.json`. Needs tokenizers (`posterax[lm]`).

    Raises FileNotFoundError where `tokenizer.json` is missing.
    """
    folder = Path(folder)
    _json(folder, "tokenizer.json")
    backend = _optional("tokenizers", "load_tokenizer").Tokenizer.from_file(str(folder / "tokenizer.json"))

    def optional(name: str) -> dict[str, Any]:
        return _json(folder, name) if (folder / name).exists() else {}

    settings = optional("tokenizer_config.json")
    words = {name: _word(value) for name, value in settings.items() if name.endswith("_token") and value}
    eos = [optional(name).get("eos_token_id") for name in ("generation_config.json", "config.json")]
    eos.append(backend.token_to_id(words["eos_token"]) if "eos_token" in words else None)
    found = next((ids for ids in eos if ids is not None), [])
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((one["template"] for one in template if one["name"] == "default"), None)
    if (folder / "chat_template.jinja").exists():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return Tokenizer(backend, tuple(found) if isinstance(found, list) else (found,), template, words)


def _word(value: Any) -> Any:
    return value["content"] if isinstance(value, dict) else value


def _environment() -> Any:
    """Where chat templates run: sandboxed, with the functions that published ones call."""
    jinja2, sandbox, ext = (_optional(name, "render") for name in ("jinja2", "jinja2.sandbox", "jinja2.ext"))

    class Generation(ext.Extension):
        """`{% generation %}`, which marks the answers for training; here it is what is inside."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str):
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    extensions = [Generation, ext.loopcontrols]
    made = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    made.filters["tojson"] = to_json
    made.globals.update(raise_exception=refuse, strftime_now=lambda form: datetime.now().strftime(form))
    return made
