"""A call of a collective is told once, by the name of who did it, around its messages."""

import numpy as np
import pytest
from listeners import Heard
from loopback import spawn

from refimpl import collectives


@pytest.mark.parametrize(
    "name, says", [("ring", "ring allreduce"), ("auto", "halving-doubling allreduce")]
)
def test_a_call_is_told_around_its_messages(name, says):
    def body(comm):
        heard = Heard("collective", "send")
        with comm.events.listen(heard), comm.purpose("gradients"):
            collectives.get(name).allreduce(comm, np.zeros(8, np.float32))
        return heard.log

    for log in spawn((0,) * 4, body):
        (_, first), (what, last) = log[0], log[-1]
        assert (first.kind, first.name, first.nbytes, first.purpose) == (
            "collective",
            says,
            32,
            "gradients",
        )
        assert what == "end" and last is first
        assert {event.kind for _, event in log[1:-1]} == {"send"}
