from __future__ import annotations

import socket

import pytest

from authz.demo import ports
from authz.demo.failure import Unusable


def test_free_ports_differ_and_can_be_listened_on() -> None:
    chosen = ports.choose((0, 0, 0, 0))
    assert len(set(chosen)) == 4
    for port in chosen:
        ports.listen(port).close()


def test_a_given_port_is_kept() -> None:
    (free,) = ports.choose((0,))
    assert ports.choose((free,)) == (free,)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unusable, match=f"^port {port} on 127.0.0.1: Address already in use$"):
            ports.choose((port,))


def test_one_port_for_two_programs_is_refused() -> None:
    (free,) = ports.choose((0,))
    with pytest.raises(Unusable, match=f"port {free}"):
        ports.choose((free, free))


def test_having_no_free_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_FREE", range(port, port + 1))
        with pytest.raises(Unusable, match="no free port"):
            ports.choose((0,))
