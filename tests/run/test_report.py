"""What a run says of itself."""

import pytest

from refimpl.nn.flat import one_unit
from refimpl.run.config import Recipe, Run
from refimpl.run.report import announcement
from refimpl.world.topology import Nodes


@pytest.mark.parametrize(
    "name, ranks, given, collectives, said",
    [
        ("ddp", 4, {}, "ring", "ring collectives"),
        ("mics", 4, {"partition": 2}, "auto", "auto collectives"),
        ("bmuf", 4, {}, "hierarchical", "hierarchical collectives"),
        ("serial", 1, {}, "ring", "nothing to send"),
        ("ddp", 1, {}, "native", "nothing to send (not by --collectives native)"),
        ("gtc", 4, {}, "ring", "gtc messages"),
        (
            "gtc",
            4,
            {"gtc_warmup": 3},
            "native",
            "native collectives (gradient, dense sums), gtc messages",
        ),
        ("onebit", 1, {"gtc_warmup": 3}, "ring", "nothing to send"),
        (
            "mics-gtc",
            4,
            {"partition": 2, "target_density": 0.1},
            "halving-doubling",
            "halving-doubling collectives (partition), gtc messages",
        ),
        (
            "gtc-bmuf",
            4,
            {"gtc_group": 2, "residuals": "fold"},
            "ring",
            "ring collectives (gradient, dense sums; block), gtc messages",
        ),
    ],
)
def test_the_start_line_names_what_the_messages_go_by(name, ranks, given, collectives, said):
    recipe = Recipe(task="images", epochs=1, lr=0.1)
    run = Run("m", recipe, strategy=name, methods=given, collectives=collectives)
    methods, nodes = run.chosen(), Nodes.of(ranks, ranks)
    setting = run.setting(nodes, one_unit(1, run.grid(ranks).partition))
    line = announcement(run, methods, setting)
    assert f" ({name}), {said}, float reduction, 256 images per rank" in line
