from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import ManifestError
from orchestrator.media.digests import content_problems, with_digests
from orchestrator.media.manifest import read_manifest
from orchestrator.vocabulary import Clip, Emotions, Split

EMOTIONS = Emotions(("neutral", "angry", "happy"))
HEADER = "clip_id,path,split,label,speaker,transcript\n"
GOOD = "c1,a.mp4,labeled,happy,s1,Hello there.\nc2,b.mp4,unlabeled,angry,s2,\nc3,sub/c.mp4,test,neutral,s3,\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.mp4", "b.mp4", "sub/c.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def problems(folder: Path, text: str | bytes) -> tuple[str, ...]:
    path = folder / "manifest.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, emotions=EMOTIONS)
    return caught.value.problems


@pytest.mark.parametrize("text", [HEADER + GOOD, "\ufeff" + HEADER + GOOD, (HEADER + GOOD).replace("\n", "\r\n")])
def test_a_manifest_is_read_with_or_without_bom_and_windows_lines(folder: Path, text: str) -> None:
    (folder / "manifest.csv").write_bytes(text.encode())
    clips = read_manifest(folder / "manifest.csv", emotions=EMOTIONS)
    assert [(clip.clip_id, clip.split, clip.label, clip.group) for clip in clips] == [
        ("c1", Split.LABELLED, 2, "s1"),
        ("c2", Split.UNLABELLED, None, "s2"),
        ("c3", Split.TEST, 0, "s3"),
    ]
    assert clips[0].transcript == "Hello there."
    assert clips[2].path == str(folder / "sub" / "c.mp4")


def test_parquet_reads_like_csv(folder: Path) -> None:
    (folder / "manifest.csv").write_text(HEADER + GOOD)
    rows = [line.split(",") for line in GOOD.splitlines()]
    columns = dict(zip(HEADER.strip().split(","), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "manifest.parquet")
    csv, parquet = (read_manifest(folder / f"manifest.{end}", emotions=EMOTIONS) for end in ("csv", "parquet"))
    assert csv == parquet


def test_the_label_of_an_unlabelled_clip_never_gets_in(folder: Path) -> None:
    (folder / "manifest.csv").write_text(HEADER + GOOD)
    assert read_manifest(folder / "manifest.csv", emotions=EMOTIONS)[1].label is None


def test_speaker_and_transcript_are_optional(folder: Path) -> None:
    (folder / "manifest.csv").write_text("label,split,path,clip_id,note\nhappy,labeled,a.mp4,c1,x\n")
    (clip,) = read_manifest(folder / "manifest.csv", emotions=EMOTIONS)
    assert (clip.group, clip.transcript) == ("", None)


def test_every_problem_is_listed_at_once_with_its_row(folder: Path) -> None:
    text = (
        HEADER
        + "c1,a.mp4,labeled,happy,,\nc1,b.mp4,labeled,,,\nc3,gone.mp4,test,,,\nc4,a.mp4,train,happy,,\nc5,a.mp4,test,joy,,\n"
    )
    found = problems(folder, text)
    assert [problem.split(":")[0] for problem in found] == ["row 3", "row 3", "row 4", "row 5", "row 6"]
    for problem, words in zip(
        found, ("row 2 already", "no label", "does not exist", "labeled, unlabeled, test", "'joy'"), strict=True
    ):
        assert words in problem


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("c1,../../etc/passwd,test,,,", "leaves"),
        ("c1,/etc/passwd,test,,,", "leaves"),
        ("c1,http://127.0.0.1/x.mp4,test,,,", "not a file name"),
        ("c1,concat:a.mp4|b.mp4,test,,,", "not a file name"),
        ('c1,"subfile,,start,0,end,9,,:a.mp4",test,,,', "not a file name"),
        ("c1,data:video/mp4;base64,test,,,", "not a file name"),
        ("c1,-,test,,,", "not a file name"),
        ("c1,,test,,,", "path is empty"),
        (",a.mp4,test,,,", "clip_id is empty"),
        ("../c1,a.mp4,test,,,", "cannot name a file"),
        ("c1,a.mp4,test,,,one,two", "more or fewer cells"),
        ("c1,a.mp4", "more or fewer cells"),
        ("c1,a.mp4,labeled,Happy,,", "unknown"),
        ("c1,a.mp4,labeled,-1,,", "unknown"),
        ('c1,"a.mp4,test,,,', "quotes"),
        (f"c1,a.mp4,test,,,{'x' * 200_000}", "field limit"),
    ],
)
def test_a_bad_row_is_refused_with_the_remedy(folder: Path, row: str, words: str) -> None:
    (problem,) = problems(folder, HEADER + row + "\n")
    assert words in problem
    assert len(problem) < 400


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((HEADER + GOOD).encode("utf-16"), "UTF-16"),
        ((HEADER + GOOD).encode("utf-16-le"), "UTF-16"),
        ((HEADER + "c1,a\0.mp4,test,,,\n").encode(), "binary"),
        ((HEADER + "c1,a.mp4,test,,s,caf\xe9\n").encode("latin-1"), "row 2"),
        (b"", "missing"),
        (HEADER.encode(), "no rows"),
        (b"clip_id,path,split\nc1,a.mp4,test\n", "'label' is missing"),
        (b"clip_id,path,split,label,label\n", "twice"),
        (b"clip_id;path;split;label\n", "'path' is missing"),
    ],
)
def test_a_bad_file_is_refused_with_the_remedy(folder: Path, data: bytes, words: str) -> None:
    assert any(words in problem for problem in problems(folder, data))


def test_a_missing_manifest_or_root_is_named(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"data\.manifest"):
        read_manifest(folder / "none.csv", emotions=EMOTIONS)
    (folder / "manifest.csv").write_text(HEADER + GOOD)
    with pytest.raises(ManifestError, match=r"data\.root"):
        read_manifest(folder / "manifest.csv", root=folder / "none", emotions=EMOTIONS)


def test_a_parquet_file_that_is_none_is_refused(folder: Path) -> None:
    (folder / "manifest.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ManifestError, match="Parquet"):
        read_manifest(folder / "manifest.parquet", emotions=EMOTIONS)


def test_digests_follow_content_and_not_names(folder: Path) -> None:
    (folder / "copy.mp4").write_bytes(b"a.mp4")
    clips = [Clip(name, str(folder / name), Split.TEST) for name in ("a.mp4", "copy.mp4", "b.mp4", "gone.mp4", "sub")]
    digests = [clip.digest for clip in with_digests(clips, cache=folder / "cache.json")]
    assert digests[0] == digests[1] != digests[2]
    assert digests[3:] == ["", ""]  # a missing file and a folder: decoding says why


def test_a_second_run_reads_no_file_and_sees_a_changed_one(folder: Path) -> None:
    import os

    clip = Clip("a", str(folder / "a.mp4"), Split.TEST)
    before = os.stat(clip.path)
    (first,) = with_digests([clip], cache=folder / "cache.json")
    (folder / "a.mp4").write_bytes(b"z.mp4")  # same size
    os.utime(clip.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert with_digests([clip], cache=folder / "cache.json") == (first,)  # only a read could tell
    os.utime(clip.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert with_digests([clip], cache=folder / "cache.json") != (first,)


def test_a_damaged_cache_of_digests_is_made_anew(folder: Path) -> None:
    clip = Clip("a", str(folder / "a.mp4"), Split.TEST)
    (folder / "cache.json").write_text('{"trunc')
    (first,) = with_digests([clip], cache=folder / "cache.json")
    assert len(first.digest) == 64


def test_a_labelled_film_in_the_test_split_is_found_under_any_name() -> None:
    labelled = Clip("a", "/a", Split.LABELLED, label=1, digest="d1")
    assert content_problems([Clip("b", "/b", Split.UNLABELLED, digest="d1"), labelled]) == ()
    (leak,) = content_problems([Clip("b", "/b", Split.TEST, digest="d1"), labelled])
    assert "'a' and 'b'" in leak
    (conflict,) = content_problems([labelled, Clip("c", "/c", Split.LABELLED, label=2, digest="d1")])
    assert "different labels" in conflict
    assert content_problems([Clip("a", "/a", Split.LABELLED, label=1), Clip("b", "/b", Split.TEST)]) == ()  # both unread
