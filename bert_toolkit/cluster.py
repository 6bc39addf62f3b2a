"""The hosts that train together, as TensorFlow's TF_CONFIG names them."""

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from bert_toolkit.errors import UserError

# What a host ends with when another is gone: EX_TEMPFAIL of sysexits.h, "try again".
EXIT_HOST_LOST = 75
SECONDS_BETWEEN_LOOKS = 5.0
FAILED_LOOKS = 3


def size() -> int:
    """Returns the number of hosts; 0 without TF_CONFIG."""
    cluster = _tf_config().get("cluster", {})
    return sum(len(cluster.get(role, [])) for role in ("chief", "worker"))


def _tf_config() -> dict[str, Any]:
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        if not isinstance(config, dict) or not isinstance(config.get("cluster", {}), dict):
            raise ValueError("no object")
        return config
    except ValueError as error:
        raise UserError(
            f"TF_CONFIG: not the JSON object that TensorFlow expects ({error})"
        ) from None


def is_chief() -> bool:
    """Whether this is the only host, or the one of several that writes what training gives."""
    task = _tf_config().get("task", {})
    if size() < 2:
        return True
    has_chief = bool(_tf_config()["cluster"].get("chief"))
    first = task.get("type") == ("chief" if has_chief else "worker")
    return first and task.get("index", 0) == 0


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Lets an Estimator be made for this host alone."""
    before = os.environ.pop("TF_CONFIG", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["TF_CONFIG"] = before


class Watch:
    """Ends this process if another host is gone: its own next step would wait for ever.

    A host counts as gone when it was there, and then takes no connection several times in a row.
    Use as a context manager around training; nothing is watched where there is one host.
    """

    def __init__(self) -> None:
        self._done = threading.Event()

    def __enter__(self) -> "Watch":
        peers = _peers()
        if peers:
            threading.Thread(target=self._look, args=(peers,), daemon=True).start()
        return self

    def __exit__(self, *exc_info) -> None:
        self.stop()

    def stop(self) -> None:
        """Watches no longer: the last step is done, and hosts may leave."""
        self._done.set()

    def _look(self, peers: list[str]) -> None:
        failures: dict[str, int] = {}  # of the hosts that have been there
        while not self._done.wait(SECONDS_BETWEEN_LOOKS):
            for peer in peers:
                if _answers(peer):
                    failures[peer] = 0
                elif peer in failures:
                    failures[peer] += 1
                if failures.get(peer, 0) >= FAILED_LOOKS and not self._done.is_set():
                    print(
                        f"error: the host {peer} is gone; start all hosts again, and they go on"
                        " from the last checkpoint",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(EXIT_HOST_LOST)  # TensorFlow cannot be interrupted in its waiting


def _peers() -> list[str]:
    """Returns the addresses of the other hosts that train."""
    if size() < 2:
        return []
    config = _tf_config()
    task = config.get("task", {})
    hosts = [
        (role, index, address)
        for role in ("chief", "worker")
        for index, address in enumerate(config["cluster"].get(role, []))
    ]
    own = (task.get("type"), task.get("index", 0))
    return [address for role, index, address in hosts if (role, index) != own]


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS_BETWEEN_LOOKS):
            return True
    except OSError:
        return False
