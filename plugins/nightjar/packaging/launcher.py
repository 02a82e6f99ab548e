"""What spark-submit starts: ``spark-submit --py-files jobs.zip launcher.py STEP --config URI``.

Runs on the cluster's driver. It lies outside the package `jobs` on purpose: its own folder becomes the first of
``sys.path``, where a file such as ``tokenize.py`` would shadow the standard library's.
"""

import sys

from jobs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
