"""On MPI: a rank that differs is named on all ranks, and none waits for another."""

from dataclasses import replace

import pytest

from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.trainer import Trainer
from refimpl.support.errors import UserError
from refimpl.world.agree import same

RUN = Run("mlp", Recipe(task="images", epochs=1, lr=0.1, batch=32), {"hidden": "8"}, steps=1)


def test_a_value_that_is_another_on_the_last_rank_is_named_on_all(world):
    same(world, {"--seed": 3, "--lr": float("nan")})
    last = world.size - 1
    if last:
        with pytest.raises(UserError, match=f"^ranks differ: --seed is 0 on .* 1 on rank {last}:"):
            same(world, {"--seed": int(world.rank == last), "--lr": float("nan")})


@pytest.mark.parametrize("change", [{"seed": 1}, {"strategy": "bmuf"}, {"dtype": "float64"}])
def test_a_run_that_is_another_on_the_first_rank_is_refused_by_all(world, change):
    if world.size == 1:
        return
    run = RUN if world.rank else replace(RUN, **change)
    with pytest.raises(UserError, match=f"^ranks differ: --{next(iter(change))} is"):
        Trainer(world, run, ModelFile.open("mlp", world), lambda text: None)
