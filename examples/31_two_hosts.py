"""One run over two processes, as over two machines: chains, training and a study divided over the devices of both.

python examples/31_two_hosts.py [--draws 500] [--output examples-output]

The script starts itself twice on this machine, two virtual devices each. On a cluster each machine starts it once, with
its own number and the address of the first; nothing else changes.
"""

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

TRUTH = 4 / 4.25, (1 / 4.25) ** 0.5  # mean and sd of a normal posterior: prior sd 2, one observation 1 with sd 0.5


def work(number: int, address: str, draws: int, output: Path) -> None:
    """What each process does."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # for CPUs; accelerators bring their own
    jax.distributed.initialize(address, num_processes=2, process_id=number)  # before anything is computed

    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np
    import numpyro
    import numpyro.distributions as dist
    from posterax import Plan, Target, get, sample, study

    def model(y):
        numpyro.sample("y", dist.Normal(numpyro.sample("x", dist.Normal(0, 2)), 0.5), obs=y)

    def simulate(truth, *, key):
        """How often the interval of a mean of 50 numbers holds it."""
        mean = truth + jr.normal(key, (50,)).mean()
        return {"covered": jnp.abs(mean - truth) < 1.96 / 50**0.5}

    plan = Plan(devices=len(jax.devices()))  # those of both processes
    found = sample(
        get("nuts")(num_warmup=300), Target.from_numpyro(model, np.array(1.0)), num_draws=draws, num_chains=8,
        key=jr.key(0), plan=plan, checkpoint=output / "two-hosts",
    )  # fmt: skip
    studied = study(simulate, np.linspace(-1, 1, 4000), key=jr.key(1), on=plan, at_once=50)
    x, summary = found["x"], found.summary()
    print(
        f"process {number} of {jax.process_count()}, {jax.local_device_count()} devices of {len(jax.devices())}: mean "
        f"{x.mean():.4f} +- {summary['mcse_mean'].max():.4f} (exact {TRUTH[0]:.4f}), sd {x.std():.4f} (exact "
        f"{TRUTH[1]:.4f}), R-hat {summary['r_hat'].max():.3f}; intervals of 95 % that hold the truth: "
        f"{studied['covered'].mean():.4f}",
        flush=True,
    )
    if number == 0:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
        grid = np.linspace(-1, 3, 300)
        for chain in range(8):
            side = f"process {chain // 4}" if chain % 4 == 0 else None
            axis.hist(x[chain], 40, range=(-1, 3), density=True, histtype="step", color=f"C{chain // 4}", label=side)
        exact = np.exp(-((grid - TRUTH[0]) ** 2) / (2 * TRUTH[1] ** 2)) / (TRUTH[1] * np.sqrt(2 * np.pi))
        axis.plot(grid, exact, color="0.2", linewidth=2, label="exact")
        axis.set(title="eight chains on the devices of two processes", xlabel="x", yticks=[])
        axis.legend(frameon=False)
        axis.spines[["top", "right", "left"]].set_visible(False)
        figure.savefig(output / "two_hosts.png", dpi=110)
        print(f"wrote {output / 'two_hosts.png'}")


def main(draws: int, output: Path) -> None:
    """Two processes, and what they say."""
    output.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, __file__, "--draws", str(draws), "--output", str(output), "--process"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, str(number), address], env=environment, **pipes) for number in range(2)]
    for process in both:
        out, err = process.communicate()
        if process.returncode:
            sys.exit(err)
        print("\n".join(line for line in out.splitlines() if not line.startswith("[Gloo]")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--output", type=Path, default=Path("examples-output"))
    parser.add_argument("--process", nargs=2, metavar=("NUMBER", "ADDRESS"), help="set by the script for itself")
    given = parser.parse_args()
    if given.process:
        work(int(given.process[0]), given.process[1], given.draws, given.output)
    else:
        main(given.draws, given.output)
