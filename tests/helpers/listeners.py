"""Listeners to what ranks do."""

from refimpl.world.events import Listener


class Heard(Listener):
    """Keeps the events of some kinds: those begun, and ("begin" or "end", event) of all."""

    def __init__(self, *kinds):
        self.kinds = frozenset(kinds)
        self.log = []

    def begin(self, event):
        self.log.append(("begin", event))

    def end(self, event):
        self.log.append(("end", event))

    @property
    def begun(self):
        return [event for what, event in self.log if what == "begin"]
