"""What self-training gives, and what it never takes, on real features.

    python -m benchmarks.rounds gains   [--policy default ...] [--student experts|fusion] [--speakers on|off]
    python -m benchmarks.rounds hostile [--seeds 1] [--speakers both]                    60 scenarios a seed
    python -m benchmarks.rounds trimodal --features FILE [--splits 3]                    other speakers, too

RAVDESS: actors 1-12 of `../shared/data/ravdess_av`, 8 classes, action units and Whisper layer 3; 4 folds of 3 unseen test actors,
labels drawn evenly (4, 10, 25 a class) from the other 9, the rest of their clips is the pool. `--dev` never touches a fold's test
actors: it trains on 6 of the other 9 and tests on 3, the way the default recipe was chosen. With `--speakers on` features are
standardised within each speaker, test speakers too (their clips, not their labels); `off` is for corpora without speakers.

The student `experts` is one logistic regression a stream, their evidence weighed out of fold (`--evidence off`: summed): seconds
for a table. `fusion` is the trainer of the project with `GatedExperts`, its voices the single modalities and all together.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from orchestrator.metrics import waf
from orchestrator.rounds.adaptive import FlexMatch, FreeMatch, SoftMatch
from orchestrator.rounds.alignment import Aligned, Soft
from orchestrator.rounds.consensus import Agreement
from orchestrator.rounds.crossfit import Scored
from orchestrator.rounds.evidence import evidence_weights, weighed
from orchestrator.rounds.folds import freeze_folds
from orchestrator.rounds.guard import Guard
from orchestrator.rounds.mixing import Mixing
from orchestrator.rounds.selection import Cbst, ClassQuantile, Crest, FixedThreshold, Growing, PrecisionTargeted, QuotaShare
from orchestrator.rounds.self_training import RoundPlan, best_of, run_rounds
from orchestrator.rounds.speakers import within_speakers
from orchestrator.seams import SelectionPolicy
from orchestrator.vocabulary import Features, Names, Predictions, PseudoLabels, RoundRecord, softmax

RAVDESS = Path("../shared/data/ravdess_av/features.npz")
TRIMODAL = Path("../shared/data/trimodal")
GROWING = Growing(0.4, 0.15, 0.7)
POLICIES: dict[str, SelectionPolicy] = {
    "default": Aligned(Cbst(GROWING), to="labelled"),
    "cbst, not aligned": Cbst(GROWING),
    "quota": Aligned(QuotaShare(GROWING), to="labelled"),
    "soft targets": Soft(Aligned(Cbst(GROWING), to="labelled")),
    "experts agree": Agreement(Aligned(Cbst(GROWING), to="labelled"), least=2),
    "crest": Crest(),
    "fixed .8": FixedThreshold(0.8),
    "quantile": ClassQuantile(0.5),
    "precision": PrecisionTargeted(),
    "flexmatch": FlexMatch(0.8),
    "freematch": FreeMatch(),
    "softmatch": SoftMatch(),
    "prior by EM": Aligned(Cbst(GROWING), to="pool"),
}
KINDS = ("friendly", "flipped skew", "unknown class", "wrong labels", "half blind")
SHARES = (4, 10, 25)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Features of N clips with every label known; -1 is a class outside the label set."""

    features: Features
    labels: NDArray[np.int64]
    groups: Names
    classes: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """Rows of the human-labelled, unlabelled and test clips of a corpus, and the labels the humans gave."""

    name: str
    corpus: Corpus
    labelled: NDArray[np.int64]
    pool: NDArray[np.int64]
    test: NDArray[np.int64]
    given: NDArray[np.int64]


def ravdess(speakers: bool) -> Corpus:
    """720 clips of 12 actors, 8 classes."""
    stored = np.load(RAVDESS, allow_pickle=False)
    values = {"video": stored["au"].astype(np.float32), "audio": stored["whisper_tiny_en"][:, 3].astype(np.float32)}
    order = np.argsort(stored["id"], kind="stable")
    features = Features(stored["id"], values, np.ones((len(order), 2), dtype=bool)).rows(order)
    groups = np.array([f"actor{actor:02d}" for actor in stored["actor"]])[order]
    return Corpus(within_speakers(features, groups) if speakers else features, stored["emotion"][order], groups, 8)


def splits(corpus: Corpus, dev: bool) -> Iterator[tuple[int, Names, Names]]:
    """Fold number, training speakers and test speakers: 4 folds of 3; `dev` tests on 3 of the training speakers."""
    speakers = np.unique(corpus.groups)
    for fold in range(4):
        tested = speakers[3 * fold : 3 * fold + 3]
        trained = np.setdiff1d(speakers, tested)
        if dev:
            trained = np.random.default_rng(77 + fold).permutation(trained)
            trained, tested = trained[3:], trained[:3]
        yield fold, trained, tested


def draw(kind: str, corpus: Corpus, trained: Names, tested: Names, each: int, seed: int) -> Scenario:
    """Labels of `each` clips a class, a pool and a test set; what `kind` says goes wrong with the first two."""
    rng = np.random.default_rng([seed, each, KINDS.index(kind)])
    rows, test = np.flatnonzero(np.isin(corpus.groups, trained)), np.flatnonzero(np.isin(corpus.groups, tested))
    if kind == "unknown class":
        return _with_unknown_class(corpus, rows, test, each, rng)
    wanted, kept = np.full(corpus.classes, each), np.ones(corpus.classes)
    if kind == "flipped skew":  # the classes humans labelled most are the rarest of the pool
        order = rng.permutation(corpus.classes)
        wanted = np.maximum(2, np.round(each * np.linspace(1.6, 0.4, corpus.classes)[order])).astype(int)
        kept = np.linspace(0.1, 1.0, corpus.classes)[order]
    labelled, pool = [], []
    for label in range(corpus.classes):
        own = rng.permutation(rows[corpus.labels[rows] == label])
        taken = min(int(wanted[label]), len(own) - 2)
        labelled += own[:taken].tolist()
        pool += own[taken : taken + max(1, round(kept[label] * (len(own) - taken)))].tolist()
    given = corpus.labels[np.sort(labelled)]
    if kind == "wrong labels":
        wrong = rng.permutation(len(given))[: round(0.2 * len(given))]
        given[wrong] = (given[wrong] + rng.integers(1, corpus.classes, len(wrong))) % corpus.classes
    if kind == "half blind":  # one modality is missing in half of the pool
        present = corpus.features.present.copy()
        present[rng.permutation(pool)[: len(pool) // 2], rng.integers(present.shape[1])] = False
        corpus = replace(corpus, features=replace(corpus.features, present=present))
    return Scenario(kind, corpus, np.sort(labelled), np.sort(pool), test, given)


def _with_unknown_class(
    corpus: Corpus, rows: NDArray[np.int64], test: NDArray[np.int64], each: int, rng: np.random.Generator
) -> Scenario:
    """One class is nobody's label, and 30 % of the pool."""
    unknown = int(rng.integers(corpus.classes))
    labels = np.where(corpus.labels == unknown, -1, corpus.labels - (corpus.labels > unknown))
    labelled = np.concatenate([rng.permutation(rows[labels[rows] == label])[:each] for label in range(corpus.classes - 1)])
    strangers, known = rows[labels[rows] == -1], np.setdiff1d(rows[labels[rows] >= 0], labelled)
    pool = np.concatenate([strangers, rng.permutation(known)[: int(len(strangers) * 7 / 3)]])
    smaller = Corpus(corpus.features, labels, corpus.groups, corpus.classes - 1)
    labelled = np.sort(labelled)
    return Scenario("unknown class", smaller, labelled, np.sort(pool), test[labels[test] >= 0], labels[labelled])


@dataclass
class Students:
    """Round steps and ledger in memory; what each round says of every clip of the corpus stays in `told` `(F, N, C)`.

    `evidence`: weigh the voices out of fold instead of adding them up.
    """

    scenario: Scenario
    mixing: Mixing
    kind: str = "experts"
    evidence: bool = True
    seed: int = 0
    told: list[NDArray[np.float32]] = field(default_factory=list)
    kept: list[tuple[RoundRecord, Scored]] = field(default_factory=list)

    def __post_init__(self) -> None:
        groups = self.scenario.corpus.groups[self.scenario.labelled]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.folds = freeze_folds(self.scenario.given, groups, 4, self.seed)

    def fit(self, index: int, labels: PseudoLabels | None) -> str:
        corpus, labelled = self.scenario.corpus, self.scenario.labelled
        ids = corpus.features.clip_ids
        mixed = self.mixing.mix(ids[labelled], self.scenario.given, self.folds, corpus.classes, labels)
        rows = np.searchsorted(ids, mixed.clip_ids)
        fit = fit_fusion if self.kind == "fusion" else fit_experts
        voices = fit(corpus.features, rows, mixed.targets, mixed.weights, self.seed)  # (V, F, N, C)
        weights = np.ones(len(voices))
        if self.evidence:
            weights = evidence_weights(voices[:, self.folds, labelled], self.scenario.given)
        self.told.append(np.stack([weighed(voices[:, fold], weights) for fold in range(voices.shape[1])]))
        return str(len(self.told) - 1)

    def predict(self, student: str) -> Scored:
        told, labelled, pool = self.told[int(student)], self.scenario.labelled, self.scenario.pool
        unseen = told[self.folds, labelled]
        return Scored(self._says(labelled, unseen, student), tuple(self._says(pool, fold[pool], student) for fold in told))

    def _says(self, rows: NDArray[np.int64], logits: NDArray[np.float32], student: str) -> Predictions:
        return Predictions(self.scenario.corpus.features.clip_ids[rows], logits.astype(np.float32), student)

    def find(self, index: int) -> RoundRecord | None:
        return self.kept[index][0] if index < len(self.kept) else None

    def write(self, record: RoundRecord, scored: Scored, labels: PseudoLabels | None) -> RoundRecord:
        self.kept.append((record, scored))
        return record

    def scored(self, index: int) -> Scored:
        return self.kept[index][1]

    def test_waf(self, record: RoundRecord) -> float:
        rows = self.scenario.test
        return waf(self.scenario.corpus.labels[rows], self.told[int(record.student)].mean(axis=0)[rows].argmax(axis=1))


def fit_experts(
    features: Features, rows: NDArray[np.int64], targets: NDArray[np.float32], weights: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """One logistic regression a stream and fold on standardised features of equal total variance; logits `(V, F, N, C)`."""
    told = np.zeros((len(features.streams), len(targets), len(features), targets.shape[2]), np.float32)
    for column, stream in enumerate(features.streams):
        present = features.present[:, column]
        known = features.values[stream][present].astype(np.float64)
        deviation = known.std(axis=0)
        values = (features.values[stream] - known.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
        values = np.clip(values, -5, 5) * present[:, None] * 6 / np.sqrt(values.shape[1])
        for fold in range(len(targets)):
            learnt = (weights[fold] > 0) & present[rows]
            coefficients = regression(values[rows[learnt]], targets[fold][learnt], weights[fold][learnt])
            told[column, fold] = (values @ coefficients[:-1] + coefficients[-1]) * present[:, None]
    return told


def regression(
    values: NDArray[np.float64], targets: NDArray[np.float32], weights: NDArray[np.float32], strength: float = 0.3
) -> NDArray[np.float64]:
    """Multinomial logistic regression, scikit-learn's C = `strength`, soft targets: `(D + 1, C)`, the last row the bias."""
    left, size, right = np.linalg.svd(values, full_matrices=False)  # at most as many directions as rows
    rows = np.hstack([left * size, np.ones((len(values), 1))])
    shape = (rows.shape[1], targets.shape[1])

    def loss(packed: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        coefficients = packed.reshape(shape)
        probabilities = softmax(rows @ coefficients)
        gradient = rows.T @ ((probabilities - targets) * weights[:, None])
        gradient[:-1] += coefficients[:-1] / strength
        fits = -(weights[:, None] * targets * np.log(np.maximum(probabilities, 1e-300))).sum()
        return float(fits + (coefficients[:-1] ** 2).sum() / (2 * strength)), gradient.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200, "gtol": 1e-4})
    coefficients = found.x.reshape(shape)
    return np.vstack([right.T @ coefficients[:-1], coefficients[-1:]])


def fit_fusion(
    features: Features, rows: NDArray[np.int64], targets: NDArray[np.float32], weights: NDArray[np.float32], seed: int
) -> NDArray[np.float32]:
    """The project's trainer: each modality alone and all together, mean over seeds of each fold's members, `(V, F, N, C)`."""
    from orchestrator.models.fusion import GatedExperts
    from orchestrator.training.ensemble import FusionRecipe, fit_members

    recipe = FusionRecipe(head=GatedExperts(width=32), seeds=1, epochs=20, min_steps=200)
    ensemble = fit_members(recipe, features.rows(rows), targets, weights, seed=seed)
    owners = np.array([fold for fold, _ in ensemble.members])
    views = [features.only([modality]) for modality in features.modalities] + [features]
    told = [np.where(np.asarray(view.present.any(axis=1))[:, None], ensemble.logits(view), 0.0) for view in views]
    return np.stack([[voice[owners == fold].mean(axis=0) for fold in range(len(targets))] for voice in told]).astype(np.float32)


def walk(scenario: Scenario, policy: SelectionPolicy, options: argparse.Namespace) -> tuple[Students, list[RoundRecord]]:
    """One run of all rounds."""
    plan = RoundPlan(rounds=options.rounds, guard=Guard(margin=options.margin))
    students = Students(scenario, Mixing(), options.student, options.evidence == "on")
    truth = scenario.corpus.labels[scenario.pool]
    return students, list(run_rounds(students, plan, policy, students, truth=scenario.given, pool_truth=truth))


def _actors(options: argparse.Namespace) -> str:
    return "dev" if options.dev else "test"


def gains(options: argparse.Namespace) -> None:
    """Test WAF of round 0, of the last student and of the model handed out, per policy and number of labels."""
    corpus = ravdess(options.speakers == "on")
    print(f"student {options.student}, within speakers {options.speakers}, {_actors(options)} actors, {options.draws} draws")
    head = f"{'policy':20}{'labels':>7}{'round 0':>9}{'last':>8}{'final':>8}{'gain':>7}{'spread':>8}{'worst':>7}"
    print(f"{head}{'OOF':>7}{'end':>7}{'s':>5}")
    for name in options.policy or POLICIES:
        for each in SHARES:
            started, rows = time.perf_counter(), []
            for fold, trained, tested in splits(corpus, options.dev):
                for number in range(options.draws):
                    scenario = draw("friendly", corpus, trained, tested, each, 100 * number + fold)
                    students, records = walk(scenario, POLICIES[name], options)
                    ends = [students.test_waf(record) for record in (records[0], records[-1], best_of(records))]
                    rows.append([*ends, records[0].val_f1, records[-1].val_f1])
            table = np.array(rows)
            mean, gain = table.mean(axis=0), table[:, 2] - table[:, 0]
            scores = f"{mean[0]:9.3f}{mean[1]:8.3f}{mean[2]:8.3f}"
            scores += f"{100 * gain.mean():+7.1f}{100 * gain.std():8.1f}{100 * gain.min():+7.1f}"
            print(f"{name:20}{each:7}{scores}{mean[3]:7.3f}{mean[4]:7.3f}{time.perf_counter() - started:5.0f}", flush=True)


def hostile(options: argparse.Namespace) -> None:
    """Final minus supervised test WAF over friendly and hostile scenarios."""
    lost: list[float] = []
    print(f"student {options.student}, {_actors(options)} actors; points of test WAF, final minus supervised")
    print(
        f"{'speakers':9}{'scenario':15}{'labels':>7}{'round 0':>9}{'final':>8}{'gain':>7}{'worst':>7}{'harmed':>8}{'handed':>9}"
    )
    for speakers in (True, False) if options.speakers == "both" else (options.speakers == "on",):
        corpus = ravdess(speakers)
        for kind in KINDS:
            for each in SHARES:
                rows = []
                for fold, trained, tested in splits(corpus, options.dev):
                    for number in range(options.seeds):
                        scenario = draw(kind, corpus, trained, tested, each, 1000 + 100 * number + fold)
                        students, records = walk(scenario, POLICIES["default"], options)
                        best = best_of(records)
                        rows.append([students.test_waf(records[0]), students.test_waf(best), float(best.index > 0)])
                table = np.array(rows)
                gain = 100 * (table[:, 1] - table[:, 0])
                lost += gain.tolist()
                mean = table.mean(axis=0)
                ends = f"{mean[0]:9.3f}{mean[1]:8.3f}{gain.mean():+7.1f}{gain.min():+7.1f}"
                ends += f"{(gain < -0.5).sum():5}/{len(gain):2}{mean[2]:9.0%}"
                print(f"{'known' if speakers else 'unknown':9}{kind:15}{each:7}{ends}", flush=True)
    safe = float((np.array(lost) >= -0.5).mean())
    print(
        f"{len(lost)} scenarios: final WAF at least supervised - 0.5 points in {safe:.1%}; mean gain {np.mean(lost):+.2f} points"
    )


def trimodal(options: argparse.Namespace) -> None:
    """Semi-synthetic clips: modalities are independent given the label, which flatters fusion. The split given, then others."""
    stored = np.load(options.features, allow_pickle=False)
    with open(TRIMODAL / "manifest.csv", newline="") as manifest, open(TRIMODAL / "truth.csv", newline="") as truths:
        listed = {row["clip_id"]: row for row in csv.DictReader(manifest)}
        truth = {row["clip_id"]: row for row in csv.DictReader(truths)}
    ids = stored["clip_id"]
    names = sorted({row["label"] for row in truth.values()})
    labels = np.array([names.index(truth[name]["label"]) for name in ids])
    groups = np.array([listed[name]["speaker"] for name in ids])
    values = {stream: stored[stream].astype(np.float32) for stream in ("video", "audio", "text")}
    features = Features(ids, values, np.ones((len(ids), 3), dtype=bool))
    if options.speakers != "off":
        features = within_speakers(features, groups)
    given = np.array([listed[name]["split"] for name in ids])
    corpus = Corpus(features, labels, groups, len(names))
    print(f"{'split':14}{'round 0':>9}{'final':>8}{'rounds':>8}   verdicts")
    for number in range(options.splits + 1):
        scenario = _trimodal_split(corpus, given, number)
        students, records = walk(scenario, POLICIES["default"], options)
        ends = f"{students.test_waf(records[0]):9.3f}{students.test_waf(best_of(records)):8.3f}{len(records):8}"
        print(
            f"{'as given' if not number else f'other {number}':14}{ends}   {' '.join(record.verdict for record in records)}",
            flush=True,
        )


def _trimodal_split(corpus: Corpus, given: Names, number: int) -> Scenario:
    """Split 0 is the manifest's; the others swap test speakers and draw as many labels, of the manifest's class shares."""
    rows = {split: np.flatnonzero(given == split) for split in ("labeled", "unlabeled", "test")}
    if number:
        rng = np.random.default_rng(number)
        speakers = rng.permutation(np.unique(corpus.groups))
        trained = np.flatnonzero(~np.isin(corpus.groups, speakers[:3]))
        counts = np.bincount(corpus.labels[rows["labeled"]], minlength=corpus.classes)
        drawn = [rng.permutation(trained[corpus.labels[trained] == label])[:count] for label, count in enumerate(counts)]
        rows["test"], rows["labeled"] = np.setdiff1d(np.arange(len(given)), trained), np.sort(np.concatenate(drawn))
        rows["unlabeled"] = np.setdiff1d(trained, rows["labeled"])
    return Scenario("trimodal", corpus, rows["labeled"], rows["unlabeled"], rows["test"], corpus.labels[rows["labeled"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gains", "hostile", "trimodal"))
    parser.add_argument("--student", choices=("experts", "fusion"), default="experts")
    parser.add_argument("--speakers", choices=("on", "off", "both"), default="on", help="standardise features within speakers")
    parser.add_argument("--evidence", choices=("on", "off"), default="on", help="weigh the voices out of fold")
    parser.add_argument("--rounds", type=int, default=RoundPlan().rounds)
    parser.add_argument("--policy", action="append", choices=tuple(POLICIES))
    parser.add_argument("--dev", action="store_true", help="never touch the test actors")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--margin", type=float, default=Guard().margin)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--splits", type=int, default=3)
    options = parser.parse_args()
    {"gains": gains, "hostile": hostile, "trimodal": trimodal}[options.what](options)


if __name__ == "__main__":
    main()
