"""Clips to stored features: decode once, encode once, keep everything that was finished.

    clips that lack a stored row of some stream
      └─ decode tasks (killable children)           one block = `clips_per_block` clips, or BLOCK_BYTES of long ones
           └─ video pool ── shard ──► FeatureStore       frames cross the object store once, then are dropped
                └─ audio pool ── shard ──► FeatureStore
                     └─ text pool ── shard ──► FeatureStore
                          └─ one status row a clip ──► driver: progress, quarantine

Each pool commits its shard before it hands the rest of the block on, so a crash redoes at most a block. Shards are named by their
content: a block that Ray runs twice is stored once. A clip that cannot be decoded becomes a `Rejected` row; a clip without sound,
picture or words keeps its row with the presence flag off.

What is under way is bounded in bytes: by BLOCK_BYTES in a decode task, and between stages by Ray Data, which starts no decoding
while the blocks that wait fill half of the object store.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import ActorPoolStrategy

from orchestrator.cluster.columns import from_table, to_table
from orchestrator.cluster.meter import Stages
from orchestrator.encoders.text import text_key
from orchestrator.media.decoding import DecodeSettings
from orchestrator.media.sandbox import Sandbox
from orchestrator.reports.console import show_rows
from orchestrator.reports.progress import progress
from orchestrator.seams import EncoderRecipe
from orchestrator.settings import ClusterSettings, PoolSettings
from orchestrator.stores.features import FeatureStore
from orchestrator.stores.fingerprint import fingerprint
from orchestrator.vocabulary import MODALITIES, Clip, DecodedClip, Features, Rejected, Split, modality_of

PIPELINE_ORDER = ("video", "audio", "text")  # heaviest payload first, so that it is dropped first
assert set(PIPELINE_ORDER) == set(MODALITIES)
HEAVY = {"video": "frames", "audio": "waveform"}  # the column a modality is the last to read
RESTARTS = 10  # of one encoder actor: Ray's default restarts an actor that always dies for ever
STATUS = ["clip_id", "stage", "code", "detail"]
BLOCK_BYTES = 64 << 20  # of frames and sound that a decode task holds: thirty usual clips, or one of ten minutes


def stream_fingerprint(recipe: EncoderRecipe, decode: DecodeSettings) -> str:
    """Identity of a stored stream: everything that can change the bytes of a feature."""
    decoded = None if recipe.reads != "video" else decode.identity(sound_only=modality_of(recipe.stream) == "audio")
    return fingerprint("features", recipe.stream, recipe.identity(), decoded)


def feature_key(recipe: EncoderRecipe, clip: Clip | DecodedClip) -> str:
    """What a clip's row is stored under: its file's bytes or the text read; its name only where a recipe reads nothing else."""
    if recipe.reads == "name":
        return clip.clip_id
    return clip.digest if recipe.reads == "video" else text_key(clip, getattr(recipe, "source", "both"))


def extract(
    clips: Sequence[Clip],
    recipes: Sequence[EncoderRecipe],
    decode: DecodeSettings,
    root: Path,
    store: FeatureStore,
    settings: ClusterSettings,
    *,
    retry: bool = False,
) -> list[Rejected]:
    """Fill the store with what is missing; returns every clip that cannot be used, of this run and of earlier ones.

    Files outside `root` are refused. Earlier rejects are not decoded again unless `retry`.
    """
    shelf = fingerprint("quarantine", decode.identity())
    if retry:
        store.forget_rejected(shelf)
    digests = {clip.clip_id: clip.digest for clip in clips}
    rejected = [row for row in store.rejected(shelf, digests) if row.clip_id in digests]
    usable = _without(clips, rejected)
    wanted = _missing(usable, recipes, decode, store)
    if found := len(usable) - len(wanted):
        print(f"resuming: features of {found} clips found, {len(wanted)} to encode", flush=True)
    while wanted:
        before = len(rejected)
        for failed in _run(usable, wanted, recipes, decode, root, store, settings):
            store.reject(shelf, failed, digests)
            rejected += failed
        # Equal content is encoded once: when that one clip was rejected, its twins have yet to be tried.
        usable = _without(usable, rejected)
        wanted = _missing(usable, recipes, decode, store, twins=True) if len(rejected) > before else {}
    return rejected


def read_features(
    clips: Sequence[Clip], recipes: Sequence[EncoderRecipe], decode: DecodeSettings, store: FeatureStore
) -> Features:
    """Stored features of clips, joined by clip. Raises KeyError when `extract` has not filled the store."""
    columns = {
        recipe.stream: store.read(
            recipe.stream, stream_fingerprint(recipe, decode), [feature_key(recipe, clip) for clip in clips]
        )
        for recipe in recipes
    }
    return Features(
        clip_ids=np.array([clip.clip_id for clip in clips], dtype=np.str_),
        values={stream: values for stream, (values, _) in columns.items()},
        present=np.stack([present for _, present in columns.values()], axis=1),
    )


def _without(clips: Sequence[Clip], rejected: Sequence[Rejected]) -> list[Clip]:
    lost = {row.clip_id for row in rejected}
    return [clip for clip in clips if clip.clip_id not in lost]


def _missing(
    clips: Sequence[Clip], recipes: Sequence[EncoderRecipe], decode: DecodeSettings, store: FeatureStore, *, twins: bool = False
) -> dict[str, list[str]]:
    """Streams each clip still lacks, by clip id; equal content is named once unless `twins`."""
    wanted: dict[str, list[str]] = {}
    for recipe in recipes:
        seen = store.known(recipe.stream, stream_fingerprint(recipe, decode))
        for clip in clips:
            key = feature_key(recipe, clip)
            if key not in seen:
                if not twins:
                    seen.add(key)
                wanted.setdefault(clip.clip_id, []).append(recipe.stream)
    return wanted


def _run(
    clips: Sequence[Clip],
    wanted: Mapping[str, list[str]],
    recipes: Sequence[EncoderRecipe],
    decode: DecodeSettings,
    root: Path,
    store: FeatureStore,
    settings: ClusterSettings,
) -> Iterator[list[Rejected]]:
    """Encode what is wanted; yields the rejected clips of each block."""
    quiet_data()
    modalities = [name for name in PIPELINE_ORDER if any(modality_of(s) == name for streams in wanted.values() for s in streams)]
    most = {name: settings.pools.get(name, PoolSettings()).max_actors for name in modalities}
    stages = Stages({"decode": None, **most})
    statuses = _pipeline(clips, wanted, recipes, decode, root, store, settings, stages.meter)
    with progress(len(wanted), "extract", note=stages.line) as bar:
        for batch in statuses.iter_batches(batch_format="pyarrow", batch_size=None):
            yield [Rejected(**row) for row in batch.filter(pc.is_valid(batch["code"])).to_pylist()]
            bar.advance(batch.num_rows)
    show_rows("stages", ("stage", "clips", "ms a clip", "workers busy", "at most"), stages.rows())


def _pipeline(
    clips: Sequence[Clip],
    wanted: Mapping[str, list[str]],
    recipes: Sequence[EncoderRecipe],
    decode: DecodeSettings,
    root: Path,
    store: FeatureStore,
    settings: ClusterSettings,
    meter: Any,
) -> ray.data.Dataset:
    todo = sorted((clip for clip in clips if clip.clip_id in wanted), key=lambda clip: clip.clip_id)
    words = [recipe.stream for recipe in recipes if recipe.reads != "video"]
    data = ray.data.from_arrow(plan_blocks(todo, wanted, settings.clips_per_block)).map_batches(
        decode_block,
        fn_kwargs={"decode": decode, "root": str(root), "words": words, "meter": meter},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=settings.decode_cpus,
    )
    for modality in PIPELINE_ORDER:
        chosen = [recipe for recipe in recipes if modality_of(recipe.stream) == modality]
        needed = [recipe for recipe in chosen if any(recipe.stream in streams for streams in wanted.values())]
        if needed:
            pool = settings.pools.get(modality, PoolSettings())
            data = data.map_batches(
                EncodeClips,
                fn_constructor_kwargs={"recipes": needed, "decode": decode, "store": store, "modality": modality, "meter": meter},
                compute=ActorPoolStrategy(min_size=pool.min_actors, max_size=pool.max_actors),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=pool.cpus,
                num_gpus=pool.gpus,
                max_restarts=RESTARTS,
                max_task_retries=-1,  # a lost node would use up any number at once; the restarts bound them
            )
    return data.select_columns(STATUS)


class EncodeClips:
    """One warm replica of a modality's encoders: fed blocks, it commits a shard a stream and passes on what others need."""

    def __init__(
        self, recipes: Sequence[EncoderRecipe], decode: DecodeSettings, store: FeatureStore, modality: str, meter: Any
    ) -> None:
        self._encoders = [(recipe, stream_fingerprint(recipe, decode), recipe.load()) for recipe in recipes]
        self._store = store
        self._modality = modality
        self._meter = meter

    def __call__(self, block: pa.Table) -> pa.Table:
        started = monotonic()
        failures: dict[str, str] = {}
        usable = block.filter(pc.is_null(block["code"]))
        clips = from_table(usable)
        for recipe, shelf, encoder in self._encoders:
            index = [i for i, streams in enumerate(usable["wanted"].to_pylist()) if recipe.stream in streams]
            if not index:
                continue
            encoded = encoder.encode([clips[i] for i in index])
            keys = np.array([feature_key(recipe, clips[i]) for i in index])
            finite = np.isfinite(encoded.values).all(axis=1)  # (B,)
            failures |= {encoded.clip_ids[i]: recipe.stream for i in np.flatnonzero(~finite)}
            if finite.any():
                self._store.write(recipe.stream, shelf, keys[finite], encoded.values[finite], encoded.present[finite])
        heavy = HEAVY.get(self._modality)
        block = block.drop_columns([heavy]) if heavy else block
        self._meter.add.remote(self._modality, block.num_rows, monotonic() - started)
        return _with_failures(block, failures)


def decode_block(
    block: pa.Table, *, decode: DecodeSettings, root: str, words: Sequence[str] = (), meter: Any = None
) -> Iterator[pa.Table]:
    """A Ray Data task: planned clips to frames and sound; a clip that fails keeps its row, with the reason.

    Long clips leave in several tables, so that a worker holds BLOCK_BYTES and not a block of any size. The file of a clip that
    lacks nothing but streams in `words` stays closed.
    """
    started = monotonic()
    results: list[DecodedClip | Rejected] = []
    clips = [Clip(**row, split=Split.UNLABELLED) for row in block.drop_columns(["wanted"]).to_pylist()]
    first = held = 0
    for number, (clip, lacks) in enumerate(zip(clips, block["wanted"].to_pylist(), strict=True), start=1):
        closed = bool(lacks) and set(lacks) <= set(words)
        result = _words_only(clip) if closed else _sandbox(decode, root).decode(clip)
        results.append(result)
        held += 0 if isinstance(result, Rejected) else result.frames.nbytes + result.waveform.nbytes
        if held < BLOCK_BYTES and number < len(clips):
            continue
        if meter is not None:
            meter.add.remote("decode", len(results), monotonic() - started)
        yield _decoded(results, clips[first:number]).append_column("wanted", block["wanted"].slice(first, len(results)))
        started, first, held, results = monotonic(), number, 0, []


def _decoded(results: Sequence[DecodedClip | Rejected], clips: Sequence[Clip]) -> pa.Table:
    usable = [_words_only(clip) if isinstance(r, Rejected) else r for r, clip in zip(results, clips, strict=True)]
    reasons = [result if isinstance(result, Rejected) else None for result in results]
    table = to_table(usable)
    for column in STATUS[1:]:
        table = table.append_column(column, pa.array([getattr(reason, column, None) for reason in reasons], pa.string()))
    return table


def plan_blocks(clips: Sequence[Clip], wanted: Mapping[str, list[str]], clips_per_block: int) -> list[pa.Table]:
    """The work in blocks. Labels stay behind: no decoder and no encoder ever sees one."""
    columns = ("clip_id", "path", "transcript", "digest", "hint")
    table = pa.table({name: pa.array([getattr(clip, name) for clip in clips], pa.string()) for name in columns})
    table = table.append_column("wanted", pa.array([wanted[clip.clip_id] for clip in clips], pa.list_(pa.string())))
    return [table.slice(start, clips_per_block) for start in range(0, len(clips), clips_per_block)]


def quiet_data() -> None:
    """Our own progress speaks; Ray Data's would flood a job's log."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that it is off
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # the only way to say max_restarts so far


def _words_only(clip: Clip) -> DecodedClip:
    """A clip of which only the transcript is read."""
    no_frames = np.zeros((0, 0, 0, 3), np.uint8)
    silence = np.zeros(0, np.float32)
    return DecodedClip(clip.clip_id, no_frames, silence, silence, 16_000, clip.transcript, clip.digest, (), clip.hint)


@functools.cache
def _sandbox(decode: DecodeSettings, root: str) -> Sandbox:
    """One sandbox a worker process, kept warm between tasks; its children die with the worker."""
    return Sandbox(decode, root)


def _with_failures(block: pa.Table, failures: Mapping[str, str]) -> pa.Table:
    if not failures:
        return block
    rows = block.select(STATUS).to_pylist()
    for row in rows:
        if row["clip_id"] in failures:
            detail = f"the encoder of {failures[row['clip_id']]} gave a value that is not finite"
            row |= {"stage": "encode", "code": "NONFINITE_FEATURE", "detail": detail}
    for column in STATUS[1:]:
        position = block.schema.get_field_index(column)
        block = block.set_column(position, column, pa.array([row[column] for row in rows], pa.string()))
    return block
