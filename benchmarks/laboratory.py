"""Preference models on the miniature, in one process: its world's pairs, its judge's labels, and the truth about them.

Models, constitution and training settings are the quickstart's, but the feedback model has no planted slot bias. The
world itself writes the pairs: two answers of different classes, drawn as for the judge's own training, so that every
pair has a true preference.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from rlaif.algorithms.preference_model import pair_report
from rlaif.config.files import load_config
from rlaif.config.schema import Optimization
from rlaif.constitution.principles import load_constitution
from rlaif.evaluation.labels import judge_labels
from rlaif.in_process import InProcessPools
from rlaif.jobs import PreferenceJob, Rank
from rlaif.miniature.corpus import JUDGED_MIX, draw, turns
from rlaif.miniature.lexicon import load_lexicon
from rlaif.miniature.make import make
from rlaif.miniature.world import World
from rlaif.prompting.dialogues import dialogue
from rlaif.prompting.tokenization import encode, load_tokenizer, prompt_ids
from rlaif.records import Axis, Comparison, Preference, Status
from rlaif.seeds import seed_from
from rlaif.tasks.labelling import Label
from rlaif.training.batches import TrainingRow, local_batches
from rlaif.training.training_rows import LeftOut, PairBuilder
from rlaif.training.training_sets import PAIR_SCHEMA, write_pair_table

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
SETTINGS = ("miniature.slot_bias=0", "labeller.engine=hf", "labeller.threads=1", "preference_trainer.threads=1")

AXES: Mapping[Axis, str] = {"red_team": "harmless", "helpful": "helpful"}  #: their names in preference-model rows


class Laboratory:
    def __init__(self) -> None:
        self.config = load_config(QUICKSTART, SETTINGS)
        self.constitution = load_constitution(self.config.constitution)
        self.paths = make(self.config.miniature, self.constitution, print)
        self.lexicon = load_lexicon(self.config.miniature.lexicon)
        self.world = World(self.lexicon, self.config.miniature.seed)

    # ------------------------------------------------------------------------------------------------ pairs
    def comparisons(self, name: str, axis: Axis, num: int, *, heldout: bool = False) -> list[Comparison]:
        """``num`` pairs, always the same for a name. ``heldout``: about requests that no model was trained on."""
        rng = Random(seed_from("laboratory", name, axis))
        return [self._comparison(rng, f"{name}:{axis}:{i}", axis, heldout) for i in range(num)]

    def _comparison(self, rng: Random, id: str, axis: Axis, heldout: bool) -> Comparison:
        request = self.world.request(rng, axis, heldout=heldout)
        first = second = draw(rng, JUDGED_MIX[axis])
        while second == first:
            second = draw(rng, JUDGED_MIX[axis])
        texts = [self.world.answer(rng, request, kind).text for kind in (first, second)]
        form = dialogue(self.config.dialogue_format, self.tokenizer)
        ids = [(*encode(self.tokenizer, form.answer_prefix + t), self.tokenizer.eos_token_id) for t in texts]
        return Comparison(
            id=id,
            source_file=id,
            source_row=0,
            status=Status.OK,
            error=None,
            seconds=0.0,
            seed=0,
            model_version="world",
            axis=axis,
            prompt=turns(request),
            prompt_ids=tuple(prompt_ids(self.tokenizer, form.prompt(turns(request)))),
            answer_1=texts[0],
            answer_2=texts[1],
            token_ids_1=ids[0],
            token_ids_2=ids[1],
            policy_version=0,
            truncated=False,
        )

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.paths.path("base"))

    # ----------------------------------------------------------------------------------------------- labels
    def labels(self, pairs: Sequence[Comparison]) -> list[Preference]:
        """The judge's labels, in the order of the pairs, as ``rlaif label`` makes them."""
        return asyncio.run(self._labels(pairs))

    async def _labels(self, pairs: Sequence[Comparison]) -> list[Preference]:
        task = Label(
            seed=self.config.seed,
            constitution=self.constitution,
            settings=self.config.labelling,
            dialogue_format=self.config.dialogue_format,
        )
        pool = await InProcessPools(self.config).open("labeller", str(self.paths.path("feedback")))
        results = [result async for back in pool.run(task, pairs) for result in back]
        await pool.close()
        labels = {result.row.id: result.record for result in results if result.record is not None}
        return [labels[pair.id] for pair in pairs]

    def truth(self, labels: Sequence[Preference]) -> dict[str, float]:
        """Label id -> 1 where answer_1 is truly better, else 0."""
        return {judged.id: float(judged.truly_better == 1) for judged in judge_labels(labels, self.lexicon)}

    # ---------------------------------------------------------------------------------------------- fitting
    @property
    def builder(self) -> PairBuilder:
        return PairBuilder(
            tokenizer=self.tokenizer,
            dialogue_format=self.config.dialogue_format,
            settings=self.config.preference_model,
        )

    def rows(self, labels: Sequence[Preference], probs: Mapping[str, float]) -> list[TrainingRow]:
        axes = {label.id: AXES[label.axis] for label in labels}
        made = self.builder.from_labels(labels, probs)
        return [{**row, "axis": axes[row["id"]]} for row in made if not isinstance(row, LeftOut)]

    def fit(self, rows: Sequence[TrainingRow], heldout: Sequence[TrainingRow], seed: int) -> dict[str, float]:
        """Fit a preference model with the quickstart's settings; returns the report of ``passes`` on ``heldout``."""
        return self.passes(rows, {"heldout": heldout}, self.config.preference_model.fit, seed)["heldout"]

    def passes(
        self,
        rows: Sequence[TrainingRow],
        reported: Mapping[str, Sequence[TrainingRow]],
        passes: Optimization,
        seed: int,
        *,
        start: Path | None = None,
        save: Path | None = None,
    ) -> dict[str, dict[str, float]]:
        """Run one phase of preference training as a run does, but in this process, starting from the base model or from
        the model saved by an earlier phase. Returns a run's own figures for each set of ``reported`` rows.

        To measure a model against the truth, give the reported rows the truth as their probabilities.
        """
        import torch

        from rlaif.training.deepspeed import DeepSpeedModel, start_rank
        from rlaif.training.models import load_scorer, new_scorer
        from rlaif.training.preference import PairFit
        from rlaif.training.saving import save_model

        base, dtype, rank = str(self.paths.path("base")), self.config.preference_trainer.dtype, Rank()
        start_rank(rank, self.config.preference_trainer)
        torch.manual_seed(seed)
        tokenizer = load_tokenizer(base)
        model = load_scorer(str(start), dtype) if start else new_scorer(base, dtype, tokenizer, seed)
        job = self._job(seed)
        phase = PairFit("fit", job, rank, DeepSpeedModel.supervised(model, job.trainer, rank, passes))
        with tempfile.TemporaryDirectory() as directory:
            phase.run(_batches(directory, rows, passes, seed), lambda metrics: None)
        if save:
            save_model(model.classifier, tokenizer, str(save), rank)
        return {name: pair_report(phase.score(pairs)) for name, pairs in reported.items()}

    def _job(self, seed: int) -> PreferenceJob:
        return PreferenceJob(
            base_model=str(self.paths.path("base")),
            pretraining=None,
            fit="",
            heldout=None,
            output="",
            unfitted="",
            settings=self.config.preference_model,
            trainer=self.config.preference_trainer,
            seed=seed,
        )


def _batches(directory: str, rows: Sequence[TrainingRow], settings: Optimization, seed: int) -> Any:
    path = Path(directory) / "rows.parquet"
    write_pair_table(path, pa.Table.from_pylist(list(rows), PAIR_SCHEMA))
    return local_batches(str(path), settings.batch_size, settings.epochs, seed)
