"""``python -m tidewarden_cli.reference``."""

from __future__ import annotations

import sys

from tidewarden_cli.reference import main

if __name__ == "__main__":
    sys.exit(main())
