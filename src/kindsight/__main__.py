"""``python -m kindsight``: the command ``kindsight``."""

from __future__ import annotations

import sys

from kindsight.cli import main

if __name__ == "__main__":
    sys.exit(main())
