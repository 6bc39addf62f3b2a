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

    If one fails, or the caller leaves, the others are ended.

    Raises:
      UserError: what the function raised.
      WorkerDied: a process was killed, or failed otherwise.
    """
    context = multiprocessing.get_context("spawn")  # no state of this process, on every system
    waiting = list(reversed(arguments))
    processes: dict[Any, Any] = {}  # our end of the pipe to a process -> the process
    working: dict[Any, Any] = {}  # the same -> the argument it works on
    try:
        for _ in range(min(num_workers, len(waiting))):
            ours, theirs = context.Pipe()
            processes[ours] = context.Process(target=_work, args=(function, theirs))
            processes[ours].start()
            theirs.close()
            working[ours] = waiting.pop()
            ours.send(working[ours])
        while working:
            ready: list[Any] = multiprocessing.connection.wait(list(working))
            for pipe in ready:
                argument = working.pop(pipe)
                result = _receive(pipe, processes[pipe], argument)
                if waiting:
                    working[pipe] = waiting.pop()
                    pipe.send(working[pipe])
                yield argument, result
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _receive(pipe: Any, process: Any, argument: Any) -> Any:
    try:
        succeeded, result = pipe.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise WorkerDied(argument, process.pid, process.exitcode) from None
    if not succeeded:
        raise UserError(result)
    return result


def is_alive(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _work(function: Callable[[Any], Any], pipe: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # files.replacing cleans up on the way
    while True:
        try:
            argument = pipe.recv()
        except EOFError:
            return  # the parent is gone
        try:
            result = True, function(argument)
        except UserError as error:
            result = False, str(error)
        pipe.send(result)
