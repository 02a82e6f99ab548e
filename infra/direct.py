"""HTTP requests without a proxy: to servers on this machine, and to the hosts of a local YARN cluster."""

from __future__ import annotations

import urllib.request

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens a URL without a proxy, even if environment variables name one."""
