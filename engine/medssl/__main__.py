"""``python -m medssl``: the same as the console script."""

from __future__ import annotations

import sys

from medssl.cli import main

if __name__ == "__main__":
    sys.exit(main())
