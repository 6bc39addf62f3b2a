r"""Makes pretraining data from text: masked tokens to predict, and pairs of segments to tell apart.

Reads   plain text (or .gz), UTF-8, one sentence a line, a blank line between documents.
Writes  TFRecord files for run_pretraining.py, and beside each a .json note of how it was made.

Example:
  python create_pretraining_data.py --input_file=sample_data/corpus.txt \
    --vocab_file=sample_data/vocab.txt --output_file=out/pretrain.tfrecord --max_seq_length=64 \
    --max_predictions_per_seq=10 --dupe_factor=5

A large corpus, 200 files made by 8 processes, to go on with if it was interrupted:
  python create_pretraining_data.py --input_file='text/*.txt' --vocab_file=vocab.txt \
    --output_file=out/pretrain.tfrecord --num_shards=200 --num_workers=8 --resume
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, Optional

from absl import flags, logging

from bert_toolkit import cli, corpus, files, forecast, masking, shard_runs, shards, tokenizers
from bert_toolkit.progress import duration, size
from bert_toolkit.shards import Recipe, Shard, Summary

PUBLISHED_MASKED_LM_PROB = 0.15
PUBLISHED_PREDICTIONS = 20
PUBLISHED_DUPE_FACTOR = 10

# Text beyond the first is divided without being asked, into shards of about the second: 64 MB of
# text make instances of some 0.7 GB, which have to be shuffled in memory.
LARGEST_SINGLE_SHARD = 256 << 20
SHARD_SIZE = 64 << 20


def define_flags() -> None:
    """Defines the flags of this stage."""
    with cli.group("Input and output"):
        flags.DEFINE_string(
            "input_file",
            None,
            "Text to read: files and glob patterns, separated by commas.",
            required=True,
        )
        flags.DEFINE_string(
            "output_file",
            None,
            "TFRecord file to write, or several separated by commas, which share the instances."
            " With --num_shards, the beginning of their names: NAME-00000-of-00200.",
            required=True,
        )
        flags.DEFINE_boolean(
            "dry_run", False, "Only look at samples of the text, and say what to expect."
        )
    with cli.group("Tokenization"):
        cli.define_tokenizer_flags()
        flags.DEFINE_string(
            "word_separator",
            None,
            "What separates words in text that was segmented into words, such as Chinese: ' ' or a"
            " mark. All tokens of a word are then masked together.",
        )
    with cli.group("Instances"):
        _define_instance_flags()
    with cli.group("Objective"):
        _define_objective_flags()
    with cli.group("Large corpora"):
        _define_sharding_flags()


def _define_instance_flags() -> None:
    flags.DEFINE_integer(
        "max_seq_length",
        128,
        "Longest sequence in tokens, [CLS] and [SEP] included.",
        lower_bound=5,
    )
    flags.DEFINE_integer(
        "max_predictions_per_seq",
        None,
        "Most masked tokens in a sequence. If --masked_lm_prob has another value than 0.15, this is"
        " max_seq_length * masked_lm_prob unless given, else as published (default: 20)",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "masked_lm_prob",
        PUBLISHED_MASKED_LM_PROB,
        "Share of tokens to mask; 0.4 has been found to suit large models (Wettig et al., 2023).",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_boolean("do_whole_word_mask", False, "Mask all pieces of a word together.")
    flags.DEFINE_integer(
        "max_ngram",
        1,
        "Mask up to so many words in a row, n of them with a probability that falls as 1 / n.",
        lower_bound=1,
        upper_bound=10,
    )
    flags.DEFINE_integer(
        "dupe_factor",
        None,
        "How many times the text is used, with new masks. With --static_masks=false 1 unless given,"
        " else as published (default: 10)",
        lower_bound=1,
    )
    flags.DEFINE_float(
        "short_seq_prob",
        0.1,
        "Share of documents cut into shorter sequences, so that the model sees some.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    flags.DEFINE_integer("random_seed", 12345, "The same seed and text give the same instances.")


def _define_objective_flags() -> None:
    flags.DEFINE_boolean(
        "use_next_sentence",
        True,
        "Make pairs of segments to tell apart. Without, a sequence is one segment of full length;"
        " pass the same to run_pretraining.py.",
    )
    flags.DEFINE_boolean(
        "sentence_order",
        False,
        "Tell whether two segments stand in their order or were swapped (ALBERT), in place of"
        " whether the second comes from another document.",
    )
    flags.DEFINE_boolean(
        "pack_documents",
        False,
        "With --use_next_sentence=false: let sequences run on into the next document after a"
        " [SEP], so that short documents leave no padding.",
    )
    flags.DEFINE_boolean(
        "static_masks",
        True,
        "Choose the masked tokens now. Without, run_pretraining.py chooses them anew in every"
        " epoch: the files are smaller, and one copy of the text is enough.",
    )


def _define_sharding_flags() -> None:
    flags.DEFINE_integer(
        "num_shards",
        None,
        "Divide the documents among so many files, each made on its own: memory is needed for one"
        " shard, not for the corpus. Without this flag 1 up to 256 MB of text, beyond that one for"
        " each 64 MB.",
        lower_bound=1,
        upper_bound=99999,
    )
    flags.DEFINE_integer(
        "num_workers",
        1,
        "Processes that make shards; their number does not change the result.",
        lower_bound=1,
    )
    flags.DEFINE_boolean(
        "resume", False, "Keep shards that an earlier run of the same command has finished."
    )
    flags.DEFINE_string(
        "runner",
        None,
        "Run as an Apache Beam pipeline: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner."
        " Needs the [beam] extra.",
    )
    flags.DEFINE_string(
        "beam_options",
        "",
        "Options of Beam and its runner, as on a command line:"
        " '--direct_num_workers=4 --direct_running_mode=multi_processing'.",
    )


@dataclasses.dataclass(frozen=True)
class Options(cli.TokenizerOptions):
    """The flags of this stage, by their names."""

    input_file: str = ""
    output_file: str = ""
    dry_run: bool = False
    word_separator: Optional[str] = None
    max_seq_length: int = 128
    max_predictions_per_seq: Optional[int] = None
    masked_lm_prob: float = PUBLISHED_MASKED_LM_PROB
    do_whole_word_mask: bool = False
    max_ngram: int = 1
    dupe_factor: Optional[int] = None
    short_seq_prob: float = 0.1
    random_seed: int = 12345
    use_next_sentence: bool = True
    sentence_order: bool = False
    pack_documents: bool = False
    static_masks: bool = True
    num_shards: Optional[int] = None
    num_workers: int = 1
    resume: bool = False
    runner: Optional[str] = None
    beam_options: str = ""

    def __post_init__(self):
        problems = []
        if not self.vocab_file:
            problems.append("--vocab_file is required")
        outputs = self.output_files()
        if len(set(outputs)) < len(outputs) or not outputs:
            problems.append(f"--output_file={self.output_file}: expected file names, each once")
        if len(outputs) > 1 and (self.num_shards or 1) > 1:
            problems.append("--output_file: one name, please, to which --num_shards adds numbers")
        if self.sentence_order and not self.use_next_sentence:
            problems.append("--sentence_order needs pairs of segments: --use_next_sentence=true")
        if self.pack_documents and self.use_next_sentence:
            problems.append("--pack_documents is for single segments: --use_next_sentence=false")
        if self.max_ngram > 1 and not self.static_masks:
            problems.append("--max_ngram is not for --static_masks=false, which masks single words")
        if self.word_separator == "":
            problems.append("--word_separator: expected a text, ' ' for example")
        if self.beam_options and not self.runner:
            problems.append("--beam_options needs --runner, for example --runner=DirectRunner")
        cli.check(problems)

    def output_files(self) -> list[str]:
        """Returns the names in --output_file."""
        return [name.strip() for name in self.output_file.split(",") if name.strip()]

    def settings(self) -> masking.Settings:
        """Returns the part that decides how instances are made, with what was not given."""
        predictions = self.max_predictions_per_seq
        if predictions is None:
            derived = max(1, math.ceil(self.max_seq_length * self.masked_lm_prob))
            published = self.masked_lm_prob == PUBLISHED_MASKED_LM_PROB
            predictions = PUBLISHED_PREDICTIONS if published else derived
        dupe_factor = self.dupe_factor or (PUBLISHED_DUPE_FACTOR if self.static_masks else 1)
        names = [field.name for field in dataclasses.fields(masking.Settings)]
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        values.update(
            max_predictions_per_seq=predictions,
            dupe_factor=dupe_factor,
            words_are_marked=self.word_separator is not None,
        )
        return masking.Settings(**values)

    def shard_run(self, text_bytes: int) -> shard_runs.ShardRun:
        """Returns how a text of that size is made in shards."""
        return shard_runs.ShardRun(
            output=self.output_files()[0],
            num_shards=self.num_shards or max(1, math.ceil(text_bytes / SHARD_SIZE)),
            num_workers=self.num_workers,
            resume=self.resume,
            runner=self.runner,
            beam_options=self.beam_options,
        )


def run(options: Options) -> Summary:
    """Makes the data; returns what was read and made, or is expected with --dry_run.

    Raises:
      UserError: an input cannot be used, or nothing would come of it.
    """
    if options.runner:
        from bert_toolkit import beam

        beam.use_for_remote_paths()
    input_files = files.expand_inputs(options.input_file, "input_file")
    files.check_input(options.vocab_file or "", "vocab_file")
    rules = tokenizers.rules(options, options.vocab_file)
    recipe = Recipe(
        options.vocab_file or "",
        files.digest(options.vocab_file or ""),
        rules,
        options.settings(),
        options.random_seed,
        options.word_separator,
    )
    tokenizers.load(recipe.vocab_file, rules)  # tell what is wrong with it before the work
    _warn_of_few_predictions(recipe.settings)
    if options.dry_run:
        return _forecast(input_files, recipe, options)
    for name in options.output_files():
        files.check_output(name)
    logging.info(
        "reading %s", ", ".join(input_files[:5]) + (", ..." if len(input_files) > 5 else "")
    )
    if not _divides(input_files, options):
        summary = _make_one(input_files, recipe, options)
    else:
        directory = os.path.dirname(options.output_files()[0])
        with corpus.unpacked(input_files, directory) as plain_files:
            text = corpus.Corpus.of(plain_files, input_files)
            summary = shard_runs.make_all(text, recipe, options.shard_run(text.size))
    _check_summary(summary, recipe.settings, options)
    tokenizers.warn_of_unknown(
        f"--input_file={options.input_file}", summary.unknown_tokens, summary.tokens
    )
    return summary


def _divides(input_files: Sequence[str], options: Options) -> bool:
    """Whether the data is made in several shards (or by Beam, which knows no other way)."""
    if options.num_shards is not None or options.runner:
        return options.num_shards != 1 or bool(options.runner)
    if len(options.output_files()) > 1:
        return False
    return forecast.text_bytes(input_files) > LARGEST_SINGLE_SHARD


def _make_one(input_files: Sequence[str], recipe: Recipe, options: Options) -> Summary:
    """Makes the data in one go, the published way."""
    if options.num_workers > 1:
        logging.warning("--num_workers=%d has no use without --num_shards", options.num_workers)
    shard = Shard(
        0, 1, corpus.Corpus.of(input_files), corpus.Span(0, 0), tuple(options.output_files())
    )
    kept = shards.finished(recipe, shard) if options.resume else None
    if kept:
        logging.info("%s: finished by an earlier run, kept", options.output_file)
        return kept
    summary = shards.make(recipe, shard)
    for name in shard.outputs:
        logging.info("wrote %s", name)
    return summary


def _warn_of_few_predictions(settings: masking.Settings) -> None:
    expected = settings.max_seq_length * settings.masked_lm_prob
    if settings.max_predictions_per_seq < 0.9 * expected:
        logging.warning(
            "--max_predictions_per_seq=%d limits masking: --masked_lm_prob=%g of %d tokens would"
            " be %d; pass --max_predictions_per_seq=%d for all",
            settings.max_predictions_per_seq,
            settings.masked_lm_prob,
            settings.max_seq_length,
            round(expected),
            math.ceil(expected),
        )


def _check_summary(summary: Summary, settings: masking.Settings, options: Options) -> None:
    logging.info("%s", summary.text(settings))
    if settings.needs_two_documents and summary.random_next == summary.instances:
        logging.warning(
            "every instance has a random next segment, because every document has one sentence"
            " only: next-sentence prediction learns nothing. Put a blank line between documents,"
            " not sentences."
        )


def _forecast(input_files: Sequence[str], recipe: Recipe, options: Options) -> Summary:
    seen = forecast.look(input_files, recipe)
    divided = _divides(input_files, options)
    count = options.shard_run(seen.text_bytes).num_shards if divided else 1
    logging.info("%s, in %d files", seen.summary.text(recipe.settings), count)
    logging.info(
        "about %s with --num_workers=%d, and %s of memory for each worker (from %s of samples)",
        duration(seen.seconds / min(options.num_workers, count)),
        options.num_workers,
        size(seen.memory(count)),
        size(seen.sample_bytes),
    )
    return seen.summary


def main(values: Any) -> None:
    """Runs the stage with the parsed flags."""
    run(cli.options_from_flags(Options, values))


def entry() -> None:
    """The console command."""
    cli.run(main, __doc__, define_flags)


if __name__ == "__main__":
    entry()
