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
import itertools
import math
import os
from collections.abc import Sequence
from typing import ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.io import files, tfrecord
from bert_toolkit.io.progress import duration, size
from bert_toolkit.options import RuleOptions, TokenizerOptions, check, option
from bert_toolkit.pretraining import corpus, forecast, masking, shard_runs, shards
from bert_toolkit.pretraining.shards import Recipe, Shard, Summary
from bert_toolkit.text import segmenters, shown, tokenizer_rules
from tokenization import load_vocab

PUBLISHED_MASKED_LM_PROB = 0.15
PUBLISHED_PREDICTIONS = 20
PUBLISHED_DUPE_FACTOR = 10

# Text beyond the first is divided without being asked, into shards of about the second: 64 MB of
# text make instances of some 0.7 GB, which have to be shuffled in memory.
LARGEST_SINGLE_SHARD = 256 << 20
SHARD_SIZE = 64 << 20


@dataclasses.dataclass(frozen=True)
class Options(TokenizerOptions):
    """The options of this stage."""

    input_file: str = option(
        "", "Text to read: files and glob patterns, separated by commas.", required=True
    )
    output_file: str = option(
        "",
        "TFRecord file to write, or several separated by commas, which share the instances."
        " With --num_shards, the beginning of their names: NAME-00000-of-00200.",
        required=True,
    )
    dry_run: bool = option(False, "Only look at samples of the text, and say what to expect.")
    word_separator: Optional[str] = option(
        None,
        "What separates words in text that was segmented into words, such as Chinese: ' ' or a"
        " mark. All tokens of a word are then masked together.",
    )
    segmenter: Optional[str] = option(
        None,
        "Find the words of Chinese text, so that all characters of a word are masked together; the"
        " tokens stay the same. Needs the [zh] extra.",
        choices=segmenters.SEGMENTERS,
    )
    max_seq_length: int = option(
        128, "Longest sequence in tokens, [CLS] and [SEP] included.", lower=5
    )
    max_predictions_per_seq: Optional[int] = option(
        None,
        "Most masked tokens in a sequence. If --masked_lm_prob has another value than 0.15, this is"
        " max_seq_length * masked_lm_prob unless given, else as published (default: 20)",
        lower=1,
    )
    masked_lm_prob: float = option(
        PUBLISHED_MASKED_LM_PROB,
        "Share of tokens to mask; 0.4 has been found to suit large models (Wettig et al., 2023).",
        lower=0.0,
        upper=1.0,
    )
    do_whole_word_mask: bool = option(False, "Mask all pieces of a word together.")
    max_ngram: int = option(
        1,
        "Mask up to so many words in a row, n of them with a probability that falls as 1 / n.",
        lower=1,
        upper=10,
    )
    dupe_factor: Optional[int] = option(
        None,
        "How many times the text is used, with new masks. With --static_masks=false 1 unless given,"
        " else as published (default: 10)",
        lower=1,
    )
    short_seq_prob: float = option(
        0.1,
        "Share of documents cut into shorter sequences, so that the model sees some.",
        lower=0.0,
        upper=1.0,
    )
    random_seed: int = option(12345, "The same seed and text give the same instances.")
    use_next_sentence: bool = option(
        True,
        "Make pairs of segments to tell apart. Without, a sequence is one segment of full length;"
        " pass the same to run_pretraining.py.",
    )
    sentence_order: bool = option(
        False,
        "Tell whether two segments stand in their order or were swapped (ALBERT), in place of"
        " whether the second comes from another document.",
    )
    pack_documents: bool = option(
        False,
        "With --use_next_sentence=false: let sequences run on into the next document after a"
        " [SEP], so that short documents leave no padding.",
    )
    static_masks: bool = option(
        True,
        "Choose the masked tokens now. Without, run_pretraining.py chooses them anew in every"
        " epoch: the files are smaller, and one copy of the text is enough.",
    )
    show_examples: int = option(
        0,
        "Show so many of the first instances in the log: tokens, ids, mask, segments and masked"
        " tokens.",
        lower=0,
    )
    num_shards: Optional[int] = option(
        None,
        "Divide the documents among so many files, each made on its own: memory is needed for one"
        " shard, not for the corpus. Without this flag 1 up to 256 MB of text, beyond that one for"
        " each 64 MB.",
        lower=1,
        upper=99999,
    )
    num_workers: int = option(
        1, "Processes that make shards; their number does not change the result.", lower=1
    )
    resume: bool = option(
        False, "Keep shards that an earlier run of the same command has finished."
    )
    runner: Optional[str] = option(
        None,
        "Run as an Apache Beam pipeline: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner."
        " Needs the [beam] extra.",
    )
    beam_options: str = option(
        "",
        "Options of Beam and its runner, as on a command line:"
        " '--direct_num_workers=4 --direct_running_mode=multi_processing'.",
    )

    GROUPS: ClassVar = {
        "Input and output": ("input_file", "output_file", "dry_run", "show_examples"),
        "Tokenization": (TokenizerOptions, RuleOptions, "word_separator", "segmenter"),
        "Instances": (
            "max_seq_length",
            "max_predictions_per_seq",
            "masked_lm_prob",
            "do_whole_word_mask",
            "max_ngram",
            "dupe_factor",
            "short_seq_prob",
            "random_seed",
        ),
        "Objective": ("use_next_sentence", "sentence_order", "pack_documents", "static_masks"),
        "Large corpora": ("num_shards", "num_workers", "resume", "runner", "beam_options"),
    }

    def __post_init__(self):
        conflicts = []
        if not self.vocab_file:
            conflicts.append("--vocab_file is required")
        outputs = self.output_files()
        if len(set(outputs)) < len(outputs) or not outputs:
            conflicts.append(f"--output_file={self.output_file}: expected file names, each once")
        if len(outputs) > 1 and (self.num_shards or 1) > 1:
            conflicts.append("--output_file: one name, please, to which --num_shards adds numbers")
        if self.sentence_order and not self.use_next_sentence:
            conflicts.append("--sentence_order needs pairs of segments: --use_next_sentence=true")
        if self.pack_documents and self.use_next_sentence:
            conflicts.append("--pack_documents is for single segments: --use_next_sentence=false")
        if self.max_ngram > 1 and not self.static_masks:
            conflicts.append(
                "--max_ngram is not for --static_masks=false, which masks single words"
            )
        if self.word_separator == "":
            conflicts.append("--word_separator: expected a text, ' ' for example")
        if self.word_separator is not None and self.segmenter:
            conflicts.append(
                "--segmenter finds the words of text that does not mark them: leave out"
                " --word_separator"
            )
        if self.beam_options and not self.runner:
            conflicts.append("--beam_options needs --runner, for example --runner=DirectRunner")
        check(conflicts)

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
            words_are_marked=self.word_separator is not None or self.segmenter is not None,
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
        from bert_toolkit.pretraining import beam

        beam.use_for_remote_paths()
    input_files = files.expand_inputs(options.input_file, "input_file")
    files.check_input(options.vocab_file or "", "vocab_file")
    rules = tokenizer_rules.rules(options, options.vocab_file)
    recipe = Recipe(
        options.vocab_file or "",
        files.digest(options.vocab_file or ""),
        rules,
        options.settings(),
        options.random_seed,
        options.word_separator,
        options.segmenter,
    )
    # Tell what is wrong with them before the work.
    tokenizer = tokenizer_rules.load(recipe.vocab_file, rules)
    if options.segmenter:
        segmenters.WordMarker(tokenizer, options.segmenter)
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
        first = options.output_files()[0]
    else:
        directory = os.path.dirname(options.output_files()[0])
        with corpus.unpacked(input_files, directory) as plain_files:
            text = corpus.Corpus.of(plain_files, input_files)
            shard_run = options.shard_run(text.size)
            summary = shard_runs.make_all(text, recipe, shard_run)
            first = shard_run.shards(text)[0].outputs[0]
    _check_summary(summary, recipe.settings, options)
    _show_examples(first, options)
    tokenizer_rules.warn_of_unknown(
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


def _show_examples(path: str, options: Options) -> None:
    """Logs the first instances of a file."""
    if not options.show_examples:
        return
    tokens = {number: token for token, number in load_vocab(options.vocab_file or "").items()}
    records = itertools.islice(tfrecord.read_records(path), options.show_examples)
    for number, data in enumerate(records, 1):
        features = tfrecord.features_of(data, f"{path} record {number}")
        shown.log_example(shown.values_of(features), tokens)


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


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
