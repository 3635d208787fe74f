"""A training step of the order-agnostic loss on a residual perceptron, ours and PyTorch's, on the same network."""

import functools
import sys

import _serve
import numpy as np

SIZE, WIDTH, DEPTH, BATCH, STEPS = 64, 256, 2, 128, 50


def rows(size: int = SIZE) -> np.ndarray:
    """Binary rows, `(1500, size)`."""
    return np.random.default_rng(0).integers(0, 2, (1500, size))


def ours(size: int = SIZE):
    """Fifty steps by `train`, compiled at the first call."""
    import jax.numpy as jnp
    import jax.random as jr
    import optax
    from posterax import Batches, train
    from posterax_marginalization import Dense, Marginals, OrderAgnostic, Rows

    model = Marginals.init((2,) * size, Dense(WIDTH, DEPTH), Dense(1, 1), key=jr.key(0))
    x = jnp.asarray(rows(size))
    batches, optimiser = Batches(Rows(x, jnp.ones(x.shape, bool)), BATCH), optax.adam(1e-3)

    def once():
        found = train(
            model, OrderAgnostic(), batches, num_steps=STEPS, key=jr.key(1), optimiser=optimiser, progress=False
        )
        return float(found.losses[-1])

    return once


def theirs(size: int = SIZE):
    """The same in PyTorch, on as many threads as is faster."""
    import time

    import torch

    gelu = torch.nn.functional.gelu

    def standardised(h):
        return h * torch.rsqrt((h**2).mean(-1, keepdim=True) + 1e-6)

    torch.manual_seed(0)
    data = torch.tensor(rows(size))

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            wide = 3 * size
            self.first = torch.nn.Linear(wide, WIDTH)
            self.inner = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
            self.outer = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH))
            self.last = torch.nn.Linear(WIDTH, 2 * size)
            self.skip = torch.nn.Linear(wide, 2 * size, bias=False)

        def forward(self, x, observed):
            seen = torch.nn.functional.one_hot(torch.where(observed, x + 1, 0), 3).float().flatten(1)
            h = self.first(seen)
            for inner, outer in zip(self.inner, self.outer, strict=True):
                h = h + outer(gelu(inner(standardised(h)), approximate="tanh"))
            out = self.last(gelu(standardised(h), approximate="tanh")) + self.skip(seen)
            return out.unflatten(1, (size, 2))

    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)

    def steps():
        for _ in range(STEPS):
            x = data[torch.randint(len(data), (BATCH,))]
            ranks = torch.rand(BATCH, size).argsort(1).argsort(1)
            known = torch.randint(size, (BATCH, 1))
            observed = ranks < known
            logs = torch.log_softmax(network(x, observed), -1).gather(2, x[..., None])[..., 0]
            each = -size * (logs * ~observed).sum(1) / (size - known[:, 0])
            loss = each.mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return loss.item()

    def seconds(threads):
        torch.set_num_threads(threads)
        steps()
        began = time.perf_counter()
        steps()
        return time.perf_counter() - began

    @functools.cache
    def settled():
        torch.set_num_threads(min((1, 2), key=seconds))

    def once():
        settled()
        return steps()

    return once


if __name__ == "__main__":
    _serve.serve({"ours": ours, "theirs": theirs}[sys.argv[1]])
