r"""The sparse variational Student-t process, and its Gaussian twin.

The prior has one latent function a class and one scale for all of them, $f_c | s \sim GP(0, s K)$. What the data tell
is kept in the values $u_c$ at M inducing points Z:

    prior       s ~ H            u_c | s ~ N(0, s K_ZZ)
    posterior   q(s)             u_c | s ~ N(m_c, s S_c)           q(s) = InverseGamma(a, b), or a point
    marginals   f_c(x) | s ~ N(A m_c, s (B + A S_c A')),           A = K_xZ K_ZZ^-1,  B = K_xx - A K_Zx

With q(s) = InverseGamma(a, b) the marginals are Student-t with 2a degrees of freedom and b/a times that matrix, jointly
over classes through s. All of it is held in whitened coordinates, $u_c = L v_c$ with $K_{ZZ} = L L'$: then
$v_c | s \sim N(0, s I)$ a priori and $N(\mu_c, s R_c R_c')$ after, and no matrix is ever inverted.

$K_{ZZ}$ is the same matrix wherever it stands: with the jitter, whose meaning is that u is f(Z) with a little noise of
variance s times jitter. So the bound stays a bound.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._variational_scale import PointScale, Scalar, Scale, scale_at_prior

Covariance = Literal["full", "diagonal"]


class Marginals(eqx.Module):
    """Of f at n points given s: f_c(x_i) is normal with mean `mean[i, c]` and variance s `variance[i, c]`."""

    mean: Float[Array, "n classes"]
    variance: Float[Array, "n classes"]


class SparseProcess(eqx.Module):
    """q(s), q(u | s), inducing points and kernel: all that is learnt.

    - `log_kernel`, `rest_of_kernel`: the kernel with logarithms for its positive numbers, and what is not learnt of it:
      a zero, or an array that holds one.
    - `inducing`: `(M, ...)`, points like rows of x.
    - `mean`: `(C, M)`, the whitened means; so m_c = L mean_c.
    - `root`: the whitened covariances' Cholesky factors R_c, logarithms on the diagonal: `(C, M, M)`, of which the
      upper triangle is not used; or `(C, M)` for diagonal ones, which are diagonal in whitened coordinates.
    - `scale`: q(s) with its prior.
    - `jitter`: added to the diagonal of K_ZZ, as a part of its mean.
    """

    log_kernel: PyTree
    rest_of_kernel: PyTree
    inducing: Float[Array, "points ..."]
    mean: Float[Array, "classes points"]
    root: Float[Array, "classes ..."]
    scale: Scale
    jitter: float = eqx.field(static=True)

    @classmethod
    def at_prior(
        cls, kernel: Any, inducing: Array, num_classes: int, scale_prior: Any, covariance: Covariance, jitter: float
    ) -> "SparseProcess":
        """Begin with q equal to the prior."""
        learnt, rest = _split(kernel)
        num = inducing.shape[0]
        shape = (num_classes, num) if covariance == "diagonal" else (num_classes, num, num)
        zeros = jnp.zeros((num_classes, num))
        return cls(learnt, rest, inducing, zeros, jnp.zeros(shape), scale_at_prior(scale_prior), jitter)

    @property
    def kernel(self) -> Any:
        """The kernel as it stands."""
        return eqx.combine(jax.tree.map(jnp.exp, self.log_kernel), self.rest_of_kernel)

    def trainable(self, *, kernel: bool, inducing: bool, point: bool = True) -> "SparseProcess":
        """Which leaves are learnt, as a process of booleans; `point`: a scale that is one number. q always is."""
        none = jax.tree.map(lambda _: False, self)
        free = {"mean": True, "root": True, "inducing": inducing, "log_kernel": kernel}
        of_scale = ("log_value",) * point if isinstance(self.scale, PointScale) else ("log_shape", "log_rate")

        def chosen(process: SparseProcess) -> list:
            leaves = [leaf for name, yes in free.items() if yes for leaf in jax.tree.leaves(getattr(process, name))]
            return leaves + [getattr(process.scale, name) for name in of_scale]

        return eqx.tree_at(chosen, none, replace_fn=lambda _: True)

    def factors(self) -> Float[Array, "classes points points"]:
        """The lower-triangular R_c."""
        if self.root.ndim == 2:
            return jax.vmap(jnp.diag)(jnp.exp(self.root))
        diagonal = jnp.exp(jnp.diagonal(self.root, axis1=1, axis2=2))
        return jnp.tril(self.root, -1) + jax.vmap(jnp.diag)(diagonal)

    def marginals(self, x: Float[Array, "n ..."]) -> Marginals:
        """Mean and variance, given s = 1, of each f_c(x_i)."""
        kernel = self.kernel
        whitened = self._whitened(kernel, x)
        left = jnp.maximum(kernel.diag(x) - jnp.sum(whitened**2, axis=0), 0.0)  # below zero by rounding only
        if self.root.ndim == 2:
            explained = jnp.exp(2 * self.root) @ whitened**2
        else:
            explained = jnp.sum(jnp.einsum("cij,in->cjn", self.factors(), whitened) ** 2, axis=1)
        return Marginals(whitened.T @ self.mean.T, (left + explained).T)

    def joint(self, x: Float[Array, "n ..."]) -> tuple[Float[Array, "n classes"], Float[Array, "classes n n"]]:
        """Mean and, given s = 1, covariance of f at all points; given s, classes are independent."""
        kernel = self.kernel
        whitened = self._whitened(kernel, x)
        spread = jnp.einsum("cij,in->cjn", self.factors(), whitened)
        covariance = kernel.nngp(x) - whitened.T @ whitened + jnp.einsum("cjn,cjm->cnm", spread, spread)
        return whitened.T @ self.mean.T, covariance

    def divergence(self) -> Scalar:
        """KL(q(s, u) || p(s, u)) in nats."""
        points = self.mean.shape[1]
        if self.root.ndim == 2:
            log_roots, trace = self.root, jnp.sum(jnp.exp(2 * self.root))
        else:
            log_roots, trace = jnp.diagonal(self.root, axis1=1, axis2=2), jnp.sum(self.factors() ** 2)
        quad = jnp.sum(self.mean**2) / self.scale.level
        gaussian = 0.5 * (quad + trace - self.mean.shape[0] * points) - jnp.sum(log_roots)
        return gaussian + self.scale.divergence()

    def _whitened(self, kernel: Any, x: Array) -> Float[Array, "points n"]:
        """L^-1 K_Zx."""
        matrix = kernel.nngp(self.inducing)
        matrix += self.jitter * jnp.mean(jnp.diagonal(matrix)) * jnp.eye(matrix.shape[0])
        return jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(matrix), kernel.nngp(self.inducing, x), lower=True)


def _split(kernel: Any) -> tuple[PyTree, PyTree]:
    """Logarithms of the kernel's positive numbers, which are learnt, and the rest of it."""
    is_number = lambda leaf: eqx.is_inexact_array_like(leaf) or type(leaf) is int  # noqa: E731
    positive = jax.tree.map(lambda leaf: bool(is_number(leaf) and jnp.all(jnp.asarray(leaf) > 0)), kernel)
    learnt, rest = eqx.partition(kernel, positive)
    return jax.tree.map(lambda leaf: jnp.log(jnp.asarray(leaf, float)), learnt), rest
