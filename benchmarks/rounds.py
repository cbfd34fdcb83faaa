"""What the default recipe gives, and what it never takes, on real features.

    python -m benchmarks.rounds gains    [--dev] [--only NAME ...]     each part of the recipe taken away, then each policy
    python -m benchmarks.rounds hostile  [--dev] [--draws 1]           60 scenarios a draw
    python -m benchmarks.rounds trimodal [--splits 6]                  the split given, then other speakers

What runs are the objects of configs/, as `jobs.self_train` composes and walks them (`cluster.steps`, fits in this process);
`--set fusion.seeds=1 selection=crest` changes the recipe. Round 0 is the supervised model, `last` the last
student, `final` the model that is handed out. `scenarios` says what is drawn.

trimodal's features are extracted by `--experiment` on first use and kept in `--features`.

`--dev` never touches a fold's test speakers: it trains on 6 of the other 9 and tests on 3. The recipe was chosen so.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.scenarios import KINDS, Scenario, draw, ravdess, speaker_folds, trimodal, trimodal_split
from orchestrator.cluster.corpus import gather
from orchestrator.cluster.run import load_student
from orchestrator.cluster.session import session
from orchestrator.cluster.steps import FusionSteps, StepsRecipe, subset_labels
from orchestrator.metrics import waf
from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.folds import freeze_folds
from orchestrator.rounds.self_training import best_of, run_rounds
from orchestrator.rounds.speakers import within_speakers
from orchestrator.settings import Experiment
from orchestrator.vocabulary import PseudoLabels, RoundRecord, Verdict
from orchestrator.wiring import build, compose_config

RAVDESS = Path("../shared/data/ravdess_av/features.npz")
TRIMODAL = Path("../shared/data/trimodal")
SHARES = (4, 10, 25)  # human labels a class
PARTS: dict[str, list[str]] = {
    "default": [],
    "no speakers": ["data.within_speakers=false"],
    "all streams alike": ["fusion.relevance=false"],
    "linear head": ["fusion.head={_target_: orchestrator.models.fusion.Linear}"],
    "no modality dropout": ["fusion.modality_dropout.rate=0.0"],
    "crest": ["selection=crest"],
    "fixed": ["selection=fixed"],
    "precision": ["selection=precision"],
    "agreement": ["selection=agreement"],
    "ups": ["selection=ups"],
    "flexmatch": ["selection=flexmatch"],
    "freematch": ["selection=freematch"],
    "softmatch": ["selection=softmatch"],
}


@dataclass
class Memory:
    """`Ledger` in memory."""

    kept: list[tuple[RoundRecord, Scored]] = field(default_factory=list)

    def find(self, index: int) -> RoundRecord | None:
        return self.kept[index][0] if index < len(self.kept) else None

    def write(self, record: RoundRecord, scored: Scored, labels: PseudoLabels | None) -> RoundRecord:
        self.kept.append((record, scored))
        return record

    def scored(self, index: int) -> Scored:
        return self.kept[index][1]


@dataclass(frozen=True, slots=True)
class Walked:
    """One run of all rounds; test WAF by modality subset of round 0, of the last student and of the model handed out."""

    records: list[RoundRecord]
    first: Mapping[str, float]
    last: Mapping[str, float]
    final: Mapping[str, float]

    @property
    def ends(self) -> list[float]:
        """Test WAF with all modalities."""
        return [list(scores.values())[-1] for scores in (self.first, self.last, self.final)]


def walk(scenario: Scenario, experiment: Experiment) -> Walked:
    """All rounds of the recipe on a scenario."""
    corpus = scenario.corpus
    rows = np.concatenate([scenario.labelled, scenario.pool, scenario.test])
    features, groups = corpus.features.rows(rows), corpus.groups[rows]
    if experiment.data.within_speakers:
        features = within_speakers(features, groups)
    labelled, pool, test = np.split(np.arange(len(rows)), np.cumsum([len(scenario.labelled), len(scenario.pool)]))
    with warnings.catch_warnings(), TemporaryDirectory() as store:
        warnings.simplefilter("ignore")  # fewer speakers than folds
        recipe = StepsRecipe(
            labelled=features.rows(labelled),
            pool=features.rows(pool),
            truth=scenario.given,
            folds=freeze_folds(scenario.given, groups[labelled], experiment.data.folds, experiment.seed),
            classes=corpus.classes,
            fusion=experiment.fusion,
            mixing=experiment.mixing,
            seed=experiment.seed,
            upstream=scenario.name,
            store=Path(store),
            cluster=experiment.cluster,
        )
        truth = corpus.labels[scenario.pool]
        plan, policy = experiment.rounds, experiment.selection
        records = list(run_rounds(FusionSteps(recipe), plan, policy, Memory(), truth=scenario.given, pool_truth=truth))
        answers = {
            record.student: subset_labels(load_student(Path(store), record.student), features.rows(test), np.full(len(test), -1))
            for record in records
        }
    right = corpus.labels[scenario.test]
    scores = {student: {name: waf(right, said) for name, said in by.items()} for student, by in answers.items()}
    return Walked(records, *(scores[record.student] for record in (records[0], records[-1], best_of(records))))


def experiment_of(overrides: Sequence[str]) -> Experiment:
    """The composed config of a command line."""
    return build(compose_config(["data.manifest=none", *overrides]))[0]


def gains(options: argparse.Namespace) -> None:
    """Test WAF of round 0, of the last student and of the model handed out, per variant and number of labels."""
    corpus = ravdess(options.features or RAVDESS)
    print(f"{'dev' if options.dev else 'test'} actors, {options.draws} draws; WAF, gain of the final model in points")
    head = f"{'recipe':22}{'labels':>7}{'round 0':>9}{'last':>8}{'final':>8}{'gain':>7}{'spread':>8}{'worst':>7}"
    print(f"{head}{'OOF':>7}{'end':>7}{'precision':>11}{'CPU s':>7}")
    for name in options.only or PARTS:
        experiment = experiment_of([*PARTS[name], *options.overrides])
        for each in options.labels:
            started, rows = time.process_time(), []
            for fold, trained, tested in speaker_folds(corpus, options.dev):
                for number in range(options.draws):
                    walked = walk(draw("friendly", corpus, trained, tested, each, 100 * number + fold), experiment)
                    first, last = walked.records[0], walked.records[-1]
                    rows.append([*walked.ends, first.val_f1, last.val_f1, last.pool_precision or np.nan])
            _show_gains(name, each, np.array(rows), time.process_time() - started)


def _show_gains(name: str, each: int, table: NDArray[np.float64], seconds: float) -> None:
    mean, gain = table.mean(axis=0), 100 * (table[:, 2] - table[:, 0])
    scores = f"{mean[0]:9.3f}{mean[1]:8.3f}{mean[2]:8.3f}{gain.mean():+7.1f}{gain.std():8.1f}{gain.min():+7.1f}"
    print(f"{name:22}{each:7}{scores}{mean[3]:7.3f}{mean[4]:7.3f}{mean[5]:11.2f}{seconds / len(table):7.1f}", flush=True)


def hostile(options: argparse.Namespace) -> None:
    """Final minus supervised test WAF over friendly and hostile scenarios."""
    corpus, experiment = ravdess(options.features or RAVDESS), experiment_of(options.overrides)
    lost: list[float] = []
    print(f"{'dev' if options.dev else 'test'} actors; points of test WAF, final minus supervised")
    print(f"{'scenario':15}{'labels':>7}{'round 0':>9}{'last':>8}{'final':>8}{'gain':>7}{'worst':>7}{'harmed':>8}{'handed':>9}")
    for kind in options.kinds:
        for each in options.labels:
            rows = []
            for fold, trained, tested in speaker_folds(corpus, options.dev):
                for number in range(options.draws):
                    walked = walk(draw(kind, corpus, trained, tested, each, 1000 + 100 * number + fold), experiment)
                    rows.append([*walked.ends, float(best_of(walked.records).index > 0)])
            table = np.array(rows)
            gain = 100 * (table[:, 2] - table[:, 0])
            lost += gain.tolist()
            mean = table.mean(axis=0)
            ends = f"{mean[0]:9.3f}{mean[1]:8.3f}{mean[2]:8.3f}{gain.mean():+7.1f}{gain.min():+7.1f}"
            print(f"{kind:15}{each:7}{ends}{(gain < -0.5).sum():5}/{len(gain):2}{mean[3]:9.0%}", flush=True)
    safe = float((np.array(lost) >= -0.5).mean())
    print(f"{len(lost)} scenarios: final WAF at least supervised - 0.5 points in {safe:.1%}; mean gain {np.mean(lost):+.2f}")


def on_trimodal(options: argparse.Namespace) -> None:
    """Test WAF per split; then what each modality subset reaches and what losing one costs, with and without modality dropout."""
    stored = options.features or Path("outputs/trimodal_real.npz")
    if not stored.exists():
        _extract([f"experiment={options.experiment}", *options.overrides], stored)
    corpus, given = trimodal(stored, TRIMODAL)
    for name in options.only or ("default", "no modality dropout"):
        experiment = experiment_of([*PARTS[name], *options.overrides])
        print(f"{name}\n{'split':12}{'round 0':>9}{'last':>8}{'final':>8}   subsets of the final model; verdicts")
        walks = []
        for number in range(options.splits + 1):
            scenario = trimodal_split(corpus, given, number)
            walks.append(walked := walk(scenario, experiment))
            _show_split(scenario.name, walked.ends, walked.final, [record.verdict for record in walked.records])
        mean = {subset: float(np.mean([walked.final[subset] for walked in walks])) for subset in walks[0].final}
        _show_split("mean", np.mean([walked.ends for walked in walks], axis=0).tolist(), mean, ())
        lost = {letter: mean["AVT"] - mean["AVT".replace(letter, "")] for letter in "AVT"}
        print("losing one costs, points: " + "  ".join(f"{name} {100 * cost:.1f}" for name, cost in lost.items()))


def _extract(overrides: Sequence[str], path: Path) -> None:
    """Features of all clips as encoded, through the product's own extraction."""
    experiment = build(compose_config([*overrides, "data.within_speakers=false"]))[0]
    with session(experiment.cluster):
        features = gather(experiment).features
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, clip_id=features.clip_ids, **features.values)


def _show_split(name: str, ends: Sequence[float], subsets: Mapping[str, float], verdicts: Sequence[Verdict]) -> None:
    told = " ".join(f"{subset} {score:.3f}" for subset, score in subsets.items())
    print(f"{name:12}{ends[0]:9.3f}{ends[1]:8.3f}{ends[2]:8.3f}   {told}   {' '.join(verdicts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gains", "hostile", "trimodal"))
    parser.add_argument("--set", nargs="*", default=(), dest="overrides", help="of the config: fusion.seeds=1 selection=crest")
    parser.add_argument("--features", type=Path, help="an npz of the form `scenarios` names")
    parser.add_argument("--dev", action="store_true", help="never touch the test actors")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--labels", type=int, nargs="+", default=SHARES)
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--experiment", default="trimodal_real", help="whose encoders make trimodal's features")
    parser.add_argument("--splits", type=int, default=6)
    options = parser.parse_args()
    {"gains": gains, "hostile": hostile, "trimodal": on_trimodal}[options.what](options)


if __name__ == "__main__":
    main()
