"""Features in files of so many lines each, and a list of them, by which a run can be resumed."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Optional

from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.features import writers
from bert_toolkit.features.lines import LineFeatures
from bert_toolkit.io import files


@dataclasses.dataclass(frozen=True)
class ShardNames:
    """The names of the shards of an output file: features.jsonl -> features-00000.jsonl, ..."""

    output_file: str

    def _parts(self) -> tuple[str, str]:
        stem, ending = os.path.splitext(self.output_file)
        if ending == ".gz":
            stem, inner = os.path.splitext(stem)
            ending = inner + ending
        return stem, ending

    def shard(self, number: int) -> str:
        """Returns the name of a shard."""
        stem, ending = self._parts()
        return f"{stem}-{number:05d}{ending}"

    def listing(self) -> str:
        """Returns the name of the list of shards, JSON."""
        return f"{self._parts()[0]}.shards.json"


class ShardedWriter:
    """Writes features to shards; each appears when it is complete, and is listed then."""

    def __init__(
        self,
        output_file: str,
        format_name: str,
        layout: writers.FeatureLayout,
        lines_per_shard: int,
        made_from: Mapping[str, Any],
        resume: bool,
    ):
        """Begins, or finds what there is to go on from.

        Args:
          output_file: what the shards' names come from.
          format_name: of the files.
          layout: what is written.
          lines_per_shard: lines in each but the last.
          made_from: all that decides what is written, as JSON knows it.
          resume: keep the shards that an earlier run finished.

        Raises:
          UserError: an earlier run was another one, or its shards are not there whole.
        """
        self._names = ShardNames(output_file)
        self._format, self._layout = format_name, layout
        self._lines_per_shard = lines_per_shard
        self._made_from = json.loads(json.dumps(made_from))
        earlier = self._earlier()
        if earlier and resume:
            self._check(earlier)
            self.shards: list[dict[str, Any]] = earlier["shards"]
            logging.info("%d shards were finished by an earlier run", len(self.shards))
        else:
            self.shards = []
            for shard in earlier["shards"] if earlier else []:
                files.remove(self._path(shard["file"]))
        self._save(complete=False)
        self._open = contextlib.ExitStack()
        self._writer: Optional[writers.Writer] = None
        self._lines = 0

    @property
    def lines(self) -> int:
        """Lines in the finished shards."""
        return sum(shard["lines"] for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(shard["bytes"] for shard in self.shards)

    def _path(self, name: str) -> str:
        return os.path.join(os.path.dirname(self._names.output_file), name)

    def _earlier(self) -> Optional[dict[str, Any]]:
        listing = self._names.listing()
        if not files.exists(listing):
            return None
        try:
            found = json.loads(files.read_text(listing))
            return {"made_from": found["made_from"], "shards": list(found["shards"])}
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{listing}: not a list of shards; remove it") from None

    def _check(self, earlier: Mapping[str, Any]) -> None:
        listing = self._names.listing()
        before = earlier["made_from"]
        for name, value in self._made_from.items():
            if before.get(name) != value:
                raise UserError(
                    f"{listing} was begun with {name}={before.get(name)}, now it is"
                    f" {value}; use the flags and files of then, or begin anew with --noresume"
                )
        for shard in earlier["shards"]:
            path = self._path(shard["file"])
            if not files.exists(path) or files.size(path) != shard["bytes"]:
                raise UserError(f"{path} is not as {listing} says; begin anew with --noresume")

    def _save(self, complete: bool) -> None:
        content = {"made_from": self._made_from, "shards": self.shards, "complete": complete}
        files.write_text(self._names.listing(), json.dumps(content, indent=2) + "\n")

    def write(self, line: LineFeatures) -> None:
        """Writes those of a line."""
        if self._writer is None:
            path = self._names.shard(len(self.shards))
            self._writer = self._open.enter_context(
                writers.open_writer(path, self._format, self._layout)
            )
        self._writer.write(line)
        self._lines += 1
        if self._lines == self._lines_per_shard:
            self._finish_shard()

    def _finish_shard(self) -> None:
        path = self._names.shard(len(self.shards))
        self._open.close()
        shard = {
            "file": os.path.basename(path),
            "first_line": self.lines,
            "lines": self._lines,
            "bytes": files.size(path),
        }
        self.shards.append(shard)
        self._writer, self._lines = None, 0
        self._save(complete=False)

    def close(self) -> None:
        """Ends the last shard."""
        if self._writer is not None:
            self._finish_shard()
        self._save(complete=True)

    def abandon(self, *error: Any) -> None:
        """Removes the shard that is not finished."""
        self._open.__exit__(*(error or (None, None, None)))
