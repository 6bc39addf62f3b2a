"""The hosts that train together, as TensorFlow's TF_CONFIG names them."""

import contextlib
import dataclasses
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from bert_toolkit.errors import UserError

# What a host ends with when another is gone: EX_TEMPFAIL of sysexits.h, "try again".
EXIT_HOST_LOST = 75
SECONDS_BETWEEN_LOOKS = 5.0
FAILED_LOOKS = 3


FORM = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
ROLES = ("chief", "worker")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The hosts that train together, in their order, and which of them this one is.

    Attributes:
      hosts: (role, index, address), "host:port"; one for a host alone, which need not be named.
      role, index: of this one.
    """

    hosts: tuple[tuple[str, int, str], ...] = ()
    role: str = "worker"
    index: int = 0


def read() -> Cluster:
    """Returns the cluster that TF_CONFIG names; one without hosts if it names none.

    Raises:
      UserError: TF_CONFIG is not as TensorFlow's Estimators take it for training on all hosts.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    try:
        config = json.loads(text or "{}")
    except ValueError as error:
        raise _unfit(f"not JSON ({error})") from None
    if not isinstance(config, dict):
        raise _unfit("not a JSON object")
    cluster, task = config.get("cluster") or {}, config.get("task") or {}
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise _unfit(f"{'task' if isinstance(cluster, dict) else 'cluster'} is not a JSON object")
    roles = _addresses(cluster)
    hosts = tuple(
        (role, index, address)
        for role, addresses in roles.items()
        for index, address in enumerate(addresses)
    )
    return Cluster(hosts, *_own_place(task, roles)) if hosts else Cluster()


def _addresses(cluster: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the addresses of each role, the chief first."""
    for role, addresses in cluster.items():
        if not addresses:
            continue
        if role not in ROLES:
            raise _unfit(f"cluster has the role {role!r}, here all hosts are workers, or a chief")
        if not isinstance(addresses, list):
            raise _unfit(f"{role} is {json.dumps(addresses)}, not a list of addresses")
        for address in addresses:
            if not isinstance(address, str) or not re.fullmatch(r".+:\d+", address):
                raise _unfit(f"{role} has {json.dumps(address)}, not an address such as host1:2222")
    roles = {role: cluster[role] for role in ROLES if cluster.get(role)}
    if len(roles.get("chief", [])) > 1:
        raise _unfit("cluster has more than one chief")
    everyone = [address for addresses in roles.values() for address in addresses]
    for address in everyone:
        if everyone.count(address) > 1:
            raise _unfit(f"cluster has {address} twice")
    return roles


def _own_place(task: Mapping[str, Any], roles: Mapping[str, list[str]]) -> tuple[str, int]:
    """Returns the role and index of this host; a host alone need not say them."""
    if not task and sum(map(len, roles.values())) == 1:
        return next(iter(roles)), 0
    role, index = task.get("type"), task.get("index", 0)
    if role == "evaluator":
        raise _unfit("task is an evaluator, but the first host evaluates; start none")
    if not isinstance(role, str) or role not in roles:
        what = "no type" if role is None else f"the type {json.dumps(role)}"
        raise _unfit(f"task has {what}, but cluster has only {' and '.join(roles)}")
    if isinstance(index, str) and index.isdigit():  # as shells give it
        index = int(index)
    if not isinstance(index, int) or isinstance(index, bool):
        raise _unfit(f"task has the index {json.dumps(index)}, not a whole number")
    if not 0 <= index < len(roles[role]):
        raise _unfit(
            f"task has the index {index}, but cluster has {len(roles[role])} of {role}, counted"
            " from 0"
        )
    return role, index


def _unfit(found: str) -> UserError:
    return UserError(
        f"TF_CONFIG: {found}; expected {FORM}, or no TF_CONFIG where one host trains alone"
    )


def size() -> int:
    """Returns the number of hosts; 0 without TF_CONFIG."""
    return len(read().hosts)


def check_alone(command: str) -> None:
    """Raises a UserError on several hosts, for a command that trains on one."""
    if size() > 1:
        raise UserError(
            f"TF_CONFIG: its cluster has several hosts, but {command} trains on one; run it"
            " without TF_CONFIG"
        )


def conflicts(options: Any) -> list[str]:
    """Returns a sentence for each option of a training that is not for several hosts."""
    if size() < 2:
        return []
    found = []
    if options.overwrite:
        found.append(
            "--overwrite: not on several hosts, where one might remove what another has"
            " written; empty --output_dir first"
        )
    if getattr(options, "evaluate_every", None):
        found.append("--evaluate_every: not on several hosts; evaluate when it is trained")
    if getattr(options, "num_runs", 1) > 1:
        found.append(
            "--num_runs: not on several hosts; train once for each --seed, each in an --output_dir"
            " of its own"
        )
    if getattr(options, "learning_curve", None):
        found.append(
            "--learning_curve: not on several hosts; train once for each --max_train_examples, each"
            " in an --output_dir of its own"
        )
    return found


def is_chief() -> bool:
    """Whether this is the only host, or the one of several that writes what training gives."""
    cluster = read()
    return len(cluster.hosts) < 2 or (cluster.role, cluster.index) == cluster.hosts[0][:2]


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Lets an Estimator be made for this host alone."""
    before = os.environ.pop("TF_CONFIG", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["TF_CONFIG"] = before


@contextlib.contextmanager
def left_out_if_alone() -> Iterator[None]:
    """Lets an Estimator be made without TF_CONFIG where that names one host or none."""
    with left_out() if size() < 2 else contextlib.nullcontext():
        yield


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
    cluster = read()
    own = (cluster.role, cluster.index)
    return [address for role, index, address in cluster.hosts if (role, index) != own]


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS_BETWEEN_LOOKS):
            return True
    except OSError:
        return False
