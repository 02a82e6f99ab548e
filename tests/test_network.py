"""A test that reaches for a network fails."""

import socket

import pytest


@pytest.mark.parametrize("host", ["s3.amazonaws.com", "8.8.8.8", "2001:4860::1"])
def test_a_public_name_or_address_is_refused(host):
    with pytest.raises(pytest.fail.Exception, match=f"reaches for '{host}', and no test may reach a network"):
        socket.create_connection((host, 80), timeout=1)


def test_this_machine_is_not_refused():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(("localhost", server.getsockname()[1])),
    ):
        pass
