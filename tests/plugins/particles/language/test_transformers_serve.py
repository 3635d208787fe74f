"""A server that is not ours: `transformers serve` with a tiny random Llama, and a tokenizer trained on the spot.

Random weights prove the protocol, not a quality. The packages (`torch`, `transformers[serving]`) are looked for in this
environment and in .cache/peers/transformers-serve; without them these tests are skipped:

    python -m venv .cache/peers/transformers-serve
    .cache/peers/transformers-serve/bin/pip install 'transformers[serving]==5.23.0' torch==2.13.0
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import jax.random as jr
import pytest
from posterax_particles.language import (
    AfterTokens,
    AtString,
    CallableReward,
    Ledger,
    Prefix,
    Reasoning,
    StepFilter,
    solve,
)
from posterax_particles.language._loop import run
from posterax_particles.language._openai import OpenAIModel
from posterax_particles.language._server import ServerError
from server import finished

PEER = Path(__file__).parents[4] / ".cache" / "peers" / "transformers-serve" / "bin" / "python"
MAKE = """
import sys
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
lines = [f"{a} plus {b} is {a + b}.\\n\\nSo we go on with {a * b}?" for a in range(30) for b in range(30)]
tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=160, special_tokens=["<s>", "</s>"]))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
tokenizer.chat_template = (
    "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
)
tokenizer.save_pretrained(sys.argv[1])
size = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, bos_token_id=0, eos_token_id=1, **size)
model = LlamaForCausalLM(config)
model.generation_config.do_sample = True  # the server samples by this alone, whatever the temperature
model.save_pretrained(sys.argv[1])
"""
pytestmark = pytest.mark.slow
START = Prefix(({"role": "user", "content": "3 plus 4 is"},))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address and model of a running server."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    needed = "import torch, tokenizers, transformers, fastapi, uvicorn, openai"
    pythons = [str(python) for python in (sys.executable, PEER) if Path(python).exists()]
    able = (p for p in pythons if subprocess.run([p, "-c", needed], capture_output=True, check=False).returncode == 0)
    python = next(able, None)
    if python is None:
        pytest.skip(f"no environment with torch and transformers[serving]; looked at {len(pythons)}")
    folder = tmp_path_factory.mktemp("served")
    subprocess.run([python, "-c", MAKE, str(folder / "tiny")], check=True, env=environment, timeout=300)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen([*command, "--device", "cpu"], stdout=said, stderr=said, env=environment, cwd=folder)
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, folder / "said")
            yield f"http://127.0.0.1:{port}/v1", str(folder / "tiny")
        finally:
            process.terminate()
            process.wait(30)


def _wait(url, process, said):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.skip(f"`transformers serve` ended: {said.read_text()[-300:]}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.skip(f"`transformers serve` did not start within 180 s: {said.read_text()[-300:]}")


@pytest.fixture
def model(served):
    return openai(served)


def openai(served, endpoint="completions", **settings):
    url, name = served
    return OpenAIModel(name, url, endpoint=endpoint, api_key="", **{"timeout": 60, "backoff": 0.1, **settings})


def steps(user, prefixes, *, end, seeds, ledger=None):
    work = user.propose(prefixes, end=end, max_tokens=end.max_tokens, seeds=seeds, ledger=ledger or Ledger())
    return finished(user, work)


def test_what_it_honours_as_of_5_23(model, served):
    found = finished(model, model.capabilities())
    assert found.reachable
    assert (found.stop, found.stop_echo, found.stop_told) == (True, True, False)
    assert (found.seed, found.draws) == (True, True)
    assert (found.n, found.extras, found.log_probs, found.stop_token_ids) == (False, False, False, False)
    chat = openai(served, "chat")
    found = finished(chat, chat.capabilities())
    assert found.reachable
    assert (found.stop, found.continuation, found.n, found.extras) == (True, False, False, False)


def test_a_chat_there_cannot_be_gone_on_with(served):
    user = openai(served, "chat")
    (step,) = steps(user, [START], end=AfterTokens(5), seeds=[1])
    with pytest.raises(ServerError, match=r'does not continue the last message.*endpoint="completions"'):
        steps(user, [START.followed(step)], end=AfterTokens(5), seeds=[1])


def test_steps_are_as_long_as_they_may_be_and_come_again_for_the_same_seed(served):
    model = openai(served, max_concurrency=1)  # it seeds one generator for all requests under way
    ledger = Ledger()
    first = steps(model, [START] * 3, end=AfterTokens(6), seeds=[1, 2, 3], ledger=ledger)
    assert {(step.ending, step.tokens) for step in first} == {("step", 6)}
    assert ledger.spent.tokens == 18
    assert len({step.text for step in first}) > 1
    assert steps(model, [START] * 3, end=AfterTokens(6), seeds=[1, 2, 3]) == first


def test_a_step_ends_with_its_stop_string(model):
    (whole,) = steps(model, [START], end=AfterTokens(24), seeds=[4])
    stop = whole.text[8:10]
    (step,) = steps(model, [START], end=AtString(stop, tokens=24), seeds=[4])
    assert step.text == whole.text[: whole.text.index(stop) + 2]
    assert step.ending == "step"
    assert model.known.extras is False  # found out from a refusal
    (step,) = steps(model, [START], end=AtString("never written", tokens=24), seeds=[4])
    assert (step.text, step.ending) == (whole.text, "length")


def test_a_filter_runs_on_it(model):
    reward = CallableReward(lambda prefix: (prefix.text.count("e") + 1) / (len(prefix.text) + 2))
    problem = Reasoning("3 plus 4 is", model, reward, end=AfterTokens(5), max_steps=3)
    found = solve(StepFilter(4), problem, key=jr.key(0))
    run(model.aclose())
    assert found.stopped == "complete"
    assert all(len(particle) == 3 or particle.steps[-1].ending == "stop" for particle in found.particles)
    assert found.spent.tokens <= 4 * 3 * 5
