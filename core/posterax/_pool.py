"""Enough worker threads for JAX on small machines.

On the CPU jaxlib (seen in 0.10.2) factorises a batch of matrices in parts, which it hands to the threads of XLA's pool;
the thread that began waits for them without helping. Where as many such calls are under way at once as there are
threads, all wait for ever: on two cores, NUTS over many particles of a Gaussian process does. Threads that wait cost
next to nothing, so there should be many. XLA asks for their number once, when it first computes.
"""

import os

LEAST = 16


def enlarge() -> None:
    """Ask for `LEAST` threads where there are fewer cores. A number that the user has set in NPROC stays."""
    if "NPROC" not in os.environ and cores() < LEAST:
        os.environ["NPROC"] = str(LEAST)


def cores() -> int:
    """Those that this process may use, as XLA counts them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
