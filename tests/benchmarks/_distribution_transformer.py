"""Distribution transformers by shipped checkpoints: distance to exact posteriors, calibration, filtering, speed."""

import time

import numpy as np
from _study import FULL, kept, study
from _timing import ROOT, Figure, fresh, matrix_product, rows, spread

NUM_PROBLEMS, PAIRED, REPEATS, BATCH = 10_000, 4000, 15, 1000
SEEDS = 3
DIMENSIONS, NUM_COMPONENTS = (1, 2, 4, 8, 16, 24), 8


def _pretrained(name):
    from posterax_distribution_transformer import pretrained

    return pretrained(name)


def _told(found) -> str:
    kl = found.kl
    return (
        f"KL mean {kl.mean():.5f}, median {np.median(kl):.5f}, 95 % {np.quantile(kl, 0.95):.5f}, {len(kl)} problems; "
        f"best single normal {found.best_normal.mean():.4f}"
    )


@rows("kl-wide", "kl-narrow")
def variance():
    """Experiment 4.1 by the shipped checkpoint, scored by quadrature; narrow and shifted priors were not trained on."""
    import jax.random as jr
    from posterax_distribution_transformer import NormalVariance
    from posterax_distribution_transformer._scores import score

    fitted = _pretrained("normal-variance")
    cases = {"wide": (4.0, 6.0), "narrow": (1e4, 2e4), "shifted": (24.0, 6.0)}
    found = {name: score(fitted, NormalVariance(*case), NUM_PROBLEMS, key=jr.key(777)) for name, case in cases.items()}
    yield "kl-wide", Figure(float(found["wide"].kl.mean()), _told(found["wide"]))
    text = (
        f"{_told(found['narrow'])}\nshifted, InverseGamma(24, 6), out of range and flagged: {_told(found['shifted'])}"
    )
    yield "kl-narrow", Figure(float(found["narrow"].kl.mean()), text)


def train_variance(seed: int, trunk: str = "transformer") -> dict:
    """A training of the shipped settings, scored."""
    import jax.random as jr
    from posterax_distribution_transformer import DistributionTransformer, NormalVariance
    from posterax_distribution_transformer._scores import score

    estimator = DistributionTransformer(depth=2, num_steps=20_000, batch_size=512, trunk=trunk)
    fitted = estimator.fit(NormalVariance().problem(), key=jr.key(seed), progress=False)
    cases = {"wide": NormalVariance(), "narrow": NormalVariance(1e4, 2e4)}
    return {name: score(fitted, case, NUM_PROBLEMS, key=jr.key(778)).card() for name, case in cases.items()}


@rows("training-seeds", "deep-sets")
def trainings():
    """The same training by three seeds; and by deep sets, which see the prior as features. Long: FULL=1."""
    for row, trunk in (("training-seeds", "transformer"), ("deep-sets", "deepsets")):
        over = range(SEEDS if trunk == "transformer" else 1)
        name = f"dt-{trunk}"
        found = study(name, over, lambda s, t=trunk: train_variance(s, t)) if FULL else list(kept(name, over).values())
        if len(found) < len(over):
            yield row, Figure(None, "has not been trained: FULL=1 make bench NAME=distribution_transformer")
            continue
        means = [(one["wide"]["kl_mean"], one["narrow"]["kl_mean"]) for one in found]
        told = [f"seed {i}: wide {wide}, narrow {narrow}" for i, (wide, narrow) in enumerate(means)]
        yield row, Figure(len(found), "mean KL: " + "; ".join(told))


@rows("coverage", "controls")
def calibration():
    """Shares of truths in regions of 50, 80 and 95 %, for all problems and for thirds of prior and data."""
    import equinox as eqx
    import jax.random as jr
    from numpyro.distributions import InverseGamma
    from posterax_distribution_transformer import InferenceProblem, NormalVariance, calibrate

    fitted, problem = _pretrained("normal-variance"), NormalVariance().problem()
    found = calibrate(fitted, problem, NUM_PROBLEMS, key=jr.key(5))
    table = found.coverage()
    off = max(
        float((np.abs(table[level] - level) / np.sqrt(level * (1 - level) / table["problems"])).max())
        for level in (0.5, 0.8, 0.95)
    )
    yield "coverage", Figure(off, f"{found.words}\n{table.to_string(float_format='%.3f')}")

    def elsewhere(latent, *, key):
        one, two = jr.split(key)
        return problem.simulate(problem.prior(one).sample(two), key=key)

    def another(prior, *, key):
        return InverseGamma(prior.concentration / 1.3, prior.rate).sample(key)

    narrow = eqx.tree_at(lambda f: f.scales.latent.size, fitted, 0.7 * fitted.scales.latent.size)
    faults = {
        "data of another latent": (fitted, InferenceProblem(problem.prior, elsewhere)),
        "scales times 0.7": (narrow, problem),
        "another prior than told": (fitted, InferenceProblem(problem.prior, problem.simulate, latent=another)),
    }
    words = {name: calibrate(*case, 2000, key=jr.key(6)).words for name, case in faults.items()}
    rang = sum(text.startswith("Posteriors are off") for text in words.values())
    yield "controls", Figure(rang, "\n".join(f"{name}: {text}" for name, text in words.items()))


@rows("conjugate")
def conjugate():
    """Linear-Gaussian problems with mixture priors: the exact posterior is a mixture, so the divergence could be 0."""
    import jax.random as jr
    from posterax_distribution_transformer import PRETRAINED, LinearGaussian, MixtureMetaPrior
    from posterax_distribution_transformer._scores import score

    lines = []
    for name, size in (("gaussian-mixture-1d", None), ("gaussian-mixture-2d", 2)):
        for num in (2, 4, 8, 16) if name in PRETRAINED else ():
            case = LinearGaussian.of(MixtureMetaPrior(num, size))
            lines.append(f"{size or 1}-D, {num} components (4 in training): " + _told(
                score(_pretrained(name), case, 1000, key=jr.key(num))))  # fmt: skip
    yield "conjugate", Figure(len(lines), "\n".join(lines))


def train_dimension(index: int, residual: bool = False) -> dict:
    """Mixture priors of 8 components in n dimensions, four random combinations seen (C.1); other numbers too (C.4)."""
    import jax.random as jr
    from posterax_distribution_transformer import DistributionTransformer, LinearGaussian, MixtureMetaPrior
    from posterax_distribution_transformer._scores import score

    size = DIMENSIONS[index]

    def case(num):
        return LinearGaussian.of(MixtureMetaPrior(num, size, concentration=1.0), num=4)

    settings = {"width": 48, "hidden": 96, "depth": 3, "num_steps": 3000, "batch_size": 256}
    estimator = DistributionTransformer(**settings, residual=residual)
    fitted = estimator.fit(case(NUM_COMPONENTS).problem(), key=jr.key(index), progress=False)
    found = {str(num): score(fitted, case(num), 1000, key=jr.key(num)).card() for num in (2, 4, NUM_COMPONENTS, 16)}
    return {"size": size, "components": found}


@rows("dimension")
def dimensions():
    """The divergence as the dimension grows, at a fixed small training (3,000 steps of 256). Long: FULL=1."""
    over, lines, count = range(len(DIMENSIONS)), [], 0
    for name, residual in (("dt-dimension", False), ("dt-dimension-residual", True)):
        run = lambda index, residual=residual: train_dimension(index, residual)  # noqa: E731
        found = study(name, over, run) if FULL else list(kept(name, over).values())
        count += 0 if residual else len(found)
        for one in found:
            each = ", ".join(f"{num} components {card['kl_mean']:.3f}" for num, card in one["components"].items())
            best = one["components"][str(NUM_COMPONENTS)]["best_normal_kl_mean"]
            head = "residual head" if residual else "head as published"
            lines.append(f"{one['size']}-D, {head}: mean KL {each}; best normal {best:.3f}")
    if count < len(over):
        yield "dimension", Figure(None, "has not been trained: FULL=1 make bench NAME=distribution_transformer")
        return
    yield "dimension", Figure(count, "\n".join(lines))


@rows("baselines")
def baselines():
    """Experiment 4.1 by every method: quadrature, network, best normal, SVI of one and five normals, NUTS."""
    from _amortised_baselines import variances

    lines = variances(_pretrained("normal-variance"), 500)
    yield "baselines", Figure(len(lines), "\n".join(lines))


@rows("tracking")
def tracking():
    """Example 16 with fewer and with more particles: network, particles, Kalman filters."""
    import subprocess
    import sys
    import tempfile

    told = ""
    for particles in (1000, 5000):
        with tempfile.TemporaryDirectory() as folder:
            run = [sys.executable, str(ROOT / "examples" / "16_tracking.py"), "--particles", str(particles)]
            told += subprocess.run([*run, "--output", folder], check=True, capture_output=True, text=True).stdout
    yield "tracking", Figure(told.count("particles  "), told)


def _gap(name: str, experiment, row: str):
    @rows(row)
    def measure():
        import jax.random as jr
        from posterax_distribution_transformer import PRETRAINED
        from posterax_distribution_transformer._scores import score

        if name not in PRETRAINED:
            yield row, Figure(None, f"no {name} among the pretrained")
            return
        found = score(_pretrained(name), experiment(), PAIRED, key=jr.key(4))
        error = found.gap.std() / np.sqrt(PAIRED)
        if error > 0.01:
            raise RuntimeError(f"the standard error of the gap is {error:.4f}, above 0.01")
        yield row, Figure(float(found.gap.mean()), f"{found.gap.mean():.4f} +- {error:.4f} nats; {_told(found)}")

    return measure


def _quantum():
    from posterax_distribution_transformer import QuantumParameter

    return QuantumParameter()


def _length():
    from posterax_distribution_transformer import LengthScale

    return LengthScale()


@rows("filter")
def filtering():
    """Filtering by the network against the exact mixture filter: a level that moves, seen in noise of variance 1."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpyro.distributions as dist
    from posterax_distribution_transformer import LinearDynamics, filter_mixture, linear_update, split

    fitted, steps, many = _pretrained("gaussian-mixture-1d"), 100, 200
    dynamics = LinearDynamics(jnp.array([[0.95]]), jnp.array([[0.1]]))
    start = split(dist.Normal(0.0, 1.0), 4)

    def exact(parts, seen):
        return linear_update(parts, jnp.eye(1), jnp.eye(1), seen)

    def one(key):
        first, moves, noise = jr.split(key, 3)
        move = lambda x, step: (0.95 * x + step, x)  # noqa: E731
        x = jax.lax.scan(move, jr.normal(first), np.sqrt(0.1) * jr.normal(moves, (steps,)))[1]
        seen = (x + jr.normal(noise, (steps,)))[:, None]
        laws = [filter_mixture(update, seen, initial=start, dynamics=dynamics) for update in (fitted, exact)]
        return [jax.vmap(lambda parts, x: parts.log_prob(x))(law.parts, x[:, None]) for law in laws]

    found, truth = (np.asarray(rows) for rows in jax.jit(jax.vmap(one))(jr.split(jr.key(0), many)))
    gap = (truth - found).mean(axis=0)
    parts = "; ".join(f"steps {i}-{i + 19}: {gap[i : i + 20].mean():.4f}" for i in range(0, steps, 20))
    yield "filter", Figure(steps, f"NLL above the exact filter's, nats a step, {many} series: {parts}")


def speed() -> dict[str, list[float]]:
    """Seconds of a batch, of single posteriors, of quadrature and of NUTS, beside a matrix product's; and compiling."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpyro.distributions as dist
    from _amortised_baselines import nuts as one_chain
    from posterax_distribution_transformer import DistributionTransformer, NormalVariance
    from posterax_distribution_transformer._estimator import _survey
    from posterax_distribution_transformer._spec import spec_of

    fitted = _pretrained("normal-variance")
    shapes = jnp.linspace(1.0, 5.0, BATCH)
    prior, seen = dist.InverseGamma(shapes, 2.0 * jnp.ones(BATCH)), jnp.linspace(-3.0, 3.0, BATCH)
    alone = dist.InverseGamma(2.0, 2.0)

    def clocked(call):
        began = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(call()))
        return time.perf_counter() - began

    many = jax.jit(lambda seen, prior: fitted.infer(seen, prior=prior))
    settings = DistributionTransformer(width=64, heads=8, depth=6, hidden=256)
    spec = spec_of(NormalVariance().problem(), 5, False, key=jr.key(0))
    scales, around = _survey(NormalVariance().problem(), spec, jr.key(1))
    import dataclasses

    network = settings._network(spec, jr.key(2))
    large = dataclasses.replace(settings, network=network, spec=spec, scales=scales, range=around)
    published = jax.jit(lambda seen, prior: large.infer(seen, prior=prior))

    def potential(y, shape, seen):
        return (shape + 0.5) * y + (2.0 + 0.5 * seen**2) * jnp.exp(-y)

    @jax.jit
    def nuts(key):
        def chain(key, shape, seen):
            return one_chain(lambda y: -potential(y, shape, seen), key=key, warmup=100, draws=100)

        return jax.vmap(chain)(jr.split(key, BATCH), shapes, seen)

    @jax.jit
    def quadrature(shapes, seen):
        y = jnp.linspace(-15.0, 15.0, 1001)
        log_joint = jax.vmap(lambda shape, seen: -potential(y, shape, seen))(shapes, seen)
        return jax.nn.softmax(log_joint, -1) @ y

    calls = {
        "batch": lambda: many(seen, prior),
        "one": lambda: many(seen[0], alone),
        "one, checked": lambda: fitted.infer(1.3, prior=alone),
        "paper's size": lambda: published(seen, prior),
        "quadrature": lambda: quadrature(shapes, seen),
        "NUTS": lambda: nuts(jr.key(0)),
    }
    found = {"compile": [clocked(calls["batch"])]}
    for call in calls.values():
        clocked(call)
    for name, call in calls.items():
        repeats = 20 if name.startswith("one") else 1
        found[name] = [min(clocked(call) for _ in range(repeats)) for _ in range(3 if name == "NUTS" else REPEATS)]
    found["matrix product"] = [matrix_product() for _ in range(REPEATS)]
    return found


@rows("batch-ms", "one-ms", "compile-s")
def timing():
    """A thousand posteriors of experiment 4.1 in one batch, one alone, and the first call."""
    found = fresh("distribution_transformer", "speed")
    batch = np.median(found["batch"])
    others = ("quadrature", "NUTS", "paper's size", "matrix product")
    ratios = ", ".join(f"{name} {np.median(found[name]) / batch:.2f}" for name in others)
    text = f"{spread(1e3 * np.array(found['batch']), 1)} ms; as multiples of it: {ratios} "
    text += "(NUTS: 100 warm-up steps and 100 draws of each, vectorised)"
    yield "batch-ms", Figure(1e3 * batch, text)
    alone = f"jitted {spread(1e3 * np.array(found['one']))} ms; checked {1e3 * np.median(found['one, checked']):.2f} ms"
    yield "one-ms", Figure(1e3 * float(np.median(found["one"])), alone)
    yield "compile-s", Figure(found["compile"][0], f"{found['compile'][0]:.1f} s, no cache")


MEASURES = (
    variance, trainings, calibration, conjugate, dimensions, baselines, tracking,
    _gap("quantum-parameter", _quantum, "quantum-gap"), _gap("length-scale", _length, "length-gap"), filtering, timing,
)  # fmt: skip
