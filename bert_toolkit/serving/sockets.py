"""The address that a server listens at."""

import socket

from bert_toolkit.errors import UserError


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket of an address, at which nobody listens yet.

    Raises:
      UserError: it cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise UserError(
            f"--host={host} --port={port}: {error.strerror or error}; pass another --port (0 for"
            " any that is free), or another --host"
        ) from None
    bound.set_inheritable(True)
    return bound


def url(bound: socket.socket) -> str:
    """Returns where a socket is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
