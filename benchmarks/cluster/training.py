"""Strategies that train on the cluster's ranks, a few steps at a time, and a twin of each.

A twin does all that its run does (batches, forward and backward, encoding, decoding, additions,
optimizer, filter) and sends the same messages, but empty: their bytes are all that it lacks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refimpl.run.config import Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.ready import Carried, Ready
from refimpl.world.communicator import Communicator
from refimpl.world.transport import Request, Transport


class Over:
    """A request that is over when ``real`` is, and ``then`` something else was done."""

    def __init__(self, real: Request, then: Callable[[], object]) -> None:
        self._real, self._then = real, then

    def Wait(self) -> None:
        """Wait until it is over."""
        self._real.Wait()
        self._then()


def nothing() -> np.ndarray:
    """Return what an empty message is sent from, or received into."""
    return np.empty(0, np.uint8)


class Hollow:
    """One rank's end, as of `Transport`, whose messages travel over the ``real`` one, but empty.

    In the place of what should arrive stands what this rank sent last, so that an exchange of
    messages takes it what it takes with messages of others as long as its own, but for the bytes.
    """

    def __init__(self, real: Transport) -> None:
        self.real, self.rank, self.size = real, real.rank, real.size
        self._sent = nothing()

    def _keep(self, buf: np.ndarray) -> None:
        self._sent = buf.reshape(-1).view(np.uint8)

    def _fill(self, buf: np.ndarray) -> None:
        into = buf.reshape(-1).view(np.uint8)
        n = min(into.size, self._sent.size)
        into[:n], into[n:] = self._sent[:n], 0  # chunks differ by a value

    def send(self, buf: np.ndarray, dest: int, tag: int) -> None:
        self._keep(buf)
        self.real.send(nothing(), dest, tag)

    def receive(self, buf: np.ndarray, source: int, tag: int) -> None:
        self.real.receive(nothing(), source, tag)
        self._fill(buf)

    def exchange(
        self, out: np.ndarray, dest: int, sendtag: int, into: np.ndarray, source: int, recvtag: int
    ) -> None:
        self._keep(out)
        self.real.exchange(nothing(), dest, sendtag, nothing(), source, recvtag)
        self._fill(into)

    def start_send(self, buf: np.ndarray, dest: int, tag: int) -> Request:
        self._keep(buf)
        return self.real.start_send(nothing(), dest, tag)

    def start_receive(self, buf: np.ndarray, source: int, tag: int) -> Request:
        real = self.real.start_receive(nothing(), source, tag)
        return Over(real, lambda: self._fill(buf))

    def worked(self, nbytes: int) -> None:
        pass

    def objects(self, obj: object) -> list:
        return self.real.objects(obj)

    def object(self, obj: object, root: int) -> object:
        return self.real.object(obj, root)

    def barrier(self) -> None:
        self.real.barrier()

    def split(self, color: int | None, key: int) -> tuple[Hollow, list[int]] | None:
        part = self.real.split(color, key)
        return None if part is None else (Hollow(part[0]), part[1])

    def free(self) -> None:
        self.real.free()


class Steps:
    """The next ``steps`` steps of a run, each time it is called.

    The first time ends with a sync, at which a block begins: it opens connections.
    """

    def __init__(self, ready: Ready, steps: int) -> None:
        self.ready, self.steps = ready, steps
        self.schedule, self.told = ready.run.schedule(), []

    def __call__(self) -> None:
        ready, first = self.ready, not self.told
        for _ in range(self.steps):
            rate = self.schedule.rate(ready.step, ready.batches.steps_per_epoch)
            ready.replica.step(ready.batch, rate)
            ready.step += 1
        if first:
            ready.replica.end_block(rate)
        self.told.append(ready.replica.gradient.told())

    def message_bytes(self) -> list[float]:
        """Return the mean length of every rank's messages, by rank; 0 where it had none.

        Those of the first call, which is not timed, are left out.  Collective.
        """
        sent = sum(told.get("message_bytes", 0) for told in self.told[1:])
        return self.ready.comm.allgather_object(sent / self.steps / len(self.told[1:]))


def strategies(comm: Communicator, job: dict) -> dict[str, Steps]:
    """Return the job's ``runs`` by their names, and the twin of each as ``NAME, empty``.

    All train on the same frames, which are prepared once.  Collective.
    """
    model, carried = ModelFile.open(job["model"], comm), Carried()
    hollow = Communicator.over(Hollow(comm._transport), comm.members, comm.nodes)
    works = {}
    for name, plain in job["runs"].items():
        run = Run.from_dict(plain)
        for label, on in ((name, comm), (f"{name}, empty", hollow)):
            ready = Ready(on, run, model, lambda text: None, carried=carried)
            works[label] = Steps(ready, job["steps"][label])
    return works
