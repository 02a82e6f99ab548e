"""Start the embedded EMR: ``python -m infra.emr`` does the same as ``nightjar emr``."""

import sys

from infra.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["emr", *sys.argv[1:]]))
