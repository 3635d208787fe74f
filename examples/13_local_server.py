"""A complete run against an OpenAI-compatible server on this machine: filter, budget, vote, accounts.

python examples/13_local_server.py [--problems 5] [--particles 8] [--output examples-output]

The server is a small one, made here around the language model of the arithmetic task; any other server (vLLM,
llama.cpp, `transformers serve`) is used in the same way: change `base_url` and `model`, and give your key as `api_key`.
"""

import argparse
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
from posterax_models import (
    ArithmeticReward,
    arithmetic_decoder,
    arithmetic_problems,
    arithmetic_text,
    arithmetic_tokens,
)
from posterax_particles import EssSchedule
from posterax_particles.language import (
    AfterTokens,
    ArgMax,
    BestOfN,
    Budget,
    CallableReward,
    OpenAIModel,
    Reasoning,
    StepFilter,
    WeightedVote,
    Written,
    generate,
    solve,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NUM_STEPS, KAPPA = 11, 4.0


class Handler(BaseHTTPRequestHandler):
    """POST /v1/completions with `prompt`, `max_tokens`, `n` and `seed`."""

    decoder = arithmetic_decoder().unstacked()
    lock = threading.Lock()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, n = arithmetic_tokens(asked["prompt"]).tolist(), asked.get("n", 1)
        with self.lock:
            made = generate(
                self.decoder, [prompt] * n, max_tokens=asked["max_tokens"], key=jr.key(asked.get("seed") or 0)
            )
        texts = [arithmetic_text(made.row(i)) for i in range(n)]
        choices = [{"index": i, "text": text, "finish_reason": "length"} for i, text in enumerate(texts)]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": int(made.lengths.sum())}
        body = json.dumps({"object": "text_completion", "choices": choices, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Silence."""


def main(problems: int, particles: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    model = OpenAIModel(
        "arithmetic", f"http://127.0.0.1:{server.server_port}/v1", endpoint="completions", temperature=1.0
    )
    made = arithmetic_problems(problems, seed=2025)
    methods = {
        "ePF": (StepFilter(particles, schedule=EssSchedule()), ArgMax()),
        "PF, telescoping target": (StepFilter(particles), ArgMax()),
        "best of N": (BestOfN(particles), ArgMax()),
        "weighted best of N": (BestOfN(particles), WeightedVote(by="score")),
    }
    print(f"{'':26}{'solved':>8}{'tokens':>8}{'requests':>10}{'rewards':>9}{'seconds':>9}")
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, (method, choose) in methods.items():
        right, spent, lineages = 0, np.zeros(4), []
        for number in range(problems):
            prompt, reward = arithmetic_text(made.prompts[number]), reward_of(made, number)
            problem = Reasoning(
                prompt, model, reward, AfterTokens(2), max_steps=NUM_STEPS,
                target="telescoping" if "telescoping" in name else "product", extract=lambda text: text[-1:],
            )  # fmt: skip
            found = solve(method, problem, key=jr.key(number), budget=Budget(tokens=5_000, seconds=120), choose=choose)
            right += found.answer == arithmetic_text(made.answers[number])
            spent += [found.spent.tokens, found.spent.requests, found.spent.reward_calls, found.spent.seconds]
            lineages.append(found.trace["unique_lineages"])
        tokens, requests, rewards, seconds = spent
        print(f"{name:26}{right:5d}/{problems}{tokens:8.0f}{requests:10.0f}{rewards:9.0f}{seconds:9.1f}")
        if isinstance(method, StepFilter):
            axes.plot(1 + np.arange(NUM_STEPS), np.mean(lineages, axis=0), "o-", markersize=3, label=name)
    server.shutdown()
    axes.set(xlabel="step", ylabel="first steps with descendants")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(output / "local_server.png", dpi=110)
    print(f"wrote {output / 'local_server.png'}")


def reward_of(made, number: int) -> CallableReward:
    """An overconfident reward, as a function of the text."""
    live, values = jnp.asarray(made.live[number]), jnp.asarray(made.values[number], jnp.int32)
    reward = ArithmeticReward(live, values, jnp.asarray(number), jnp.asarray(KAPPA))

    def score(prefix) -> float:
        tokens = np.zeros(2 * NUM_STEPS, np.int32)
        tokens[: len(prefix.text)] = arithmetic_tokens(prefix.text)
        return float(reward(Written(jnp.asarray(tokens), jnp.asarray(len(prefix) - 1), None, None)))

    return CallableReward(score, scale="logit")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=5)
    parser.add_argument("--particles", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    main(**vars(parser.parse_args()))
