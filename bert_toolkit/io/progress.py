"""Progress of long operations: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from typing import Optional

from absl import logging
from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


def duration(seconds: float) -> str:
    """Returns a time span as people write it: 42s, 3m20s, 5h07m."""
    seconds = int(round(seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def size(num_bytes: float) -> str:
    """Returns a number of bytes as people write it: 512 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


class Progress:
    """Counts what is done. Use as a context manager and call `update`."""

    def __init__(self, what: str, unit: str, total: Optional[int] = None, quiet: bool = False):
        """Starts counting.

        Args:
          what: is done, for example "reading".
          unit: is counted, in the plural.
          total: how many there are, if known.
          quiet: show nothing.
        """
        self.what, self.unit, self.total = what, unit, total
        self.done = 0
        self.start = self.last_line = time.monotonic()
        self.bar = None
        self.quiet = quiet
        if not quiet and sys.stderr.isatty():
            self.bar = tqdm(desc=what, unit=f" {unit}", total=total, leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc_info) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, count: int = 1) -> None:
        """Adds `count` to what is done."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif not self.quiet and time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self._log_line()

    def _log_line(self) -> None:
        self.last_line = time.monotonic()
        rate = self.done / (self.last_line - self.start)
        line = f"{self.what}: {self.done:,} {self.unit}, {rate:,.0f}/s"
        if self.total and self.done:
            line += (
                f", {self.done / self.total:.0%}, {duration((self.total - self.done) / rate)} left"
            )
        logging.info("%s", line)
