"""A port that is shut answers this machine's loopback addresses and nothing else."""

import socket

import pytest

from models.reading import loopback


def other_address(family):
    """Return an address of this machine that is not loopback, or skip the test."""
    far = {socket.AF_INET: "192.0.2.77", socket.AF_INET6: "2001:db8::77"}[family]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: the system only chooses the interface.
            probe.connect((far, 9))
        except OSError:
            pytest.skip("this machine has no other interface")
        return probe.getsockname()[0]


def answers(address, port) -> bool:
    try:
        with socket.create_connection((address, port), timeout=0.3):
            return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    ("family", "local"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "127.9.9.9"),
        (socket.AF_INET6, "127.0.0.1"),
        (socket.AF_INET6, "::1"),
    ],
)
def test_a_shut_port_answers_loopback_only(family, local):
    with socket.create_server(
        ("", 0), family=family, dualstack_ipv6=family == socket.AF_INET6
    ) as server:
        port = server.getsockname()[1]
        remote = other_address(socket.AF_INET6 if ":" in local else socket.AF_INET)
        assert answers(remote, port)
        loopback.shut_to_others(port)
        assert not answers(remote, port)
        assert answers(local, port)
        # Data flows both ways, also in large pieces.
        with socket.create_connection((local, port), timeout=5) as client:
            for _ in range(8):
                accepted, peer = server.accept()
                if peer[1] == client.getsockname()[1]:
                    break
            accepted.sendall(b"a" * 100_000)
            assert client.recv(100_000, socket.MSG_WAITALL) == b"a" * 100_000
            client.sendall(b"b" * 100_000)
            assert accepted.recv(100_000, socket.MSG_WAITALL) == b"b" * 100_000
            accepted.close()


def test_a_port_of_nobody_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OSError, match=f"no port {port}"):
        loopback.shut_to_others(port)
