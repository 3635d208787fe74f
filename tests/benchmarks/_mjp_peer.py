"""A peer's rates of a panel, in its own environment: `python _mjp_peer.py FILE`; prints one line of JSON.

cthmm has no likelihood of snapshots: it takes states to last until the next row and counts. Labels are told to be true.
"""

import json
import sys
import time

import numpy as np
from cthmm import MultinomialCTHMM

data = np.load(sys.argv[1])
states, times, size = data["states"], data["times"], int(data["num_states"])
horizon = times[-1] - times[0]
rates = np.full((size, size), 1.0 / horizon)
np.fill_diagonal(rates, -(size - 1) / horizon)
emission = 0.999 * np.eye(size) + 0.001 / size  # 0 and 1 give it NaN
model = MultinomialCTHMM(n_states=size, Q=rates, startprob=np.full(size, 1 / size), emission_probs=emission)
pairs = [(path, times) for path in states]
began = time.perf_counter()
model.fit_Q(pairs)
print(json.dumps({"seconds": time.perf_counter() - began, "rates": np.asarray(model.Q).tolist()}))
