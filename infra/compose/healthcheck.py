"""The health check of the containers: exit code 0 if a service is healthy, else 1.

    python -I -S infra/compose/healthcheck.py emr:5555 /moto-api/          # the service answers at this path
    python -I -S infra/compose/healthcheck.py api-server:8080 scheduler    # the API reports a recent heartbeat

The check runs every few seconds in every container, so it imports little.
"""

import http.client
import json
import sys

HEALTH = "/api/v2/monitor/health"
_TIMEOUT_SECONDS = 8


def main() -> int:
    """Return the exit code of one check."""
    address, what = sys.argv[1:]
    try:
        if what.startswith("/"):
            get(address, what)
            return 0
        return 0 if json.loads(get(address, HEALTH))[what]["status"] == "healthy" else 1
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        sys.stderr.write(f"{address}: {error!r}\n")
        return 1


def get(address: str, path: str) -> bytes:
    """Return the body of a GET request. Raise a `ValueError` if the status is not 200."""
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_SECONDS)
    connection.request("GET", path)
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise ValueError(f"{answer.status} {answer.reason}")
    return answer.read()


if __name__ == "__main__":
    sys.exit(main())
