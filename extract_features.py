r"""Writes the vectors that BERT computes for every token of every line of a text.

Reads   lines of text, or pairs written as "first text ||| second text", and a pretrained model.
Writes  JSON lines: {"linex_index": 0, "features": [{"token": "[CLS]", "layers": [{"index": -1,
        "values": [0.123456, ...]}, ...]}, ...]}; linex_index is the number of the line from 0.

Example:
  python extract_features.py --input_file=sample_data/lines.txt --output_file=out/features.jsonl \
    --bert_dir=out/pretrained --layers=-1,-2
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from absl import flags, logging

from bert_toolkit import cli, features, files
from bert_toolkit.engine import DEFAULT_ENGINE, Engine
from bert_toolkit.errors import UserError
from bert_toolkit.progress import Progress, size


def define_flags() -> None:
    """Defines the flags of this stage."""
    with cli.group("Input and output"):
        flags.DEFINE_string(
            "input_file", None, "Text to read, a line at a time; .gz or plain.", required=True
        )
        flags.DEFINE_string("output_file", None, "JSON lines to write.", required=True)
        flags.DEFINE_string(
            "layers",
            "-1,-2,-3,-4",
            "Layers to write, separated by commas: -1 is the last, -2 the one below; 0 is the"
            " first.",
        )
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
    max_seq_length: int = 128
    batch_size: int = 32
    use_one_hot_embeddings: bool = False

    def __post_init__(self):
        cli.check(self.missing_files("bert_config_file", "vocab_file", "init_checkpoint"))


def run(options: Options) -> int:
    """Writes the features; returns the number of lines.

    Raises:
      UserError: an input cannot be used.
    """
    # TensorFlow is imported when a model is needed, so that --help and mistakes answer at once.
    from bert_toolkit import checkpoints, estimators, model_dirs, model_fns

    files.check_input(options.input_file, "input_file")
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
        runner = estimators.Runner(
            model_fns.make(
                network(model.config, layers, engine), None, init_checkpoint, options.use_tpu
            ),
            None,
            options,
            estimators.BatchSizes(predict=options.batch_size),
        )
        count = write_features(runner.predict(lines), layers, tokenizer, lines, options.output_file)
    lines.warn()
    return count


def parse_layers(text: str, num_layers: int) -> list[int]:
    """Returns the layer numbers in --layers, in its order.

    Raises:
      UserError: not a list of numbers of layers that the model has.
    """
    try:
        layers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"--layers={text}: expected whole numbers separated by commas, such as -1,-2"
        ) from None
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
            for index, line in enumerate(files.read_lines(self.path)):
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


def write_features(batches, layers: list[int], tokenizer, lines: LineInput, path: str) -> int:
    """Writes the JSON lines of all batches, as a whole or not at all; returns how many."""
    import orjson

    with files.replacing([path]) as [unfinished], Progress("extracting", "lines") as progress:
        with files.open_binary(unfinished, "wb") as writer:
            for batch in batches:
                for row in json_rows(batch, layers, tokenizer):
                    writer.write(
                        orjson.dumps(
                            row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
                        )
                    )
                    progress.update()
            written = writer.tell()
        if lines.error is not None:
            raise lines.error
        if not progress.done:
            raise UserError(f"{lines.path}: empty; expected lines of text")
    logging.info("wrote %s: %s lines, %s", path, f"{progress.done:,}", size(written))
    return progress.done


def json_rows(batch: Mapping[str, Any], layers: list[int], tokenizer) -> Iterator[dict[str, Any]]:
    """Yields the published form of each sequence in a batch; values with 6 decimals."""
    import numpy as np

    # Rounded in double precision, as published: 6 decimals of a float32 may need more than its
    # digits.
    values = [
        np.round(batch[f"layer_{layer}"].astype(np.float64), 6) for layer in layers
    ]  # [B, S, H] each
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
                        for layer, layer_values in zip(layers, values)
                    ],
                }
                for position, token in enumerate(tokens)
            ],
        }


def network(config, layers: list[int], engine: Engine = DEFAULT_ENGINE):
    """Returns the function (features, mode) -> Outputs that builds BERT and gives some layers."""
    import tensorflow.compat.v1 as tf

    from bert_toolkit import model_fns
    from bert_toolkit.outputs import Outputs

    def build(features: Mapping[str, tf.Tensor], mode: str) -> Outputs:
        model = model_fns.encoder(config, features, mode, engine)
        outputs = model.get_all_encoder_layers()
        passed_on = {name: features[name] for name in ("unique_ids", "input_ids", "input_mask")}
        return Outputs({**passed_on, **{f"layer_{layer}": outputs[layer] for layer in layers}})

    return build


def main(values: Any) -> None:
    """Runs the stage with the parsed flags."""
    run(cli.options_from_flags(Options, values))


def entry() -> None:
    """The console command."""
    cli.run(main, __doc__, define_flags)


if __name__ == "__main__":
    entry()
