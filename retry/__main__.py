"""`python -m retry`: the same as `./tide dead`."""

import sys

from cli.main import main

if __name__ == "__main__":
    sys.exit(main(["dead", *sys.argv[1:]]))
