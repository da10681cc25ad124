"""Property tests draw the same examples everywhere, and a busy machine does not fail them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("repository", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("repository")
