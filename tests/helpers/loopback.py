"""Ranks as threads: `refimpl.world.threads` itself by another name; patching one patches both."""

import sys

import refimpl.world.threads

sys.modules[__name__] = refimpl.world.threads
