"""Which addresses nobody may send us to, however they are written, and that the judged one is connected to."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import urllib3

from rootless.errors import RegistryError
from rootless.image.distribution.connection_guard import connection_objection, guard_pool, literal_objection

LINK_LOCAL = [
    "169.254.169.254",
    "fe80::1",
    "fe80::1%lo",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "::a9fe:a9fe",
]


@pytest.mark.parametrize("address", LINK_LOCAL)
def test_link_local_addresses(address: str) -> None:
    assert connection_objection(address) == literal_objection(address) == "it is a link-local address"


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.16689662", "[fe80::1]"])
def test_other_spellings(host: str) -> None:
    assert literal_objection(host) == "it is a link-local address"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0", "64:ff9b::"])
def test_addresses_of_nobody(address: str) -> None:
    assert connection_objection(address) == "it is the address of no single host"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.0.0.1", "8.8.8.8", "2001:db8::1", "registry.example", ""])
def test_others_pass(host: str) -> None:
    assert literal_objection(host) == ""


def test_a_name_is_resolved_once_and_that_address_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose second answer is another one (DNS rebinding) leads to the first."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answer(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        asked.append(host)
        if host == "rebound.test":
            first = asked.count(host) == 1
            return real("127.0.0.1" if first else "169.254.169.254", port, *args, **options)
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pool = guard_pool(urllib3.PoolManager(retries=False, timeout=5))
        connection = pool.connection_from_url(f"http://rebound.test:{port}/")._get_conn()
        connection.connect()
        peer, _ = server.accept()
        peer.close()
        connection.close()
    assert (asked.count("rebound.test"), asked[-1]) == (1, "127.0.0.1")
    with pytest.raises(RegistryError, match=r"'rebound.test' leads to 169.254.169.254: refused, it is a link-local"):
        pool.request("GET", f"http://rebound.test:{port}/", retries=False)
