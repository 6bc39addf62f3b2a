r"""Writes a trained model in a form that servers and devices load without this toolkit.

Reads   a model directory (--bert_dir): of a classifier, a tagger or what answers questions, or
        of any BERT, whose vectors are then exported.
Writes  OUTPUT_DIR/1 (2, 3, ...), a SavedModel that takes token ids and, with tensorflow-text,
        texts, its vocabulary and labels with it, and models.config for TensorFlow Serving;
        or OUTPUT_DIR/model.tflite, in float32, float16 or int8.

Examples:
  bert export --bert_dir=out/reviews --output_dir=out/served

  bert export --bert_dir=out/pretrained --output_dir=out/encoder --pooling=mean

  bert export --bert_dir=out/reviews --output_dir=out/lite --format=tflite --dtype=int8
"""

import dataclasses
import os
from typing import Any, ClassVar, Optional

from absl import logging

from bert_toolkit import cli, problems
from bert_toolkit.errors import UserError
from bert_toolkit.features.layers import parse_layers
from bert_toolkit.io import files
from bert_toolkit.io.progress import size
from bert_toolkit.options import ModelOptions, RuleOptions, TokenizerOptions, check, option

SAVED_MODEL, TFLITE = "saved_model", "tflite"


@dataclasses.dataclass(frozen=True)
class Options(ModelOptions):
    """The options of this program."""

    output_dir: str = option("", "Directory to write to.", required=True)
    format: str = option(SAVED_MODEL, "What to write.", choices=[SAVED_MODEL, TFLITE])
    dtype: str = option(
        "float32",
        "How .tflite stores weights: a half and a quarter as large in 16 and 8 bits.",
        choices=["float32", "float16", "int8"],
    )
    with_text: Optional[bool] = option(
        None,
        "Whether a SavedModel also takes texts (signatures text and text_pair); without this"
        " flag, if tensorflow-text is installed. What loads it needs tensorflow-text too;"
        " TensorFlow Serving has it.",
    )
    max_seq_length: int = option(128, "Texts are cut to so many tokens.", lower=4)
    model_name: Optional[str] = option(
        None, "Its name for TensorFlow Serving; else that of --output_dir."
    )
    layers: str = option(
        "-1", "Which layers, written as for bert features: -1,-2, 0..5, all or embeddings."
    )
    combine: str = option(
        "concat", "What to make of several layers.", choices=["concat", "mean", "sum"]
    )
    pooling: str = option(
        "mean",
        "One vector a text, and of what; none for one a token.",
        choices=["none", "cls", "mean", "max", "mean_max"],
    )
    normalize: bool = option(False, "Scale pooled vectors to length 1.")
    init_checkpoint: Optional[str] = option(
        None, "The model's weights; without this flag, the best of a classifier's directory."
    )

    GROUPS: ClassVar = {
        "Model": (ModelOptions, TokenizerOptions, RuleOptions),
        "Output": ("output_dir", "format", "dtype", "with_text", "max_seq_length", "model_name"),
        "Vectors (of a model that is no classifier)": (
            "layers",
            "combine",
            "pooling",
            "normalize",
        ),
    }

    def __post_init__(self):
        conflicts = self.missing_files("bert_config_file", "init_checkpoint")
        if self.dtype != "float32" and self.format == SAVED_MODEL:
            conflicts.append(f"--dtype={self.dtype} is for --format=tflite")
        if self.with_text and self.format == TFLITE:
            conflicts.append("--with_text: .tflite takes token ids only")
        if self.normalize and self.pooling == "none":
            conflicts.append("--normalize goes with --pooling=cls, mean, max or mean_max")
        if "://" in self.output_dir:
            conflicts.append(
                f"--output_dir={self.output_dir}: export here, then copy the directory"
            )
        check(conflicts)


def run(options: Options) -> str:
    """Exports the model; returns what was written.

    Raises:
      UserError: the model cannot be used.
    """
    files.make_directory(options.output_dir, "output_dir")
    import modeling
    from bert_toolkit.checkpoints import model_directory, training_notes
    from bert_toolkit.export import saved_model

    exported = find(options)
    if exported.files.vocab_file:
        vocabulary = training_notes.Vocabulary.of(exported.files.vocab_file)
        training_notes.check_vocabulary(exported.checkpoint, vocabulary)
    if options.format == TFLITE:
        if exported.files.config.network_type == modeling.BILSTM:
            raise UserError(
                "--format=tflite: the model is a BiLSTM, whose LSTM is no operation of TFLite; pass"
                " --format=saved_model"
            )
        path = os.path.join(options.output_dir, "model.tflite")
        saved_model.write_tflite(exported, path, options.dtype)
        saved_model.write_assets(exported, options.output_dir)
        logging.info("wrote %s: %s, %s", path, options.dtype, size(files.size(path)))
        return path
    model_directory.check_length(options.max_seq_length, exported.files)
    with_text = wants_text(options, exported)
    path = saved_model.write_saved_model(
        exported, options.output_dir, with_text, options.max_seq_length
    )
    name = options.model_name or os.path.basename(os.path.abspath(options.output_dir))
    config = saved_model.write_serving_config(options.output_dir, name)
    kind = "token ids and texts" if with_text else "token ids"
    logging.info("wrote %s: a SavedModel of %s; %s is for TensorFlow Serving", path, kind, config)
    return path


def find(options: Options) -> Any:
    """Returns what to export: what the directory was fine-tuned for, else an encoder."""
    from bert_toolkit.checkpoints import model_directory
    from bert_toolkit.export import saved_model
    from bert_toolkit.features import vectors
    from bert_toolkit.inference import text_classifier, token_classifier, trained

    def config_of(files_of_model: Any) -> Any:
        config = files_of_model.config
        return saved_model.for_tflite(config) if options.format == TFLITE else config

    found = trained.find(options, list(problems.COMMANDS))
    if found is not None:
        config, problem = config_of(found.files), found.problem
        if problem.kind == problems.ANSWERING:
            answers = saved_model.answerer(config)
        elif problem.kind == problems.TAGGING:
            answers = saved_model.tagger(config, token_classifier.model_of(found))
        else:
            calibrated = text_classifier.calibration_of(options.bert_dir or "")
            answers = saved_model.classifier(config, problem, calibrated)
        takes_text = problem.kind != problems.TAGGING
        return saved_model.Exported(
            found.files, found.checkpoint, answers, problem.labels, takes_text
        )
    model = model_directory.find(options)
    assert model.init_checkpoint
    layers = parse_layers(options.layers, model.config.num_hidden_layers)
    made_of = vectors.Vectors(options.combine, options.pooling, options.normalize)
    answers = saved_model.encoder(config_of(model), layers, made_of)
    return saved_model.Exported(model, model.init_checkpoint, answers)


def wants_text(options: Options, exported: Any) -> bool:
    """Whether the SavedModel is to take texts."""
    from bert_toolkit.text import in_graph

    if not exported.takes_text:
        if options.with_text:
            raise UserError("--with_text: a tagger's answers are of token ids; leave the flag out")
        return False
    if options.with_text is not None:
        if options.with_text and not exported.files.vocab_file:
            raise UserError("--with_text needs the vocabulary; pass --vocab_file")
        return options.with_text
    try:
        in_graph.import_tensorflow_text()
    except UserError:
        logging.info("tensorflow-text is not installed: the SavedModel takes token ids only")
        return False
    return bool(exported.files.vocab_file)


def entry() -> None:
    """The console command."""
    cli.run(run, Options, __doc__)


if __name__ == "__main__":
    entry()
