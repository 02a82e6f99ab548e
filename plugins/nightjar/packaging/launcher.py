"""Start a step of the job on the driver: ``spark-submit --py-files jobs.zip launcher.py STEP --config URI``.

This file is outside the package `jobs` because Python puts the folder of a started file first in ``sys.path``. There, a
module such as ``tokenize.py`` would shadow the standard library's.
"""

import sys

from jobs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
