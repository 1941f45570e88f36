"""`python -m jaxns_cli`: the command `jaxns`."""

import sys

from jaxns_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
