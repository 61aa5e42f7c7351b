"""Two words, one of them with two pronunciations: small enough to try every path."""

import numpy as np

from refimpl.tasks.acoustic.hmm import States, Statistics
from refimpl.tasks.acoustic.lexicon import Lexicon

LEXICON = Lexicon({"a": (("ah",), ("ey",)), "no": (("n", "ow"),)}, "sil")
STATES = States(LEXICON.phones)


def random_case(seed, frames):
    """Return random likelihoods (frames, classes) and durations."""
    rng = np.random.default_rng(seed)
    loops = rng.uniform(0.2, 0.9, STATES.count)
    priors = np.full(STATES.count, 1 / STATES.count)
    return rng.normal(size=(frames, STATES.count)) * 3, Statistics(priors, loops)
