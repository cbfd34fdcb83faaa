from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.media.sandbox import Sandbox
from orchestrator.vocabulary import Clip, DecodedClip, Rejected, Split
from tests.media.films import numbered, write_film


def clip_of(path: Path | str) -> Clip:
    return Clip("clip", str(path), Split.UNLABELLED, digest="d1", hint="h")


def children() -> set[int]:
    """Process ids of this process's children, whichever thread started them."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("films") / "film.mp4")


@pytest.fixture(scope="module")
def slow_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (40, 720, 1280, 3), np.uint8)
    path = tmp_path_factory.mktemp("films") / "slow.mp4"
    return write_film(path, noise, silent=True, options={"crf": "10", "preset": "ultrafast", "threads": "1", "g": "250"})


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(DecodeSettings()) as box:
        yield box


def test_the_sandbox_gives_what_decoding_gives(film: Path, sandbox: Sandbox) -> None:
    inside, outside = sandbox.decode(clip_of(film)), decode(clip_of(film), DecodeSettings())
    assert isinstance(inside, DecodedClip)
    assert np.array_equal(inside.frames, outside.frames)
    assert np.array_equal(inside.waveform, outside.waveform)
    assert np.array_equal(inside.frame_times_s, outside.frame_times_s)
    assert (inside.digest, inside.hint, inside.flags) == (outside.digest, outside.hint, outside.flags)


def test_a_bad_clip_is_a_reason_and_the_next_clip_is_untouched(film: Path, tmp_path: Path, sandbox: Sandbox) -> None:
    before = sandbox.decode(clip_of(film))
    (tmp_path / "text.mp4").write_text("not a film")
    bad = sandbox.decode(clip_of(tmp_path / "text.mp4"))
    after = sandbox.decode(clip_of(film))
    assert isinstance(bad, Rejected)
    assert (bad.clip_id, bad.stage, bad.code) == ("clip", "decode", "BAD_MAGIC")
    assert isinstance(before, DecodedClip)
    assert isinstance(after, DecodedClip)
    assert np.array_equal(before.frames, after.frames)


def test_a_decoder_past_its_time_is_killed_and_the_next_clip_gets_another(film: Path, slow_film: Path) -> None:
    with Sandbox(DecodeSettings(timeout_s=0.25)) as box:
        started = time.monotonic()
        verdict = box.decode(clip_of(slow_film))
        assert isinstance(verdict, Rejected)
        assert verdict.code == "DECODE_TIMEOUT"
        assert time.monotonic() - started < 20
        assert any(isinstance(box.decode(clip_of(film)), DecodedClip) for _ in range(5))  # a busy machine may need another try


def test_a_clip_that_needs_too_much_memory_is_a_reason(tmp_path: Path) -> None:
    large = [np.full((3000, 4000, 3), 90, np.uint8)] * 2
    film = write_film(tmp_path / "large.mp4", large, silent=True, options={"preset": "ultrafast", "threads": "1"})
    with Sandbox(DecodeSettings(max_child_mb=130)) as box:
        verdict = box.decode(clip_of(film))
    assert isinstance(verdict, Rejected)
    assert verdict.code == "DECODE_MEM"


def test_a_child_killed_once_costs_nothing_and_twice_is_a_crash(slow_film: Path) -> None:
    others = children()
    with Sandbox(DecodeSettings()) as box:
        assert isinstance(box.decode(clip_of(slow_film)), DecodedClip)
        for kills, expected in ((1, DecodedClip), (2, Rejected)):
            killer = threading.Thread(target=_kill_children, args=(kills, others))
            killer.start()
            verdict = box.decode(clip_of(slow_film))
            killer.join()
            assert isinstance(verdict, expected)
        assert isinstance(verdict, Rejected)
        assert verdict.code == "DECODER_CRASH"


def _kill_children(count: int, spared: set[int]) -> None:
    killed: set[int] = set()
    while len(killed) < count:
        time.sleep(0.02)
        for pid in children() - killed - spared:
            if b"orchestrator.media.child" in Path(f"/proc/{pid}/cmdline").read_bytes() and len(killed) < count:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)


def test_children_are_small_and_know_neither_torch_nor_ray(film: Path) -> None:
    for decoder in ("pyav", "decord"):
        with Sandbox(DecodeSettings(decoder=decoder)) as box:  # type: ignore[arg-type]
            known = children()
            box.decode(clip_of(film))
            (child,) = children() - known
            memory = [line for line in Path(f"/proc/{child}/status").read_text().splitlines() if line.startswith("VmHWM")]
            maps = Path(f"/proc/{child}/maps").read_text()
        assert int(memory[0].split()[1]) < 150_000, decoder
        assert not any(name in maps for name in ("torch", "/ray/", "nvidia")), decoder


def test_media_can_be_imported_without_torch_and_ray() -> None:
    modules = ["child", "decoding", "digests", "importers", "manifest", "preflight", "reasons", "sampling", "sandbox", "toy"]
    code = f"import sys\nfor name in {modules}: __import__('orchestrator.media.' + name)\n"
    subprocess.run([sys.executable, "-c", code + "assert not {'torch', 'ray'} & set(sys.modules)"], check=True)


def test_children_end_with_their_sandbox(film: Path) -> None:
    known = children()
    box = Sandbox(DecodeSettings())
    box.decode(clip_of(film))
    assert children() - known
    box.close()
    assert not children() - known


def test_a_broken_installation_is_an_error_and_not_a_thousand_rejected_clips(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec is not what PyAV was built for')")
    monkeypatch.syspath_prepend(tmp_path)  # this process has imported the real one already; the child has not
    with pytest.raises(RuntimeError, match=r"(?s)could not be started.*libavcodec is not what"):
        Sandbox(DecodeSettings()).decode(clip_of(film))


def test_a_module_in_the_working_directory_is_not_run(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "av.py").write_text("open('pwned', 'w').close()")
    monkeypatch.chdir(tmp_path)
    with Sandbox(DecodeSettings()) as box:
        assert isinstance(box.decode(clip_of(film)), DecodedClip)
    assert not (tmp_path / "pwned").exists()


def test_threads_may_share_a_sandbox(film: Path, tmp_path: Path, sandbox: Sandbox) -> None:
    other = write_film(tmp_path / "other.mp4", [numbered(7)] * 4, silent=True)
    found: dict[int, DecodedClip | Rejected] = {}

    def work(number: int) -> None:
        found[number] = sandbox.decode(clip_of(other if number % 2 else film))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lengths = [len(clip.waveform) > 0 for _, clip in sorted(found.items()) if isinstance(clip, DecodedClip)]
    assert lengths == [True, False] * 3
