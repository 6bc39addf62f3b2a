"""Several processes that serve at one port."""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NoReturn

from absl import logging

from bert_toolkit.errors import UserError

# The environment variable that says where prometheus_client keeps the numbers of several processes;
# it reads it when it is imported.
DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"


def run(count: int, action: Callable[[Callable[[], None]], None]) -> None:
    """Runs `action` in processes of its own until SIGTERM or Ctrl-C; must come before TensorFlow.

    One begins after the other. Of those that die later, others take the place.

    Args:
      count: how many.
      action: what each does; it is given what to call when it has started.

    Raises:
      UserError: one could not start, and has said why.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, (cores or 1) // count)))
    with tempfile.TemporaryDirectory(prefix="bert-serve-") as directory:
        os.environ[DIRECTORY] = directory
        Workers(action).keep(count)


class Workers:
    """Processes that all do the same."""

    def __init__(self, action: Callable[[Callable[[], None]], None]):
        """Takes what they do; see `run`."""
        self._action = action
        self._processes: set[int] = set()
        self._stopping = False

    def keep(self, count: int) -> None:
        """Starts processes, and others for those that die, until a signal says to stop."""
        from prometheus_client import multiprocess

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        failed = False
        while not self._stopping and len(self._processes) < count and not failed:
            failed = not self._start()
        while self._processes:
            if failed:
                self._end_all()
            process, status = os.wait()
            self._processes.discard(process)
            multiprocess.mark_process_dead(process)
            if self._stopping or failed:
                continue
            logging.error("a worker died (status %d); another takes its place", status)
            failed = not self._start()
        if failed and not self._stopping:
            raise UserError("a worker could not start; all are stopped")

    def _start(self) -> bool:
        """Starts a process; returns whether it serves."""
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            self._work(writing)
        os.close(writing)
        self._processes.add(process)
        if self._stopping:  # the signal came before the process was among them
            self._end_all()
        ready = bool(os.read(reading, 1))
        os.close(reading)
        return ready

    def _work(self, writing: int) -> NoReturn:
        """What a process does."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process passes it on
        try:
            self._action(lambda: os.close(writing) if os.write(writing, b"1") else None)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True
        self._end_all()

    def _end_all(self) -> None:
        for process in self._processes:
            os.kill(process, signal.SIGTERM)
