"""MERTools' files, both ways: feature folders `<model>-UTT/<name>.npy` and `label-6way.npz`.

    write_corpus       features and labels of ours ─► folders that MERTools' training scripts read
    UtteranceFolder    a folder of theirs ─► a stream of ours, as if an encoder had made it

The label file is a pickle inside a zip, and such files travel between strangers. It is read without running any of it: the few
names a pickled dict of strings and numbers needs are answered by inert stand-ins, every other name is refused.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import InputError
from orchestrator.seams import Json
from orchestrator.stores.fingerprint import file_digest, fingerprint
from orchestrator.vocabulary import Bools, Clip, DecodedClip, Emotions, Encoded, Features, Floats, Split, modality_of

_LARGEST = 256 << 20  # bytes of an unpacked member: a hundred thousand labels take five million
Corpora = Mapping[str, Mapping[str, str]]  # corpus ("train_corpus") -> clip name -> emotion


@dataclass(frozen=True, slots=True)
class UtteranceFolder:
    """Recipe of a stream that MERTools has extracted already: `<folder>/<clip_id>.npy`; a clip without a file is absent."""

    stream: str
    folder: str

    def __post_init__(self) -> None:
        modality_of(self.stream)
        object.__setattr__(self, "folder", str(Path(self.folder).expanduser().resolve()))  # workers stand elsewhere

    @property
    def reads(self) -> str:
        return "name"

    def identity(self) -> Mapping[str, Json]:
        """Raises InputError when there is no such folder, or nothing in it."""
        files = sorted(Path(self.folder).glob("*.npy")) if Path(self.folder).is_dir() else []
        if not files:
            raise InputError(f"stream {self.stream}: {self.folder} is not a folder of <clip_id>.npy files; name one of MERTools'")
        return {"encoder": "mertools", "version": 1, "files": fingerprint([[file.name, file_digest(file)] for file in files])}

    def load(self) -> UtteranceFolder:
        return self

    def encode(self, clips: Sequence[DecodedClip]) -> Encoded:
        """One row a clip, `(B, D)`. Raises InputError naming the files that are no features."""
        folder = Path(self.folder)
        width = len(_row(next(folder.glob("*.npy"))))
        there = [i for i, clip in enumerate(clips) if _file(folder, clip.clip_id).is_file()]
        values, present = np.zeros((len(clips), width), np.float32), np.zeros(len(clips), bool)
        if there:
            values[there], present[there] = read_utterance_features(folder, [clips[i].clip_id for i in there])
        return Encoded(self.stream, tuple(clip.clip_id for clip in clips), values, present)


def write_corpus(folder: Path, clips: Sequence[Clip], features: Features, emotions: Emotions) -> list[Path]:
    """`<folder>/<stream>-UTT/` of every stream and `<folder>/label-6way.npz`; returns them.

    MERTools asks for a label of every clip: those that nobody labelled are `neutral` (or the first class) in `test1_corpus`.
    """
    names = [clip.clip_id for clip in clips]
    written = [folder / f"{stream}-UTT" for stream in features.streams]
    for path, values, present in zip(written, features.values.values(), features.present.T, strict=True):
        write_utterance_features(path, names, values, present)
    anything = "neutral" if "neutral" in emotions.names else emotions.names[0]
    labelled = [clip for clip in clips if clip.split is Split.LABELLED]
    learnt = {clip.clip_id: emotions.names[clip.label] for clip in labelled if clip.label is not None}
    others = {name: anything for name in names if name not in learnt}
    write_labels(folder / "label-6way.npz", {"train_corpus": learnt, "test1_corpus": others})
    return [*written, folder / "label-6way.npz"]


def write_utterance_features(folder: Path, names: Sequence[str], values: Floats, present: Bools) -> None:
    """One `<name>.npy` a clip, float32 `(D,)`; an absent one is zeros, as MERTools writes it. `folder` is named `<model>-UTT`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, row, there in zip(names, values, present, strict=True):
        np.save(_file(folder, name), np.where(there, row, 0.0).astype(np.float32), allow_pickle=False)


def read_utterance_features(folder: Path, names: Sequence[str]) -> tuple[NDArray[np.float32], Bools]:
    """Features `(N, D)` and presence `(N,)` of the named clips; frame-level files `(T, D)` are averaged, all zeros is absent.

    Raises InputError naming the files that are missing, not numbers, or of another width.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a directory of <name>.npy files")
    rows: list[NDArray[np.float32]] = []
    problems: list[str] = []
    for name in names:
        try:
            rows.append(_row(_file(folder, name)))
        except (OSError, ValueError) as error:
            problems.append(f"{name}: {error}")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        problems.append(f"widths differ: {sorted(widths)}")
    if problems or not rows:
        shown = "; ".join(problems[:5]) or "no clip was asked for"
        raise InputError(f"{folder}: {len(problems)} of {len(names)} clips cannot be read: {shown}")
    values = np.stack(rows)  # (N, D)
    return values, np.asarray(values.any(axis=1))


def write_labels(path: Path, corpora: Corpora) -> None:
    """`label-6way.npz` as MERTools reads it: a pickled dict a corpus, `{name: {"emo": ..., "val": ...}}`.

    MERTools asks for a valence; ours is always -1, which it never reads for the discrete tracks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for corpus, labels in corpora.items():
            boxed = np.empty((), dtype=object)
            boxed[()] = {name: {"emo": emotion, "val": -1} for name, emotion in labels.items()}
            pickled = pickle.dumps(boxed, protocol=3)  # NumPy 2 calls its module `numpy._core`, which NumPy 1 does not have
            pickled = pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
            archive.writestr(f"{corpus}.npy", header.getvalue() + pickled)


def read_labels(path: Path) -> Corpora:
    """Emotions by corpus and clip name, nothing of the file being run. Raises InputError when it holds anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {Path(member.filename).stem: _corpus(archive, member) for member in archive.infolist()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a hostile pickle can raise anything
        raise InputError(f"{path} is not a label file of MERTools ({type(error).__name__}: {error})") from error


def _corpus(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, str]:
    if member.file_size > _LARGEST:
        raise InputError(f"{member.filename} unpacks to {member.file_size} bytes, more than any label file; it is refused")
    data = io.BytesIO(archive.read(member))
    version = np.lib.format.read_magic(data)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(data)
    if shape != () or dtype.kind != "O":
        raise InputError(f"{member.filename} holds an array {shape} of {dtype}, not a dict of labels")
    boxed = _Inert(data).load()
    content = boxed.content if isinstance(boxed, _Box) else boxed
    if not isinstance(content, dict):
        raise InputError(f"{member.filename} holds a {type(content).__name__}, not a dict of labels")
    return {str(name): _emotion(name, told) for name, told in content.items()}


def _emotion(name: object, told: object) -> str:
    emotion = told.get("emo") if isinstance(told, dict) else told
    if not isinstance(name, str) or not isinstance(emotion, str):
        raise InputError(f"the label of {name!r} is {emotion!r}, not the name of an emotion")
    return emotion


class _Inert(pickle._Unpickler):
    """Loads dicts, strings and numbers; what NumPy would build becomes a `_Box`.

    The one in Python, not in C: there a single opcode can claim an index of four billion and the memory for it.
    """

    def find_class(self, module: str, name: str) -> type[_Box]:
        numpy = module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
        if (numpy and name in ("_reconstruct", "ndarray", "dtype", "scalar")) or (module, name) == ("_codecs", "encode"):
            return _Box
        raise InputError(f"it asks for {module}.{name}, which no label needs: do not open it with NumPy or MERTools")


class _Box:
    """Stands for an array without dimensions, a dtype or a number of NumPy; keeps what the first holds."""

    def __init__(self, *_: object) -> None:
        self.content: object = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        held = state[4]
        self.content = held[0] if isinstance(held, list) and len(held) == 1 else held


def _row(path: Path) -> NDArray[np.float32]:
    array = np.load(path, allow_pickle=False)
    if array.ndim not in (1, 2) or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"an array {array.shape} of {array.dtype} is no feature")
    row = array if array.ndim == 1 else array.mean(axis=0) if len(array) else np.zeros(array.shape[1])
    if not np.isfinite(row).all():
        raise ValueError("it holds values that are not finite")
    return np.asarray(row, dtype=np.float32)


def _file(folder: Path, name: str) -> Path:
    if not name or Path(name).name != name or name in (".", ".."):
        raise ValueError(f"clip name {name!r} cannot be a file name")
    return folder / f"{name}.npy"
