"""Makes shards on a cluster, as an Apache Beam pipeline.

The pipeline is short: the shards are planned here, and each is made by the same function as
locally, wherever the runner likes. Files whose names have :// are read and written by Beam, so that
the stores it knows (gs://, s3://, hdfs://) are reached the way its runner is set up to.
"""

import logging as python_logging
import os
import re
import shlex
import types
from collections.abc import Iterator, Sequence
from typing import IO

from absl import logging

import bert_toolkit
from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.pretraining import shards
from bert_toolkit.pretraining.shards import Recipe, Shard, Summary

try:
    import apache_beam
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions
except ImportError:
    raise UserError(
        "--runner needs Apache Beam, which is not installed: pip install 'bert-toolkit[beam]'"
    ) from None


class BeamFiles:
    """Beam's file systems, by the names that TensorFlow's gfile has for the same."""

    @staticmethod
    def GFile(path: str, mode: str) -> IO[bytes]:  # noqa: D102
        opened = FileSystems.open if mode == "rb" else FileSystems.create
        return opened(path, compression_type=CompressionTypes.UNCOMPRESSED)

    @staticmethod
    def Exists(path: str) -> bool:  # noqa: D102
        return FileSystems.exists(path)

    @staticmethod
    def IsDirectory(path: str) -> bool:  # noqa: D102
        return path.endswith("/")  # object stores have none; to Beam a name is a file's

    @staticmethod
    def Glob(pattern: str) -> list[str]:  # noqa: D102
        (match,) = FileSystems.match([pattern])
        return [metadata.path for metadata in match.metadata_list]

    @staticmethod
    def MakeDirs(path: str) -> None:  # noqa: D102
        if not FileSystems.exists(path):
            FileSystems.mkdirs(path)

    @staticmethod
    def Rename(source: str, target: str, overwrite: bool) -> None:  # noqa: D102
        if overwrite and FileSystems.exists(target):
            FileSystems.delete([target])
        FileSystems.rename([source], [target])

    @staticmethod
    def Remove(path: str) -> None:  # noqa: D102
        FileSystems.delete([path])

    @staticmethod
    def Stat(path: str) -> types.SimpleNamespace:  # noqa: D102
        (match,) = FileSystems.match([path])
        return types.SimpleNamespace(length=match.metadata_list[0].size_in_bytes)


def run(
    planned: Sequence[Shard], recipe: Recipe, runner: str, beam_options: str
) -> Iterator[tuple[Shard, Summary]]:
    """Makes shards; yields each with what its note says was made, once all are finished.

    Args:
      planned: what to make.
      recipe: how.
      runner: the name of one of Beam's runners.
      beam_options: further options, as on a command line.

    Raises:
      UserError: a shard cannot be made, or the options are not Beam's.
    """
    _let_local_workers_import_us()
    python_logging.getLogger("apache_beam").setLevel(python_logging.ERROR)
    arguments = [f"--runner={runner}", *shlex.split(beam_options)]
    options = PipelineOptions(arguments)
    unknown = [name for name in arguments if name.split("=")[0].lstrip("-") not in _known(options)]
    if unknown:
        raise UserError(f"--beam_options: Beam knows no {', '.join(unknown)}")
    logging.info("making %d shards with Beam's %s", len(planned), runner)
    try:
        with apache_beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | "shards" >> apache_beam.Create(planned)
                | "spread over the workers" >> apache_beam.Reshuffle()
                | "make" >> apache_beam.Map(_make, recipe)
            )
    except Exception as error:
        raise UserError(_reason(error)) from error
    for shard in planned:
        summary = shards.finished(recipe, shard)
        if summary is None:
            raise UserError(f"{shard.outputs[0]}: the pipeline ended without making it")
        yield shard, summary


def _let_local_workers_import_us() -> None:
    """Workers that the direct runner starts here find a checkout that is not installed."""
    root = os.path.dirname(os.path.dirname(bert_toolkit.__file__))
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([root, others] if others else [root])


def use_for_remote_paths() -> None:
    """Lets paths with :// go through Beam in this process."""
    files.use_for_remote_paths(BeamFiles)


def _make(shard: Shard, recipe: Recipe) -> None:
    use_for_remote_paths()
    shards.make(recipe, shard)


def _known(options: PipelineOptions) -> set[str]:
    return set(options.get_all_options())


def _reason(error: Exception) -> str:
    """Returns our own sentence out of what the runner made of it, else the runner's last line."""
    text = str(error).strip()
    if isinstance(error, UserError):
        return text.split(" [while running")[0]
    ours = re.findall(r"UserError: (.+?)(?: \[while running|\\n|$)", text, re.MULTILINE)
    return ours[-1] if ours else f"Beam: {text.splitlines()[-1]}"
