"""Where servers listen: reserving a port, and writing its URL."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from mllm_embed.errors import MllmEmbedError


class PortInUse(MllmEmbedError):
    """Another process listens there, or the address is not ours."""


def bind(host: str, port: int, option: str) -> socket.socket:
    """Reserve an address without listening on it yet, so that clients are refused, not kept waiting, while we load.

    Args:
        host: address or name.
        port: port; 0 takes a free one.
        option: the command-line option that chooses another, for the message.

    Raises:
        PortInUse: somebody has it, or the host is not ours.
    """
    with port_errors(host, port, option):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    return listener


@contextlib.contextmanager
def port_errors(host: str, port: int, option: str) -> Iterator[None]:
    """Turn what the system says about an address into one sentence."""
    try:
        yield
    except OSError as error:
        raise PortInUse(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another with {option}"
        ) from None


def reachable(host: str) -> str:
    """Return an address at which a client on this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound


def url(host: str, port: int, scheme: str = "http") -> str:
    """Return the URL under which a client on this machine reaches a server."""
    host = reachable(host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
