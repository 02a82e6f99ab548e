"""Start the console command where it is not installed: ``python -m infra.cli --help``."""

import sys

from infra.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
