"""Who wants which command, two examples of each, and the help that is made of this."""

from __future__ import annotations

import argparse
from typing import Any

# Who reads -> command -> what its help ends with.  A command is listed here or it is none.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "student: see how it works": {
        "topology": (
            "./run_mpi.sh topology -n 8 --partition 2 --ranks-per-node 4",
            "./run_mpi.sh topology -n 8 --strategy gtc-bmuf --gtc-group 4 --parameters 1000000",
        ),
        "explain": (
            "./run_mpi.sh explain ring -p 4",
            "./run_mpi.sh explain mics -p 8 -k 4",
        ),
        "timeline": (
            "./run_mpi.sh timeline zero3.pftrace",
            "./run_mpi.sh timeline zero3.pftrace mics.pftrace --svg both.svg",
        ),
        "compare": (
            "./run_mpi.sh -n 4 compare mlp --strategies serial,ddp,bmuf --epochs 2",
            "./run_mpi.sh -n 4 compare acoustic_mlp --strategies ddp,gtc --for 'gtc --tau 8'",
        ),
    },
    "backend author: hold another implementation to this one": {
        "golden": (
            "./run_mpi.sh golden write bundles --cases 'layers/affine.*'",
            "./run_mpi.sh golden check theirs --quiet",
        ),
        "bench": (
            "./run_mpi.sh -n 4 bench",
            "./run_mpi.sh -n 2 bench step --collectives halving-doubling --repeats 20",
        ),
    },
    "cluster user: know the machine before the job": {
        "doctor": (
            "./run_mpi.sh doctor",
            "./run_mpi.sh -n 4 doctor",
        ),
        "plan": (
            "./run_mpi.sh plan --layers 32 --hidden 4096 -n 64 --ranks-per-node 8 --flops 1e14",
            "./run_mpi.sh plan --parameters 1e9 --units 24 -n 16 --flops 5e13 --memory 3.2e10",
        ),
        "simulate": (
            "./run_mpi.sh simulate mlp -n 16 --ranks-per-node 4 --strategy zero3 --flops 1e12",
            "./run_mpi.sh simulate mlp -n 4 --strategy zero2 --flops 1e12 --trace t.pftrace",
        ),
    },
    "trainer: models, runs and what comes of them": {
        "train": (
            "./run_mpi.sh -n 4 train acoustic_mlp --strategy mics --partition 2",
            "./run_mpi.sh -n 2 train mlp --set hidden=64 --epochs 3 --out runs/a",
        ),
        "evaluate": (
            "./run_mpi.sh -n 4 evaluate runs/a",
            "./run_mpi.sh -n 4 evaluate runs/a --data DIR",
        ),
        "decode": (
            "./run_mpi.sh -n 1 decode runs/a one.wav",
            "./run_mpi.sh -n 4 decode runs/a one.wav two.wav",
        ),
        "report": (
            "./run_mpi.sh report runs/a",
            "./run_mpi.sh report runs/a runs/b --out both.png",
        ),
        "checkpoint": (
            "./run_mpi.sh checkpoint show runs/a",
            "./run_mpi.sh checkpoint convert runs/a model.safetensors",
        ),
        "data": (
            "./run_mpi.sh -n 4 data synth DIR",
            "./run_mpi.sh -n 1 data synth DIR --rate 8000 --seed 1",
        ),
    },
}

EXAMPLES = {name: two for commands in GROUPS.values() for name, two in commands.items()}

WITHOUT_CHECKOUT = """\
`refimpl COMMAND --help` ends with two examples.  Where there is no run_mpi.sh, ranks are
started by `mpiexec -n RANKS python -m mpi4py -m refimpl COMMAND`, with OMP_NUM_THREADS=1."""


class Listing:
    """The commands of a parser as their files declare them: what each is for, and its examples.

    ``twice``: argparse is told what each is for, too, though its own list would repeat `text`.
    """

    def __init__(self, commands: Any, twice: bool = False) -> None:
        self._commands, self._twice = commands, twice
        self._words: dict[str, str] = {}

    def add_parser(self, name: str, help: str) -> Any:
        """Return the parser of a command, whose help ends with its examples."""
        self._words[name] = help
        epilog = "\n".join(["examples:", *(f"  {example}" for example in EXAMPLES[name])])
        return self._commands.add_parser(
            name,
            **({"help": help} if self._twice else {}),
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def text(self) -> str:
        """Return the commands in their groups, as the help of all of them ends."""
        lines = []
        for title, commands in GROUPS.items():
            lines += [
                title,
                *(f"    {name:<11} {self._words[name]}" for name in commands),
                "",
            ]
        return "\n".join([*lines, WITHOUT_CHECKOUT])
