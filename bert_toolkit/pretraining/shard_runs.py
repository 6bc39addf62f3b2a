"""Making all shards of a corpus: in this process, in several, or on a cluster."""

import dataclasses
import functools
import glob
import signal
from collections.abc import Iterator, Sequence
from typing import Optional

from absl import logging

from bert_toolkit.errors import UserError
from bert_toolkit.io import files, workers
from bert_toolkit.io.progress import Progress, size
from bert_toolkit.pretraining import masking, shards
from bert_toolkit.pretraining.corpus import Corpus
from bert_toolkit.pretraining.shards import Recipe, Shard, Summary


@dataclasses.dataclass(frozen=True)
class ShardRun:
    """How shards are made; the names are those of the flags.

    `output` is the beginning of the files' names. Nothing but `num_shards` changes what is in them.
    """

    output: str
    num_shards: int
    num_workers: int = 1
    resume: bool = False
    runner: Optional[str] = None
    beam_options: str = ""

    def shards(self, text: Corpus) -> list[Shard]:
        """Divides a corpus."""
        count = self.num_shards
        return [
            Shard(index, count, text, span, (f"{self.output}-{index:05d}-of-{count:05d}",))
            for index, span in enumerate(text.spans(count))
        ]


def make_all(text: Corpus, recipe: Recipe, run: ShardRun) -> Summary:
    """Makes the shards; returns what was read and made, of kept shards too.

    Raises:
      UserError: a shard cannot be made, or nothing would come of the text. Finished ones stay.
    """
    planned = run.shards(text)
    logging.info("%s of text in %d shards", size(text.size), len(planned))
    _remove_leftovers(run.output)
    done: dict[int, Summary] = {}
    if run.resume:
        kept = {shard.index: shards.finished(recipe, shard) for shard in planned}
        done = {index: summary for index, summary in kept.items() if summary}
        logging.info("%d of %d shards were finished by an earlier run", len(done), len(planned))
    waiting = [shard for shard in planned if shard.index not in done]
    with Progress("making", "shards", total=len(waiting)) as progress:
        for shard, summary in _results(waiting, recipe, run):
            done[shard.index] = summary
            progress.update()
    _check_shards(planned, done, recipe.settings)
    logging.info("wrote %s-*-of-%05d", run.output, len(planned))
    return functools.reduce(Summary.__add__, done.values())


def _results(
    waiting: Sequence[Shard], recipe: Recipe, run: ShardRun
) -> Iterator[tuple[Shard, Summary]]:
    """Yields shards with their summaries as they are finished."""
    make = functools.partial(shards.make, recipe)
    if run.runner:
        from bert_toolkit.pretraining import beam

        yield from beam.run(waiting, recipe, run.runner, run.beam_options)
    elif run.num_workers == 1:
        yield from ((shard, make(shard)) for shard in waiting)
    else:
        try:
            yield from workers.run(make, waiting, run.num_workers)
        except workers.WorkerDied as death:
            shards.remove_unfinished(death.argument.outputs, death.pid)
            raise UserError(_death_notice(death)) from None


def _death_notice(death: workers.WorkerDied) -> str:
    shard = death.argument
    how = f"ended with exit code {death.exit_code}"
    if death.exit_code < 0:
        how = f"was killed by {signal.Signals(-death.exit_code).name}"
    if death.exit_code == -signal.SIGKILL:
        how += ", as the system does when memory runs out (then use more --num_shards, or fewer"
        how += " --num_workers)"
    return (
        f"shard {shard.index} of {shard.count} ({shard.outputs[0]}): its process {how};"
        " run the same command with --resume to go on with the shards that are finished"
    )


def _remove_leftovers(output: str) -> None:
    """Removes what an earlier run that was killed left half-written, if no process writes it."""
    for path in glob.glob(files.unfinished_name(f"{glob.escape(output)}-*", "*")):
        process = path.rpartition("-")[2]
        if process.isdigit() and not workers.is_alive(int(process)):
            files.remove(path)


def _check_shards(
    planned: Sequence[Shard], done: dict[int, Summary], settings: masking.Settings
) -> None:
    """Takes all back if the corpus holds too little; warns of shards that hold too little."""
    try:
        documents = sum(summary.documents for summary in done.values())
        shards.check_documents(documents, planned[0].corpus, settings)
    except UserError:
        shards.remove(planned)
        raise
    poor = [index for index, summary in sorted(done.items()) if summary.documents < 2]
    if poor:
        logging.warning(
            "%d of %d shards hold fewer than two documents (the first is shard %d); fewer"
            " --num_shards would mix the text better",
            len(poor),
            len(done),
            poor[0],
        )
