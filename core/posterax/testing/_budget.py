"""The error budget: how often a run of the kit may blame a correct component.

A run has m statistical checks. Each is first made at its own size and passes with a p-value above `SCREEN`. One that
does not is made again with fresh keys and `GROWTH` times the size, and fails only where that p-value is at most
`SCREEN / m`. The two runs share no random number (a component warmed up or fitted once for all checks is part of
what is judged), so for a correct component the chance that one check fails is at most
SCREEN * SCREEN / m, and the chance that a run of m checks blames it at all is at most SCREEN ** 2 = 1e-6, as far as the
p-values are right. They are p-values of Bonferroni's kind (the smallest of k tests, times k), so conservative where the
k tests depend on each other; `tests/contract/test_false_alarms.py` counts how often the screen rings by chance.

A fault is as a rule easier to see in the second run than in the first: in four times the size it stands out by twice
as many standard errors, and the second threshold lies less than 1.5 times as high as the first for any m up to 100. So
what a check can catch is decided by its screen.
"""

SCREEN = 1e-3
GROWTH = 4


def threshold(num_tests: int) -> float:
    """What the p-value of a repeated check must exceed, in a run of `num_tests` statistical checks."""
    return SCREEN / max(num_tests, 1)


def family_wise(num_tests: int) -> float:
    """The chance that a run of `num_tests` statistical checks blames a correct component, at most."""
    return num_tests * SCREEN * threshold(num_tests)
