from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.cluster.corpus import Corpus, gather, read_clips
from orchestrator.cluster.extract import decode_block, plan_blocks
from orchestrator.errors import TooManyRejected
from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.settings import Experiment
from orchestrator.vocabulary import Clip, Split
from tests.cluster.conftest import MakeExperiment
from tests.cluster.killing import DECODER, ENCODER, killing
from tests.endpoint import Endpoint
from tests.media.hostile_corpus import place
from tests.media.hostile_films import FILMS

pytestmark = pytest.mark.cluster


def as_encoded(experiment: Experiment) -> Corpus:
    return gather(replace(experiment, data=replace(experiment.data, within_speakers=False)))


def shards(store: Path) -> set[str]:
    return {path.relative_to(store / "features").as_posix() for path in (store / "features").rglob("*.parquet")}


def rewritten(manifest: Path, target: Path, **edits: dict[str, str]) -> Path:
    """A manifest beside copies of its clips; `edits[column][clip_id]` are new values."""
    target.mkdir(parents=True)
    rows = list(csv.DictReader(manifest.open(newline="")))
    for number, row in enumerate(rows):
        film = target / f"film-{number}.mp4"
        shutil.copy(manifest.parent / row["path"], film)
        row["path"] = film.name
        row.update({column: values[row["clip_id"]] for column, values in edits.items() if row["clip_id"] in values})
    with (target / "manifest.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return target / "manifest.csv"


def at(experiment: Experiment, manifest: Path, **data: object) -> Experiment:
    return replace(experiment, data=replace(experiment.data, manifest=str(manifest), **data))  # type: ignore[arg-type]


def test_stored_features_are_what_the_encoders_say_of_each_clip_alone(cluster: None, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    corpus = as_encoded(experiment)
    assert len(corpus.clips) == 60
    for row in (0, 31, 59):
        decoded = decode(corpus.clips[row], experiment.decode)
        for recipe in corpus.recipes:
            alone = recipe.load().encode([decoded]).values[0]  # this process may sum with more threads than an actor
            np.testing.assert_allclose(corpus.features.values[recipe.stream][row], alone, rtol=1e-5, atol=1e-5)


def test_renamed_copied_and_relabelled_clips_are_not_encoded_again(
    cluster: None, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    experiment = make_experiment()
    before = as_encoded(experiment)
    stored = shards(experiment.store)
    labels = {clip.clip_id: "sad" for clip in before.clips if clip.label is not None and clip.label == 0}
    kept = dict(list(labels.items())[:2])
    manifest = rewritten(Path(str(experiment.data.manifest)), tmp_path / "copy", label=kept)
    after = as_encoded(at(experiment, manifest))
    assert shards(experiment.store) == stored
    np.testing.assert_array_equal(after.features.values["video"], before.features.values["video"])


def test_another_number_of_frames_touches_pictures_alone(cluster: None, make_experiment: MakeExperiment, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(make_experiment().store, store)
    as_encoded(make_experiment(store=store))
    stored = shards(store)
    as_encoded(make_experiment("decode.frames=4", store=store))
    new = shards(store) - stored
    assert new
    assert all(name.startswith("video") for name in new), new


def test_hostile_films_do_not_change_a_bit_of_their_neighbours(
    cluster: None, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    experiment = make_experiment()
    calm = as_encoded(experiment)
    manifest = rewritten(Path(str(experiment.data.manifest)), tmp_path / "films")
    hostile = {item.name[0]: item for item in reversed(FILMS) if item.name[0] in "BCDEFGH"}  # the first of each class
    with place() as where, manifest.open("a") as table:
        for kind, item in hostile.items():
            (tmp_path / "films" / kind).mkdir()
            path = item.make(tmp_path / "films" / kind, where)
            table.write(f"hostile-{kind},{Path(path).relative_to(manifest.parent)},unlabeled,,p0,\n")
        hunted = as_encoded(at(make_experiment("decode.timeout_s=5", store=tmp_path / "store"), manifest, max_rejected=1.0))
    assert {row.clip_id for row in hunted.rejected} <= {f"hostile-{kind}" for kind in hostile}
    kept = np.isin(hunted.features.clip_ids, calm.features.clip_ids)
    for stream, values in calm.features.values.items():
        assert hunted.features.values[stream][kept].tobytes() == values.tobytes()


def test_a_clip_that_cannot_be_decoded_is_a_row_with_a_reason_and_so_is_its_twin(
    cluster: None, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    experiment = make_experiment()
    before = as_encoded(experiment)
    manifest = rewritten(Path(str(experiment.data.manifest)), tmp_path / "broken")
    pool = [clip.clip_id for clip in before.clips if clip.label is None]
    numbers = {row["clip_id"]: row["path"] for row in csv.DictReader(manifest.open(newline=""))}
    for clip_id in pool[:2]:
        (manifest.parent / numbers[clip_id]).write_bytes(b"no film at all")
    with pytest.raises(TooManyRejected, match=r"2 of 60 clips cannot be used.*BAD_MAGIC"):
        as_encoded(at(experiment, manifest, max_rejected=0.01))
    after = as_encoded(at(experiment, manifest, max_rejected=0.1))
    assert {(row.clip_id, row.code) for row in after.rejected} == {(clip_id, "BAD_MAGIC") for clip_id in pool[:2]}
    rows = [row for row, clip in enumerate(before.clips) if clip.clip_id not in pool[:2]]
    np.testing.assert_array_equal(after.features.values["audio"], before.features.values["audio"][rows])


def test_long_clips_leave_the_decoder_in_pieces_of_bounded_size(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = read_clips(make_experiment())[:5]
    (block,) = plan_blocks(clips, {clip.clip_id: ["video"] for clip in clips}, 16)
    settings, root = DecodeSettings(), str(Path(clips[0].path).parent)
    (whole,) = decode_block(block, decode=settings, root=root)
    monkeypatch.setattr("orchestrator.cluster.extract.BLOCK_BYTES", 1)
    pieces = list(decode_block(block, decode=settings, root=root))
    assert [piece.num_rows for piece in pieces] == [1] * 5
    assert pa.concat_tables(pieces).equals(whole)


def test_the_file_of_a_clip_that_lacks_text_alone_stays_closed() -> None:
    clips = [Clip(name, "/nowhere.mp4", Split.UNLABELLED, transcript="I won.", digest=name) for name in ("told", "seen")]
    (block,) = plan_blocks(clips, {"told": ["text"], "seen": ["text", "audio"]}, 16)
    (decoded,) = decode_block(block, decode=DecodeSettings(), root="/", words=["text"])
    assert decoded["transcript"].to_pylist() == ["I won."] * 2
    assert decoded["code"].to_pylist() == [None, "IO_ERROR"]


def test_hints_are_asked_once_and_read_by_the_text_encoder(
    cluster: None, make_experiment: MakeExperiment, endpoint: Endpoint, tmp_path: Path
) -> None:
    words_alone = ["video=none", "audio=none", "data.within_speakers=false"]
    asking = [*words_alone, "hints=local", "hints.model=m", f"hints.base_url={endpoint.url}"]
    plain = gather(make_experiment(*words_alone, store=tmp_path))
    told = gather(make_experiment(*asking, store=tmp_path))
    assert {clip.hint for clip in told.clips if clip.transcript} == {"happy: She says she won."}
    lines = len(endpoint.bodies)
    assert lines == len({clip.transcript for clip in told.clips if clip.transcript})
    assert (told.features.values["text"] != plain.features.values["text"]).any(axis=1).sum() == told.features.present.sum()
    ignored = gather(make_experiment(*asking, "text.source=transcript", store=tmp_path))
    np.testing.assert_array_equal(ignored.features.values["text"], plain.features.values["text"])
    assert len(endpoint.bodies) == lines


def test_killed_encoders_and_decoders_lose_and_double_nothing(
    cluster: None, make_experiment: MakeExperiment, tmp_path: Path
) -> None:
    experiment = make_experiment()
    undisturbed = as_encoded(experiment)
    with killing([ENCODER, DECODER]) as killed:
        again = as_encoded(make_experiment("cluster.clips_per_block=4", store=tmp_path / "store"))
    assert sorted(killed) == sorted([ENCODER, DECODER])
    assert again.rejected == ()
    for stream, values in undisturbed.features.values.items():
        np.testing.assert_array_equal(again.features.values[stream], values)
