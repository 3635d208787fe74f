"""Weighted sums over the nodes of a quadrature rule, in float64 NumPy."""

import numpy as np


def posterior_nodes(log_integrand: np.ndarray, log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Posterior probabilities of the nodes of a rule, and the log of the integral.

    - `log_integrand`: log of prior times likelihood at each node, any shape.
    - `log_weights`: log of the rule's weights, broadcastable against it.
    """
    log_terms = log_integrand + log_weights
    peak = log_terms.max()
    terms = np.exp(log_terms - peak)
    return terms / terms.sum(), float(peak + np.log(terms.sum()))


def mixture_moments(probs: np.ndarray, means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a mixture over axis 0, by the law of total variance."""
    mean = np.tensordot(probs, means, axes=1)
    return mean, np.sqrt(np.tensordot(probs, variances + (means - mean) ** 2, axes=1))
