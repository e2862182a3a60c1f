"""The command line, as `python -m localstorm`."""

import sys

from localstorm.cli import main

sys.exit(main())
