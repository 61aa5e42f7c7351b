"""What holds for all tests: none of them is timed, for machines may be slow, or busy."""

from hypothesis import settings

settings.register_profile("refimpl", deadline=None)
settings.load_profile("refimpl")
