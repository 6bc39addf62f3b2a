"""Runs a function over many arguments in processes of their own."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bert_toolkit.errors import UserError


class WorkerDied(Exception):
    """A process ended without a result.

    Attributes:
      argument: what it was working on.
      pid: its number.
      exit_code: negative if a signal ended it.
    """

    def __init__(self, argument: Any, pid: int, exit_code: int):
        super().__init__(f"process {pid} ended with {exit_code}")
        self.argument, self.pid, self.exit_code = argument, pid, exit_code


def run(
    function: Callable[[Any], Any], arguments: Sequence[Any], num_workers: int
) -> Iterator[tuple[Any, Any]]:
    """Yields (argument, function(argument)) as results come, from `num_workers` processes at most.

    Each argument has a process of its own, so that its memory is given back, and a death is known
    by what it interrupted. If one fails, or the caller leaves, the others are ended.

    Raises:
      UserError: what the function raised.
      WorkerDied: a process was killed, or failed otherwise.
    """
    context = multiprocessing.get_context("spawn")  # no state of this process, on every system
    waiting = list(reversed(arguments))
    running: dict[Any, tuple[Any, Any]] = {}  # the pipe of a process -> the process, its argument
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(function, waiting[-1], sender))
                process.start()
                sender.close()
                running[receiver] = process, waiting.pop()
            receivers: list[Any] = multiprocessing.connection.wait(list(running))
            for ready in receivers:
                process, argument = running[ready]
                try:
                    succeeded, result = ready.recv()
                except EOFError:
                    process.join()
                    raise WorkerDied(argument, process.pid, process.exitcode) from None
                if not succeeded:
                    raise UserError(result)
                process.join()
                del running[ready]
                yield argument, result
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def is_alive(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _work(function: Callable[[Any], Any], argument: Any, sender: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # files.replacing cleans up on the way
    try:
        result = True, function(argument)
    except UserError as error:
        result = False, str(error)
    sender.send(result)
