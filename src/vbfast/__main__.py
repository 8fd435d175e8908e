"""``python -m vbfast``: the same as the ``vbfast`` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
