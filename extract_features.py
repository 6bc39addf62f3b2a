r"""Writes the vectors that BERT computes for every token, or for every line, of a text.

Reads   lines of text, or pairs written as "first text ||| second text", and a pretrained model.
Writes  JSON lines: {"linex_index": 0, "features": [{"token": "[CLS]", "layers": [{"index": -1,
        "values": [0.123456, ...]}, ...]}, ...]}; linex_index is the number of the line from 0.
        With --pooling {"linex_index": 0, "vector": [0.123456, ...]}, or an array (.npy).

Examples:
  python extract_features.py --input_file=sample_data/lines.txt --output_file=out/features.jsonl \
    --bert_dir=out/pretrained --layers=-1,-2

  python extract_features.py --input_file=sample_data/lines.txt --output_file=out/vectors.npy \
    --bert_dir=out/pretrained --layers=-1 --pooling=mean --normalize
"""

import contextlib
import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Optional

from absl import flags, logging

from bert_toolkit import cli, features, files
from bert_toolkit.errors import UserError
from bert_toolkit.progress import Progress, size

STREAM = "-"  # standard input or output


def define_flags() -> None:
    """Defines the flags of this stage."""
    with cli.group("Input and output"):
        flags.DEFINE_string(
            "input_file",
            None,
            "Text to read, a line at a time; .gz or plain; - for standard input.",
            required=True,
        )
        flags.DEFINE_string(
            "output_file",
            None,
            "JSON lines to write; with --pooling, a name that ends in .npy makes an array of"
            " float32, [lines, size]. - for JSON lines on standard output.",
            required=True,
        )
        flags.DEFINE_string(
            "layers",
            "-1,-2,-3,-4",
            "Layers to write, separated by commas: -1 is the last, -2 the one below; 0 is the"
            " first; 0..5 for several, or all.",
        )
        flags.DEFINE_enum(
            "combine",
            "separate",
            ["separate", "concat", "mean", "sum"],
            "What to make of several layers: nothing, their vectors one after the other, their"
            " mean, or their sum. With --pooling, separate is concat.",
        )
        flags.DEFINE_enum(
            "pooling",
            "none",
            ["none", "cls", "mean", "max", "mean_max"],
            "One vector a line, and of what: of [CLS], the mean over tokens ([CLS] and [SEP] are"
            " among them), the largest of each dimension, or the last two one after the other.",
        )
        flags.DEFINE_boolean("normalize", False, "Scale vectors of --pooling to length 1.")
        flags.DEFINE_integer(
            "max_seq_length",
            128,
            "Longest sequence in tokens, [CLS] and [SEP] included; longer lines are cut.",
            lower_bound=4,
        )
    with cli.group("Model"):
        cli.define_model_flags(
            "The model's weights: a prefix such as bert_model.ckpt, its .index file, a directory,"
            " or a Hugging Face model.safetensors."
        )
        cli.define_tokenizer_flags()
    with cli.group("Device"):
        flags.DEFINE_integer("batch_size", 32, "Lines in a batch, over all devices.", lower_bound=1)
        flags.DEFINE_boolean(
            "use_one_hot_embeddings",
            False,
            "Look embeddings up by a matrix product, which TPUs do faster.",
        )
        cli.define_device_flags()


@dataclasses.dataclass(frozen=True)
class Options(cli.ModelOptions, cli.DeviceOptions):
    """The flags of this stage, by their names."""

    input_file: str = ""
    output_file: str = ""
    layers: str = "-1,-2,-3,-4"
    combine: str = "separate"
    pooling: str = "none"
    normalize: bool = False
    max_seq_length: int = 128
    batch_size: int = 32
    use_one_hot_embeddings: bool = False

    def __post_init__(self):
        problems = []
        if self.output_file.endswith(".npy") and self.pooling == "none":
            problems.append(
                f"--output_file={self.output_file}: tokens of lines make no array; pass --pooling,"
                " or write JSON lines"
            )
        if self.normalize and self.pooling == "none":
            problems.append("--normalize goes with --pooling")
        missing = self.missing_files("bert_config_file", "vocab_file", "init_checkpoint")
        cli.check(problems + missing)


def run(options: Options) -> int:
    """Writes the features; returns the number of lines.

    Raises:
      UserError: an input cannot be used.
    """
    # TensorFlow is imported when a model is needed, so that --help and mistakes answer at once.
    from bert_toolkit import checkpoints, estimators, model_dirs, model_fns, vectors

    if options.input_file != STREAM:
        files.check_input(options.input_file, "input_file")
    if options.output_file != STREAM:
        files.check_output(options.output_file)
    model = model_dirs.find(options)
    model_dirs.check_length(options.max_seq_length, model)
    layers = parse_layers(options.layers, model.config.num_hidden_layers)
    tokenizer = model.tokenizer()
    lines = LineInput(
        options.input_file, tokenizer, options.max_seq_length, static_shapes=options.static_shapes
    )
    with checkpoints.as_tensorflow(model.init_checkpoint) as init_checkpoint:
        one_hot = options.use_one_hot_embeddings
        engine = dataclasses.replace(options.engine(), one_hot_embeddings=one_hot)
        made_of = vectors.Vectors(options.combine, options.pooling, options.normalize)
        runner = estimators.Runner(
            model_fns.make(
                vectors.network(model.config, layers, engine, made_of),
                None,
                init_checkpoint,
                options.use_tpu,
            ),
            None,
            options,
            estimators.BatchSizes(predict=options.batch_size),
        )
        batches = runner.predict(lines)
        if options.output_file.endswith(".npy"):
            count = write_array(batches, lines, options.output_file)
        else:
            rows = functools.partial(json_rows, layers=layers, tokenizer=tokenizer)
            count = write_lines(batches, rows, lines, options.output_file)
    lines.warn()
    return count


def parse_layers(text: str, num_layers: int) -> list[int]:
    """Returns the layer numbers in --layers, in its order.

    Raises:
      UserError: not a list of numbers of layers that the model has.
    """
    if text == "all":
        return list(range(num_layers))
    layers: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r" *(-?\d+)(?:\.\.(-?\d+))? *", part)
        if found is None:
            raise UserError(
                f"--layers={text}: expected numbers separated by commas, such as -1,-2, ranges such"
                " as 0..5, or all"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        layers += range(first, last + 1)
        if last < first:
            raise UserError(f"--layers={text}: the range {part} ends before it begins")
    for layer in layers:
        if not -num_layers <= layer < num_layers:
            raise UserError(
                f"--layers={text}: no layer {layer}; the model has {num_layers}, numbered 0 to"
                f" {num_layers - 1} or -{num_layers} to -1"
            )
    return layers


class LineInput:
    """An Estimator's input function over lines of text, which are read as they are needed."""

    def __init__(self, path: str, tokenizer, max_seq_length: int, static_shapes: bool):
        """Makes the input; `static_shapes` pads every batch alike, as TPUs need."""
        self.path, self.tokenizer, self.max_seq_length = path, tokenizer, max_seq_length
        self.static_shapes = static_shapes
        self.error: Optional[UserError] = None
        self.empty: list[int] = []
        self.empty_count = self.cut_count = 0

    def warn(self) -> None:
        """Says which lines were empty and how many were cut."""
        if self.empty_count:
            shown = ", ".join(map(str, self.empty)) + (
                ", ..." if self.empty_count > len(self.empty) else ""
            )
            logging.warning(
                "%s: %d empty lines (%s) have [CLS] and [SEP] only",
                self.path,
                self.empty_count,
                shown,
            )
        if self.cut_count:
            logging.warning(
                "%s: %d lines were cut to --max_seq_length=%d tokens",
                self.path,
                self.cut_count,
                self.max_seq_length,
            )

    def sequences(self) -> Iterator[dict[str, Any]]:
        """Yields each line's features, unpadded; keeps an error, which TensorFlow would garble."""
        try:
            lines = files.read_lines(self.path) if self.path != STREAM else sys.stdin
            for index, line in enumerate(lines):
                text_a, text_b = split_pair(line.strip())
                encoded = features.encode(self.tokenizer, text_a, text_b, self.max_seq_length)
                self.cut_count += encoded.cut > 0
                if not text_a and not text_b:
                    self.empty_count += 1
                    if len(self.empty) < 5:
                        self.empty.append(index + 1)
                yield {
                    "unique_ids": index,
                    "input_ids": encoded.input_ids,
                    "input_mask": [1] * len(encoded.input_ids),
                    "segment_ids": encoded.segment_ids,
                }
        except UserError as error:
            self.error = error

    def __call__(self, params: Mapping[str, Any], input_context: Any = None) -> Any:
        """Returns a tf.data.Dataset of batches: features by name, each [B, S], unique_ids [B]."""
        import tensorflow.compat.v1 as tf

        along = tf.TensorSpec([None], tf.int32)
        signature = {"input_ids": along, "input_mask": along, "segment_ids": along}
        signature["unique_ids"] = tf.TensorSpec([], tf.int32)
        dataset = tf.data.Dataset.from_generator(self.sequences, output_signature=signature)
        length = self.max_seq_length if self.static_shapes else None
        padded = {name: [length] if name != "unique_ids" else [] for name in signature}
        if self.static_shapes:
            # With batch size - 1 more lines, dropping the remainder drops nothing but filling.
            filling = {name: tf.zeros([1], tf.int32) for name in signature}
            filling["unique_ids"] = tf.constant(-1)
            fillings = tf.data.Dataset.from_tensors(filling).repeat(params["batch_size"] - 1)
            dataset = dataset.concatenate(fillings)
        dataset = dataset.padded_batch(
            params["batch_size"], padded, drop_remainder=self.static_shapes
        )
        return dataset.prefetch(2)


def split_pair(line: str) -> tuple[str, Optional[str]]:
    """Returns the two texts of "A ||| B", or the line and None."""
    match = re.match(r"^(.*) \|\|\| (.*)$", line)
    return (match.group(1), match.group(2)) if match else (line, None)


def write_lines(batches, rows: Callable, lines: LineInput, path: str) -> int:
    """Writes the JSON lines of all batches; returns how many.

    A file appears as a whole or not at all.
    """
    with contextlib.ExitStack() as stack:
        writer: IO[bytes] = sys.stdout.buffer
        if path != STREAM:
            [unfinished] = stack.enter_context(files.replacing([path]))
            writer = stack.enter_context(files.open_binary(unfinished, "wb"))
        progress = stack.enter_context(Progress("extracting", "lines"))
        written = 0
        for batch in batches:
            for row in rows(batch):
                written += writer.write(_as_json(row))
                progress.update()
        _check_end(progress.done, lines)
    logging.info("wrote %s: %s lines, %s", path, f"{progress.done:,}", size(written))
    return progress.done


def _as_json(row: Mapping[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def write_array(batches, lines: LineInput, path: str) -> int:
    """Writes the vectors of all batches as an array, [lines, size]; returns the number of lines."""
    import numpy as np

    with (
        files.replacing([path]) as [unfinished],
        Progress("extracting", "lines") as progress,
        open(unfinished, "wb") as writer,
    ):
        width = 0
        for batch in batches:
            vectors = batch["vector"][batch["unique_ids"] >= 0].astype("<f4")
            if not width:
                width = vectors.shape[1]
                _write_header(writer, 0, width)
            writer.write(np.ascontiguousarray(vectors).tobytes())
            progress.update(len(vectors))
        _check_end(progress.done, lines)
        written = writer.tell()
        writer.seek(0)
        _write_header(writer, progress.done, width)
    logging.info("wrote %s: %s x %d, %s", path, f"{progress.done:,}", width, size(written))
    return progress.done


def _write_header(writer: IO[bytes], rows: int, width: int) -> None:
    """Writes the beginning of an .npy file, of which the length does not depend on the numbers."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    writer.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little"))
    writer.write(header.ljust(117).encode() + b"\n")


def _check_end(done: int, lines: LineInput) -> None:
    if lines.error is not None:
        raise lines.error
    if not done:
        raise UserError(f"{lines.path}: empty; expected lines of text")


def json_rows(batch: Mapping[str, Any], layers: list[int], tokenizer) -> Iterator[dict[str, Any]]:
    """Yields the published form of each sequence in a batch; values with 6 decimals."""
    import numpy as np

    # Rounded in double precision, as published: 6 decimals of a float32 may need more than its
    # digits.
    def rounded(name: str):
        return np.round(batch[name].astype(np.float64), 6)

    if "vector" in batch:
        for vector, unique_id in zip(rounded("vector"), batch["unique_ids"]):
            if unique_id >= 0:  # fills no batch
                yield {"linex_index": int(unique_id), "vector": vector}
        return
    combined = "combined" in batch
    values = [rounded("combined")] if combined else [rounded(f"layer_{n}") for n in layers]
    numbers = [",".join(map(str, layers))] if combined else layers
    # [B, S, H] each
    lengths = batch["input_mask"].sum(axis=1)
    for row, unique_id in enumerate(batch["unique_ids"]):
        if unique_id < 0:  # fills the batch
            continue
        tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][row, : lengths[row]].tolist())
        yield {
            "linex_index": int(unique_id),
            "features": [
                {
                    "token": token,
                    "layers": [
                        {"index": layer, "values": layer_values[row, position]}
                        for layer, layer_values in zip(numbers, values)
                    ],
                }
                for position, token in enumerate(tokens)
            ],
        }


def main(values: Any) -> None:
    """Runs the stage with the parsed flags."""
    run(cli.options_from_flags(Options, values))


def entry() -> None:
    """The console command."""
    cli.run(main, __doc__, define_flags)


if __name__ == "__main__":
    entry()
