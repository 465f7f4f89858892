"""Settings of the property tests: no deadline per example, since other work on the machine would break it."""

from hypothesis import settings

settings.register_profile("engine", deadline=None)
settings.load_profile("engine")
