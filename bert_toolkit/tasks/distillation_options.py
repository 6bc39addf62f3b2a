"""Options of the commands that distill a model, whatever it predicts."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, ClassVar, Optional

from bert_toolkit.io import files
from bert_toolkit.options import option

# The distances to a teacher's logits; classification/distillation.py has them.
MSE, CROSS_ENTROPY = "mse", "cross_entropy"
# The networks of a student.
BERT, BILSTM = "bert", "bilstm"
# The options by which a student learns more than answers.
LAYER_WEIGHTS = ("hidden_state_weight", "attention_weight")
# Those of the loss, as help lists them.
LOSS_OPTIONS = ("distillation_loss", "temperature", "hard_label_weight", *LAYER_WEIGHTS)


def _is_same(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


@dataclasses.dataclass(frozen=True)
class DistillationOptions:
    """From whom a student learns, and what; those of a model stand beside them."""

    teacher_dir: Optional[str] = option(
        None,
        "The trained model to learn from: an output directory of bert classify, or of bert tag for"
        " a tagger, or a model in Hugging Face's layout.",
    )
    unlabeled_file: Optional[str] = option(
        None,
        "More texts to learn from, without labels: .txt with a text a line, whatever is in it, or"
        " what else --predict_file takes.",
    )
    teacher_layers: Optional[Sequence[str]] = option(
        None,
        "Make the student of these layers of the teacher, counted from 0 (0,2,5), with its"
        " embeddings, pooler and output.",
    )
    distillation_loss: str = option(
        MSE,
        "The distance to the teacher: the mean square of differences of logits, or the"
        " cross-entropy of probabilities at --temperature, times its square.",
        choices=[MSE, CROSS_ENTROPY],
    )
    temperature: float = option(
        1.0,
        "What logits are divided by in the cross-entropy, 1 to 10 say: how much the teacher's"
        " smaller probabilities count.",
        lower=0.1,
    )
    hard_label_weight: float = option(
        0.0,
        "Share of the loss on the label of an example that has one; the rest is the distance to"
        " the teacher. With 1, the teacher counts only where there is no label.",
        lower=0.0,
        upper=1.0,
    )
    hidden_state_weight: float = option(
        0.0,
        "Learn the teacher's embeddings and hidden states, too: what their distances count in the"
        " loss, 1 say; 0 for not at all.",
        lower=0.0,
    )
    attention_weight: float = option(
        0.0,
        "Learn the teacher's attention, too: what the distances of attention scores count in the"
        " loss, 0.1 say; 0 for not at all.",
        lower=0.0,
    )
    # The network of the student, an option of commands that have several NETWORKS.
    student: str = BERT
    # Where the teacher's answers are kept, which runs of several seeds share; set with the files
    # of the student: by then the student is fixed.
    logits_dir: str = ""

    NETWORKS: ClassVar[tuple[str, ...]] = (BERT,)

    def without_labels_conflicts(self, *divisions: str) -> list[str]:
        """Returns a sentence for every option that needs labels, for data that has none.

        Args:
          *divisions: names of the options that divide --train_file.
        """
        found = []
        if self.hard_label_weight:
            found.append("--hard_label_weight is for labels; expected a --train_file with them")
        for name in divisions:
            if getattr(self, name):
                found.append(f"--{name} divides --train_file; pass one, or --eval_file")
        return found

    def learns_layers(self) -> bool:
        """Returns whether the student learns from the teacher's layers, not only its answers."""
        return any(getattr(self, name) for name in LAYER_WEIGHTS)

    def _is_made_of_the_teacher(self) -> bool:
        return bool(self.teacher_layers) or self.student == BILSTM

    def distillation_conflicts(self, options: Any) -> list[str]:
        """Returns a sentence for everything that does not go together.

        Args:
          options: these, with those of ModelOptions and DeviceOptions.
        """
        found = [] if self.teacher_dir else ["--teacher_dir is required"]
        ways = {"--student=bilstm": self.student == BILSTM} if BILSTM in self.NETWORKS else {}
        ways |= {
            "--teacher_layers": bool(self.teacher_layers),
            "--bert_dir": bool(options.bert_dir),
            "--bert_config_file": bool(options.bert_config_file and not options.bert_dir),
        }
        chosen = [name for name, is_chosen in ways.items() if is_chosen]
        if not chosen:
            *names, last = ways
            found.append(f"no student; pass {', '.join(names)} or {last}")
        if len(chosen) > 1:
            found.append(f"{' and '.join(chosen)}: each is a student; pass one of them")
        if self._is_made_of_the_teacher():
            found += [
                f"--{name}: the student is made of the teacher ({chosen[0]}); leave one of them out"
                for name in ("init_checkpoint", "vocab_file")
                if getattr(options, name)
            ]
        if self.teacher_dir and _is_same(self.teacher_dir, options.output_dir):
            found.append(
                f"--output_dir={options.output_dir}: the directory of the teacher, which would be"
                " written over; expected another one"
            )
        for layer in self.teacher_layers or ():
            if not layer.isdecimal():
                found.append(
                    f"--teacher_layers={','.join(self.teacher_layers or ())}: {layer!r}; expected"
                    " numbers of layers, counted from 0: 0,2,5"
                )
        if self.temperature != 1.0 and self.distillation_loss == MSE:
            found.append("--temperature goes with --distillation_loss=cross_entropy")
        if self.unlabeled_file == files.STREAM:
            found.append(
                "--unlabeled_file=-: only --predict_file reads standard input; expected a file"
            )
        if self.student == BILSTM and options.use_tpu:
            found.append("--student=bilstm: not on a TPU; leave --use_tpu out")
        for name in LAYER_WEIGHTS:
            if getattr(self, name) and self.student == BILSTM:
                found.append(f"--{name}: a BiLSTM has no such layers; expected another student")
            if getattr(self, name) and options.use_tpu:
                found.append(f"--{name}: not on a TPU; leave it out, or --use_tpu")
        return found
