r"""Writes the vectors that BERT computes for every token, word or line of a text.

Reads   lines of text, or pairs written as "first text ||| second text", and a pretrained model.
Writes  JSON lines: {"linex_index": 0, "features": [{"token": "[CLS]", "layers": [{"index": -1,
        "values": [0.123456, ...]}, ...]}, ...]}; linex_index is the number of the line from 0.
        With --pooling {"linex_index": 0, "vector": [0.123456, ...]}. Or arrays: .npy, .npz, .hdf5,
        .parquet, .tfrecord.

Examples:
  python extract_features.py --input_file=sample_data/lines.txt --output_file=out/features.jsonl \
    --bert_dir=out/pretrained --layers=-1,-2

  python extract_features.py --input_file=sample_data/lines.txt --output_file=out/vectors.npy \
    --bert_dir=out/pretrained --layers=-1 --pooling=mean --normalize
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Optional

from absl import logging

from bert_toolkit import cli
from bert_toolkit.errors import UserError
from bert_toolkit.features import feature_shards, lines, neighbors, projector, writers
from bert_toolkit.features.layers import EMBEDDINGS, Layer, parse_layers
from bert_toolkit.io import background, files
from bert_toolkit.io.progress import Progress, size
from bert_toolkit.options import (
    DeviceOptions,
    ModelOptions,
    RuleOptions,
    TokenizerOptions,
    WindowOptions,
    batch_tokens_option,
    check,
    option,
    options_of,
    show_examples_option,
    window_option,
)
from bert_toolkit.text import words

VOCABULARY = "vocabulary"  # for --projector


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions, WindowOptions, DeviceOptions):
    """The options of this stage."""

    input_file: str = option(
        "",
        "Text to read, a line at a time; .gz or plain; - for standard input. Required, but for"
        " --projector=vocabulary.",
    )
    output_file: Optional[str] = option(
        None,
        "File to write; - for JSON lines on standard output. Not needed with --queries_file or"
        " --projector_dir.",
    )
    output_format: Optional[str] = option(
        None,
        "Form of the output; without this flag, by the ending of --output_file, JSON lines"
        " (.jsonl, .jsonl.gz) if it says nothing. npy is for --pooling.",
        choices=list(writers.FORMATS),
    )
    dtype: str = option(
        "float32",
        "Type of the numbers in files that are not JSON lines.",
        choices=["float32", "float16"],
    )
    lines_per_shard: Optional[int] = option(
        None,
        "Write files of so many lines each, NAME-00000.jsonl and so on, and a list of them,"
        " NAME.shards.json.",
        lower=1,
    )
    resume: bool = option(
        True, "With --lines_per_shard, keep the files that an earlier run of the same command made."
    )
    layers: str = option(
        "-1,-2,-3,-4",
        "Layers to write, separated by commas: -1 is the last, -2 the one below; 0 is the"
        " first; 0..5 for several, all, or last-four; embeddings for what the first layer reads,"
        " the normalized sum of the three embeddings. Layers above are not computed.",
    )
    combine: str = option(
        "separate",
        "What to make of several layers: nothing, their vectors one after the other, their"
        " mean, or their sum. With --pooling, separate is concat.",
        choices=["separate", "concat", "mean", "sum"],
    )
    align: str = option(
        words.PIECES,
        "What has a vector: WordPieces; words as the tokenizer finds them (punctuation marks"
        " are words); or what stands between spaces. Words come with their text, the characters"
        " of the line they are (offsets) and the tokens they are made of (pieces), each from"
        " the first to the one after the last; [CLS] and [SEP] are left out.",
        choices=[words.PIECES, words.WORDS, words.SPACES],
    )
    word_vector: str = option(
        "mean", "A word is the mean of its pieces, or the first of them.", choices=["mean", "first"]
    )
    pooling: str = option(
        "none",
        "One vector a line, and of what: of [CLS], the mean over tokens, the largest of each"
        " dimension, or the last two one after the other. Padding never counts.",
        choices=["none", "cls", "mean", "max", "mean_max"],
    )
    pool_special_tokens: bool = option(
        True, "Whether [CLS] and [SEP] count in the mean and in the largest."
    )
    normalize: bool = option(False, "Scale vectors of --pooling to length 1.")
    attention: bool = option(
        False,
        "Write the attention weights of --layers in place of vectors, to an .npz file: for each"
        " line its tokens, and how much each takes in of every other, by layer and head.",
    )
    queries_file: Optional[str] = option(
        None,
        "With --pooling: for every line of this file, print the lines of --input_file with the"
        " nearest vectors (cosine, line number from 1, text).",
    )
    num_neighbors: int = option(5, "How many of them.", lower=1)
    projector_dir: Optional[str] = option(
        None,
        "Directory for TensorBoard's embedding projector (tensorboard --logdir): its points are"
        " lines with --pooling, else tokens.",
    )
    show_examples: int = show_examples_option()
    projector: str = option(
        "features",
        "What the points are: features of --input_file, or the entries of the model's vocabulary"
        " where its word embeddings have them, for which no text is read.",
        choices=["features", VOCABULARY],
    )
    batch_size: int = option(
        32,
        "Sequences in a batch, over all devices; more where they are short (--batch_tokens).",
        lower=1,
    )
    batch_tokens: int = batch_tokens_option("A batch")
    use_one_hot_embeddings: bool = option(
        False, "Look embeddings up by a matrix product, which TPUs do faster."
    )
    max_seq_length: int = option(
        128, "Longest sequence in tokens, [CLS] and [SEP] included; longer lines are cut.", lower=4
    )
    doc_stride: int = window_option("each token is taken from where it has most text around it.")
    init_checkpoint: Optional[str] = option(
        None,
        "The model's weights: a prefix such as bert_model.ckpt, its .index file, a directory,"
        " or a Hugging Face model.safetensors.",
    )

    GROUPS: ClassVar = {
        "Input and output": (
            "input_file",
            "output_file",
            "output_format",
            "dtype",
            "lines_per_shard",
            "resume",
            "show_examples",
        ),
        "Vectors": (
            "layers",
            "combine",
            "align",
            "word_vector",
            "pooling",
            "pool_special_tokens",
            "normalize",
        ),
        "Attention": ("attention",),
        "Length": ("max_seq_length", "doc_stride"),
        "Neighbors": ("queries_file", "num_neighbors", "projector_dir", "projector"),
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
        "Device": ("batch_size", "batch_tokens", "use_one_hot_embeddings", DeviceOptions),
    }

    @property
    def format(self) -> str:
        """The format of the output."""
        return self.output_format or writers.format_of(self.output_file or "")

    def __post_init__(self):
        missing = self.missing_files("bert_config_file", "vocab_file", "init_checkpoint")
        if self.projector == VOCABULARY:
            check([*self._vocabulary_conflicts(), *missing])
        else:
            attention = self._attention_conflicts() if self.attention else ()
            check([*self._conflicts(), *attention, *self._output_conflicts(), *missing])

    def _conflicts(self) -> Iterator[str]:
        """Yields a sentence for everything about vectors that does not go together."""
        pooled = self.pooling != "none"
        if not self.input_file:
            yield "--input_file is required"
        if not (self.output_file or self.queries_file or self.projector_dir):
            yield "--output_file is required (or --queries_file, or --projector_dir)"
        if self.normalize and not pooled:
            yield "--normalize goes with --pooling"
        if not self.pool_special_tokens and self.pooling in ("none", "cls"):
            yield "--nopool_special_tokens goes with --pooling=mean, max or mean_max"
        if self.align != words.PIECES and pooled:
            yield f"--align={self.align} is about vectors of words; leave out --pooling"
        if self.word_vector != "mean" and self.align == words.PIECES:
            yield f"--word_vector={self.word_vector} goes with --align=words or spaces"
        if self.queries_file and not pooled:
            yield "--queries_file compares lines; pass --pooling=mean, for example"
        yield from self.window_conflicts()

    def _vocabulary_conflicts(self) -> Iterator[str]:
        """Yields a sentence for everything that does not go with points of the vocabulary."""
        if not self.projector_dir:
            yield f"--projector={VOCABULARY}: --projector_dir is required"
        for name in ("input_file", "output_file", "queries_file", "attention"):
            if getattr(self, name):
                yield f"--projector={VOCABULARY} reads no text; leave out --{name}"

    def _attention_conflicts(self) -> Iterator[str]:
        """Yields a sentence for everything that does not go with attention weights."""
        if self.output_file and self.format != "npz":
            yield f"--attention: --output_file={self.output_file}: expected an .npz file"
        if EMBEDDINGS in self.layers:
            yield f"--attention: --layers={self.layers}: expected layers, which embeddings are not"
        for name in ("combine", "align", "pooling", "doc_stride", "queries_file", "projector_dir"):
            if getattr(self, name) != options_of(Options)[name].default:
                yield f"--attention is of the tokens of whole lines; leave out --{name}"

    def _output_conflicts(self) -> Iterator[str]:
        """Yields a sentence for everything about the output that does not go together."""
        name, path = self.format, self.output_file or ""
        if name == "npy" and self.pooling == "none":
            yield (
                f"--output_file={path}: tokens of lines make no array; pass --pooling, or write"
                " .npz, .hdf5, .parquet, .tfrecord or JSON lines"
            )
        if name == "jsonl" and self.dtype != "float32":
            yield f"--dtype={self.dtype}: not for JSON lines; choose another --output_format"
        if path == files.STREAM and (name != "jsonl" or self.lines_per_shard):
            yield "--output_file=-: only JSON lines, in one piece, go to standard output"
        if self.lines_per_shard and (self.queries_file or self.projector_dir):
            yield (
                "--lines_per_shard: neighbors and the projector want all lines in one run; make"
                " them without it"
            )
        if path == files.STREAM and self.queries_file:
            yield "--output_file=-: neighbors go to standard output; name a file"
        if name in writers.LOCAL_FORMATS and "://" in path:
            yield f"--output_file={path}: {name} is written on this machine only; copy it there"


def run(options: Options) -> int:
    """Writes the features; returns the number of lines, or of points of the vocabulary.

    Raises:
      UserError: an input cannot be used.
    """
    # TensorFlow is imported when a model is needed, so that --help and mistakes answer at once.
    if options.projector == VOCABULARY:
        return project_vocabulary(options)
    check_files(options)
    from bert_toolkit.checkpoints import checkpoint_files, model_directory, training_notes
    from bert_toolkit.training import precision

    options = precision.resolve(options)
    model = model_directory.find(options)
    model_directory.check_length(options.max_seq_length, model)
    layers = parse_layers(options.layers, model.config.num_hidden_layers)
    one_vector = len(layers) == 1 or options.combine != "separate" or options.pooling != "none"
    if options.projector_dir and not one_vector:
        raise UserError(
            "--projector_dir: a token is one point; pass --combine=mean, or one layer: --layers=-1"
        )
    vocabulary = training_notes.Vocabulary.of(model.vocab_file or "")
    training_notes.check_vocabulary(model.init_checkpoint or "", vocabulary)
    sink = Sinks(options, make_layout(options, layers), made_from(options, model))
    line_input = make_line_input(options, model, layers, sink.lines_done)
    line_count = count_lines(options.input_file)
    with checkpoint_files.as_tensorflow(model.init_checkpoint) as init_checkpoint:
        trainer = make_trainer(options, model.config, layers, init_checkpoint, line_count)
        finish = lines.Finish(options.pooling, options.normalize, options.word_vector)
        found = lines.in_order(trainer.predict(line_input), line_input, finish)
        count = write(found, line_input, sink, line_count)
    line_input.warn()
    return count


def make_line_input(
    options: Options, model: Any, layers: list[Layer], lines_done: int
) -> lines.LineInput:
    """Returns the lines to encode: the queries first, then those after `lines_done`."""
    return lines.LineInput(
        options.input_file,
        itertools.chain(
            read_queries(options.queries_file), read_sources(options.input_file, lines_done)
        ),
        model.tokenizer(),
        lines.Encoding(
            options.max_seq_length,
            options.doc_stride,
            options.align,
            options.pool_special_tokens,
        ),
        bytes_per_token(model.config, layers, options),
        batch_tokens=options.batch_tokens,
        static_shapes=options.static_shapes,
        shown=options.show_examples,
    )


def make_trainer(
    options: Options,
    config: Any,
    layers: list[Layer],
    init_checkpoint: Any,
    line_count: Optional[int],
) -> Any:
    """Returns the Trainer that predicts what is asked for of each line."""
    from bert_toolkit.checkpoints import constants, restore
    from bert_toolkit.features import vectors
    from bert_toolkit.training import model_functions
    from bert_toolkit.training.trainer import BatchSizes, Trainer

    compute = dataclasses.replace(
        options.compute(), one_hot_embeddings=options.use_one_hot_embeddings
    )
    if options.attention:
        network = vectors.attention_network(config, layers, compute)
    else:
        made_of = vectors.Vectors(options.combine, options.pooling)
        network = vectors.network(config, layers, compute, made_of)
    model_fn = model_functions.make(
        network,
        None,
        init_checkpoint,
        options.use_tpu,
        if_untrained=restore.ANOTHER_CHECKPOINT,
        constant_kernels=constants.precision(options, line_count),
    )
    return Trainer(model_fn, None, options, BatchSizes(predict=options.batch_size))


def project_vocabulary(options: Options) -> int:
    """Writes the word embeddings as points for the projector; returns how many."""
    from bert_toolkit.checkpoints import checkpoint_files, model_directory, training_notes

    model = model_directory.find(options)
    assert model.init_checkpoint
    tokenizer = model.tokenizer()
    vocabulary = training_notes.Vocabulary.of(model.vocab_file or "")
    training_notes.check_vocabulary(model.init_checkpoint, vocabulary)
    table = checkpoint_files.read(model.init_checkpoint)["bert/embeddings/word_embeddings"]
    directory = options.projector_dir or ""
    count = projector.write_vocabulary(directory, tokenizer, table)
    logging.info("tensorboard --logdir %s shows %s points", directory, f"{count:,}")
    return count


def check_files(options: Options) -> None:
    """Raises a UserError if an input is not there, or the output cannot be written."""
    for name in ("input_file", "queries_file"):
        path = getattr(options, name)
        if path and (path != files.STREAM or name == "queries_file"):
            files.check_input(path, name)
    if options.output_file and options.output_file != files.STREAM:
        files.check_output(options.output_file)
        writers.check_libraries(options.format)


def bytes_per_token(config: Any, layers: list[Layer], options: Options) -> int:
    """Returns how much memory the features of a token take, at most, until they are written."""
    if options.attention:
        return 4 * len(layers) * config.num_attention_heads * options.max_seq_length
    if options.pooling != "none":
        return 0
    width = 1 if options.combine in ("mean", "sum") else len(layers)
    return 4 * config.hidden_size * width


def make_layout(options: Options, layers: list[Layer]) -> writers.FeatureLayout:
    """Returns what is written of each line."""
    names: dict[str, Any] = {f"layer_{number}": number for number in layers}
    if options.pooling != "none":
        names = {"vector": None}
    elif options.combine != "separate":
        names = {"combined": ",".join(map(str, layers))}
    with_words = options.align != words.PIECES
    return writers.FeatureLayout(
        names, options.dtype, options.pooling != "none", with_words, options.attention
    )


def made_from(options: Options, model: Any) -> dict[str, Any]:
    """Returns what decides what is in the output, to tell whether a run can be resumed.

    Files are told by their names, the input by its size too.
    """
    names = (
        "input_file format output_file dtype lines_per_shard layers combine align word_vector"
        " pooling pool_special_tokens normalize max_seq_length precision"
    )
    facts = {name: getattr(options, name) for name in names.split()}
    facts["window_stride"] = options.doc_stride  # as runs of earlier versions have it
    facts["attention"] = options.attention or None  # as in those that do not know of it
    for name in ("init_checkpoint", "vocab_file", "config_file"):
        facts[name] = getattr(model, name)
    facts |= model.rules.to_dict()
    if options.input_file != files.STREAM:
        facts["input_bytes"] = files.size(options.input_file)
    return facts


def count_lines(path: str) -> Optional[int]:
    """Returns the number of lines to read, if it can be known without reading a pipe to its end."""
    return files.count_lines(path) if "://" in path or os.path.isfile(path) else None


def read_sources(path: str, skip: int) -> Iterator[lines.SourceLine]:
    """Yields the lines of a file or of standard input, but for the first `skip`."""
    texts = files.read_lines(path)
    for number, text in itertools.islice(enumerate(texts), skip, None):
        yield lines.SourceLine(number, text)


def read_queries(path: Optional[str]) -> Iterator[lines.SourceLine]:
    """Yields the lines to find neighbors of."""
    if path is None:
        return
    number = -1
    for number, text in enumerate(files.read_lines(path)):
        yield lines.SourceLine(number, text, is_query=True)
    if number < 0:
        raise UserError(f"--queries_file={path}: empty; expected lines of text")


class Sinks:
    """Where features go: a file or shards, the projector, the search for neighbors."""

    def __init__(self, options: Options, layout: writers.FeatureLayout, facts: dict[str, Any]):
        """Finds what an earlier run has finished, if shards are written; opens nothing."""
        self._options, self._layout = options, layout
        self._shards: Optional[feature_shards.ShardedWriter] = None
        if options.lines_per_shard and options.output_file:
            self._shards = feature_shards.ShardedWriter(
                options.output_file,
                options.format,
                layout,
                options.lines_per_shard,
                facts,
                options.resume,
            )
        self.lines_done = self._shards.lines if self._shards else 0
        self._open = contextlib.ExitStack()
        self._writers: list[Any] = []
        self._neighbors: Optional[neighbors.Neighbors] = None

    def __enter__(self) -> "Sinks":
        options = self._options
        if self._shards:
            self._open.push(self._shards.abandon)
            self._writers.append(self._shards)
        elif options.output_file:
            writer = writers.open_writer(options.output_file, options.format, self._layout)
            self._writers.append(self._open.enter_context(writer))
        if options.projector_dir:
            self._writers.append(
                self._open.enter_context(projector.Projector(options.projector_dir))
            )
        if options.queries_file:
            self._neighbors = neighbors.Neighbors(options.num_neighbors)
        return self

    def write(self, line: lines.LineFeatures) -> None:
        """Gives a line's features to all of them; those of a query to one."""
        if self._neighbors:
            self._neighbors.write(line)
        if not line.source.is_query:
            for writer in self._writers:
                writer.write(line)

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self._shards:
            self._shards.close()
        self._open.__exit__(*error)

    def tell(self, count: int) -> None:
        """Says what was written, and prints the neighbors."""
        options = self._options
        if self._neighbors:
            print(self._neighbors.text(), end="")
        if options.projector_dir:
            logging.info("tensorboard --logdir %s shows the points", options.projector_dir)
        if self._shards:
            what = f"{len(self._shards.shards)} files, {size(self._shards.bytes)}"
        elif options.output_file and options.output_file != files.STREAM:
            what = size(files.size(options.output_file))
        else:
            return
        logging.info("wrote %s: %s lines, %s", options.output_file, f"{count:,}", what)


def write(
    found: Iterable[lines.LineFeatures],
    line_input: lines.LineInput,
    sinks: Sinks,
    total: Optional[int],
) -> int:
    """Writes the features of all lines; returns how many, with those of an earlier run."""
    remaining = None if total is None else total - sinks.lines_done
    with sinks, Progress("extracting", "lines", total=remaining) as progress:
        with background.InBackground(sinks.write) as write_soon:
            for line in found:
                write_soon(line)
                if not line.source.is_query:
                    progress.update()
        done = progress.done + sinks.lines_done
        line_input.check_end(done)
    sinks.tell(done)
    return done


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
