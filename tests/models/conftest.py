import numpy as np
import pytest


@pytest.fixture
def assert_mean():
    """Two-sided z-tests on independent replicates along axis 0, entry by entry.

    At 5 standard errors each entry of a correct program fails once in 1.7 million keys; the keys here are
    fixed, so a pass stays a pass. The smallest fault caught for sure is about 10 standard errors: 10 sd /
    sqrt(replicates).
    """

    def check(replicates, truth, *, sigmas=5.0):
        replicates = np.asarray(replicates, np.float64)
        error = replicates.mean(0) - np.asarray(truth)
        z = error / (replicates.std(0, ddof=1) / np.sqrt(len(replicates)))
        assert np.all(np.abs(z) < sigmas), f"off by {np.max(np.abs(z)):.1f} standard errors: {error}"

    return check


@pytest.fixture
def assert_standard_normal(assert_mean):
    """z-tests that rows are independent draws of N(0, I): all means, variances, products of entries."""

    def check(rows):
        rows = np.asarray(rows, np.float64)
        assert_mean(rows, 0.0)
        first, second = np.triu_indices(rows.shape[1])
        assert_mean(rows[:, first] * rows[:, second], np.where(first == second, 1.0, 0.0))

    return check
