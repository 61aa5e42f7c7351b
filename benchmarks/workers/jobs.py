"""What one training run is, and how large the experiment is: data that files and names are of."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from refimpl.run.config import Recipe, Run
from refimpl.tasks.acoustic.settings import AcousticSettings

METHODS = ("serial", "ddp", "gtc", "bmuf", "gtc-bmuf")
FALLS_TO = 0.05  # the learning rate, over a run
RISES_FOR = 0.02  # of a run


class NotYet(Exception):
    """A result that is not there: nobody has begun it, or another process is at it."""


@dataclass(frozen=True)
class Job:
    """One training run.

    ``batch``: frames of a worker's step.  ``warm``: the share of the steps in which all workers
    are one group with dense sums, at first.  ``clip`` 0: none.  ``block_momentum`` None: 1 - 1/b.
    Options that a method does not have are left at their defaults here, so that equal runs have
    equal names.
    """

    method: str
    workers: int
    batch: int
    epochs: int
    seed: int
    lr: float
    momentum: float = 0.5
    clip: float = 0.0
    warm: float = 0.0
    tau: float = 0.0
    group: int = 1
    block_steps: int = 0
    block_momentum: float | None = None

    @property
    def name(self) -> str:
        """The name of its file: it says what matters, and is no other job's."""
        return f"{self.method}-{self.workers}-epochs{self.epochs}-seed{self.seed}-{self.digest}"

    @property
    def digest(self) -> str:
        """Ten hexadecimal digits of what it is."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:10]

    def run(self, steps: int = 0) -> Run:
        """Return it as `refimpl train` knows it, of so many steps in all."""
        methods: dict[str, Any] = {}
        if self.method in ("gtc", "gtc-bmuf"):
            methods["tau"] = self.tau
        if self.method in ("bmuf", "gtc-bmuf"):
            methods["block_steps"] = self.block_steps
            methods["block_momentum"] = self.block_momentum
        if self.method == "gtc-bmuf":
            methods["gtc_group"] = self.group
        warm = round(self.warm * steps)
        if warm:
            methods["gtc_warmup" if self.method == "gtc" else "warm_start"] = warm
        recipe = Recipe(
            "acoustic",
            epochs=self.epochs,
            lr=self.lr,
            batch=self.batch,
            optimizer="momentum",
            momentum=self.momentum,
            clip=self.clip,
            schedule="exponential",
            warmup=RISES_FOR * self.epochs,
            decay=FALLS_TO ** (1 / self.epochs),
        )
        methods = {key: value for key, value in methods.items() if value is not None}
        return Run("acoustic_mlp", recipe, strategy=self.method, methods=methods, seed=self.seed)

    def told(self) -> str:
        """Return what was searched, in words."""
        words = [f"lr {self.lr:g}", f"momentum {self.momentum:g}"]
        words += [f"clip {self.clip:g}"] * bool(self.clip)
        words += [f"warm start {self.warm:.0%}"] * bool(self.warm)
        words += [f"tau {self.tau:g}"] * bool(self.tau)
        return ", ".join(words)


@dataclass(frozen=True)
class Size:
    """How large the experiment is.

    ``seeds``: by number of workers.  ``trials``: of the search, for each method and number of
    workers, of ``trial_epochs`` each, with a seed of their own.  ``options``: of the network.
    ``penalties``: of a word, of which dev chooses.  ``draws``: of the test set, for intervals.
    """

    utterances: dict[str, int]
    speakers: dict[str, int]
    options: dict[str, str]
    workers: tuple[int, ...]
    seeds: dict[int, int]
    batch: int
    group: int
    block_steps: int
    epochs: int
    trial_epochs: int
    trials: int
    cause_trials: int
    search_seed: int = 100
    penalties: tuple[float, ...] = AcousticSettings.word_penalties
    draws: int = 2000

    def plain(self) -> dict[str, Any]:
        """Return it as it comes back from a JSON file."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def start(self, method: str) -> Job:
        """Return where the search of a method begins, on the fewest workers."""
        lr = {"serial": 0.0625, "ddp": 0.25, "gtc": 0.5, "bmuf": 0.0625, "gtc-bmuf": 0.25}[method]
        job = Job(
            method,
            1 if method == "serial" else self.workers[0],
            self.batch,
            self.trial_epochs,
            self.search_seed,
            lr,
        )
        if "gtc" in method:
            job = replace(job, tau=2.0)
        if "bmuf" in method:
            job = replace(job, block_steps=self.block_steps)
        return replace(job, group=self.group) if method == "gtc-bmuf" else job


FULL = Size(
    utterances={"train": 7200, "dev": 400, "test": 1000},
    speakers={"train": 900, "dev": 50, "test": 125},
    options={"hidden": "128", "depth": "3"},
    workers=(32, 64, 128),
    seeds={32: 3, 64: 3, 128: 2},
    batch=32,
    group=8,
    block_steps=50,
    epochs=5,
    trial_epochs=2,
    trials=14,
    cause_trials=4,
)
QUICK = Size(
    utterances={"train": 5, "dev": 2, "test": 2},
    speakers={"train": 2, "dev": 1, "test": 1},
    options={"hidden": "8", "depth": "1"},
    workers=(2, 4),
    seeds={2: 2, 4: 1},
    batch=32,
    group=2,
    block_steps=5,
    epochs=1,
    trial_epochs=1,
    trials=2,
    cause_trials=1,
    penalties=(-3.0,),
    draws=50,
)
