"""What to try next: every point of a grid, or what Optuna draws from the trials before."""

import math
import os
from collections.abc import Sequence
from typing import Any, Optional, Protocol

from bert_toolkit.errors import UserError
from bert_toolkit.io import files
from bert_toolkit.tasks.search.record import COMPLETE, RUNNING, Record, Trial
from bert_toolkit.tasks.search.space import Dimension, Range, Values, grid

JOURNAL = "optuna.journal"
# Drawings of settings that were tried before, after which the space counts as used up.
MOST_REPETITIONS = 100
# Digits of a number that is drawn from a range: more make no difference, and a long command line.
DIGITS = 3
# Optuna's attribute of a trial with its number in the record.
NUMBER = "number"


class Proposals(Protocol):
    """Where settings come from."""

    def propose(self) -> Optional[Values]:
        """Returns a setting that was not tried before; None if there is none."""

    def begin(self, trial: Trial) -> None:
        """Takes note that a trial begins, or goes on."""

    def is_hopeless(self, trial: Trial) -> bool:
        """Whether to stop a trial, after its last evaluation."""

    def finish(self, trial: Trial) -> None:
        """Takes note of the end of a trial."""


class Grid:
    """Every combination of the values, in order; each trial runs to its end."""

    def __init__(self, dimensions: Sequence[Dimension], record: Record):
        """Takes the dimensions, all with listed values, and the trials before."""
        self._dimensions, self._record = dimensions, record

    def propose(self) -> Optional[Values]:
        there = grid(self._dimensions)
        return next((values for values in there if self._record.same(values) is None), None)

    def begin(self, trial: Trial) -> None:
        pass

    def is_hopeless(self, trial: Trial) -> bool:
        return False

    def finish(self, trial: Trial) -> None:
        pass


class Optuna:
    """Optuna's tree-structured Parzen estimator, with median pruning.

    Bergstra et al., 2011, https://papers.nips.cc/paper/4443; Akiba et al., 2019,
    https://arxiv.org/abs/1907.10902. Its storage is a journal in the output directory. What is in
    the record and not in the journal, trials of a grid for instance, is told to it at the start.
    """

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        record: Record,
        seed: int,
        lower_is_better: bool,
        prunes: bool,
    ):
        """Opens the study of this space in the journal, or begins it.

        Args:
          dimensions: of the space.
          record: the trials before.
          seed: with the number of a trial it decides what is drawn for it, also in a search that
            was interrupted.
          lower_is_better: whether a smaller score is the better one.
          prunes: whether to stop hopeless trials.

        Raises:
          UserError: Optuna is not installed.
        """
        self._optuna = optuna = _import()
        self._record, self._seed = record, seed
        self._distributions = {one.name: self._distribution(one) for one in dimensions}
        self._ranges = {one.name: one.range for one in dimensions if one.range}
        pruner = optuna.pruners.MedianPruner() if prunes else optuna.pruners.NopPruner()
        self._study = optuna.create_study(
            storage=self._storage(record.directory),
            study_name=repr(dimensions),
            load_if_exists=True,
            direction="minimize" if lower_is_better else "maximize",
            pruner=pruner,
        )
        self._asked: Any = None
        self._catch_up()

    def _storage(self, directory: str) -> Any:
        if "://" in directory:
            return None  # in memory: a journal needs locks; the record has all trials
        storages = self._optuna.storages
        path = os.path.join(directory, JOURNAL)
        files.make_directory(directory, "output_dir")
        return storages.JournalStorage(storages.journal.JournalFileBackend(path))

    def _distribution(self, dimension: Dimension) -> Any:
        distributions, wanted = self._optuna.distributions, dimension.range
        if wanted is None:
            return distributions.CategoricalDistribution(dimension.values)
        kind = distributions.FloatDistribution
        if isinstance(wanted.low, int):
            kind = distributions.IntDistribution
        return kind(wanted.low, wanted.high, log=wanted.is_log)

    def _catch_up(self) -> None:
        """Gives the study the finished trials that it lacks, and ends those that were cut off."""
        states = self._optuna.trial.TrialState
        known = set()
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == states.RUNNING:  # it begins there once more, see `begin`
                self._study.tell(trial.number, state=states.FAIL)
            elif trial.state.is_finished() and trial.state != states.FAIL:
                known.add(trial.user_attrs.get(NUMBER))
        for trial in self._record.trials:
            if trial.state != RUNNING and trial.number not in known:
                self._add(trial)

    def _add(self, trial: Trial) -> None:
        try:
            added = self._optuna.trial.create_trial(
                state=self._state(trial),
                value=trial.score if trial.state == COMPLETE else None,
                params=trial.values,
                distributions=self._distributions,
                user_attrs={NUMBER: trial.number},
                intermediate_values=dict(_numbered(trial)),
            )
        except ValueError:
            return  # of another space
        self._study.add_trial(added)

    def _state(self, trial: Trial) -> Any:
        """A setting that cannot be trained counts as a bad one."""
        states = self._optuna.trial.TrialState
        return states.COMPLETE if trial.state == COMPLETE else states.PRUNED

    def propose(self) -> Optional[Values]:
        for repetition in range(MOST_REPETITIONS):
            seed = self._seed + len(self._record.trials) + repetition * 1_000_003
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed)
            asked = self._study.ask(self._distributions)
            values = {name: self._rounded(name, value) for name, value in asked.params.items()}
            before = self._record.same(values)
            if before is None:
                self._asked = asked
                return values
            asked.set_user_attr(NUMBER, before.number)
            self._tell(asked, before)
        return None

    def _rounded(self, name: str, value: Any) -> Any:
        wanted: Optional[Range] = self._ranges.get(name)
        if wanted is None or not isinstance(value, float) or not value:
            return value
        digits = DIGITS - 1 - math.floor(math.log10(abs(value)))
        return min(max(round(value, digits), wanted.low), wanted.high)

    def begin(self, trial: Trial) -> None:
        if self._asked is None:  # it was cut off
            self._study.enqueue_trial(trial.values)
            self._asked = self._study.ask(self._distributions)
            for step, score in _numbered(trial):
                self._asked.report(score, step)
        self._asked.set_user_attr(NUMBER, trial.number)

    def is_hopeless(self, trial: Trial) -> bool:
        # Batches differ in size, so that evaluations rather than steps are counted.
        self._asked.report(trial.evaluations[-1][1], len(trial.evaluations))
        return bool(self._asked.should_prune())

    def finish(self, trial: Trial) -> None:
        self._tell(self._asked, trial)
        self._asked = None

    def _tell(self, asked: Any, trial: Trial) -> None:
        score = trial.score if trial.state == COMPLETE else None
        self._study.tell(asked, score, state=self._state(trial))


def _numbered(trial: Trial) -> list[tuple[int, float]]:
    """Returns the evaluations of a trial, counted from 1."""
    return [(number, score) for number, (_, score) in enumerate(trial.evaluations, 1)]


def _import() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            f"--method=optuna needs Optuna ({error}); pip install 'bert-toolkit[search]', or leave"
            " it out for a grid"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
