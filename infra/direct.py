"""HTTP requests to this machine's own servers and hosts, which are never reached through a proxy."""

from __future__ import annotations

import urllib.request

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens a URL without a proxy, whatever the environment names."""
