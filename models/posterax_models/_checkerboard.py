"""A checkerboard whose two coordinates are written in bits: a discrete law with sharp edges and exact marginals."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Checkerboard(eqx.Module):
    """Points on a grid of 2^bits by 2^bits, each axis in Gray code: uniform on the black squares of a checkerboard.

    - `bits`: of an axis; there are 2 `bits` variables, 0 or 1, those of the first axis first.
    - `squares`: along an axis, a power of 2.
    - `white`: weight of a point on a white square, of one on a black one; 0 makes half of the assignments impossible.

    Source: after Zhang et al. (2022), arXiv:2202.01361, section 5.1, with fewer bits.
    """

    bits: int = eqx.field(static=True, default=6)
    squares: int = eqx.field(static=True, default=4)
    white: float = 0.0

    def __check_init__(self):
        if not (self.squares >= 2 and self.squares & (self.squares - 1) == 0 and self.squares <= 2**self.bits):
            raise ValueError(f"`squares` must be a power of 2, between 2 and 2^bits; got {self.squares}.")
        if not 0 <= self.white <= 1:
            raise ValueError(f"`white` must be between 0 and 1; got {self.white}.")

    @property
    def num_variables(self) -> int:
        """D."""
        return 2 * self.bits

    def log_weight(self, x: Int[Array, "... D"]) -> Float[Array, "..."]:
        """Log f, in nats: 0 on black squares, log `white` on others."""
        places = self.points(x) * self.squares // 2**self.bits
        return jnp.where(places.sum(-1) % 2 == 0, 0.0, jnp.log(self.white))

    def points(self, x: Int[Array, "... D"]) -> Int[Array, "... 2"]:
        """Both coordinates, 0 to 2^bits - 1."""
        gray = jnp.asarray(x).reshape(*jnp.shape(x)[:-1], 2, self.bits)
        binary = jnp.cumsum(gray, -1) % 2
        return jnp.sum(binary * 2 ** jnp.arange(self.bits)[::-1], -1)

    def assignments(self, points: Int[Array, "... 2"]) -> Int[Array, "... D"]:
        """The bits of coordinates: the inverse of `points`."""
        points = jnp.asarray(points)
        gray = points ^ (points >> 1)
        bits = (gray[..., None] >> jnp.arange(self.bits)[::-1]) & 1
        return bits.reshape(*points.shape[:-1], self.num_variables)

    def sample(self, num: int, *, key: PRNGKeyArray) -> Int[Array, "num D"]:
        """Independent exact draws."""
        side = np.arange(2**self.bits)
        grid = jnp.asarray(np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2))
        probs = jnp.exp(self.log_weight(self.assignments(grid)))
        return self.assignments(grid[jr.choice(key, len(grid), (num,), p=probs / probs.sum())])
