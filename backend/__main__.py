"""The command line: `python -m backend --help`."""

import sys

from backend.commands.cli import main

sys.exit(main())
