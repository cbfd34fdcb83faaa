"""The hostile corpus, an item a test: `make test` runs it by the default decoder, `make corpus` by decord as well."""

from __future__ import annotations

from collections.abc import Iterator

import av
import pytest

from orchestrator.media.decoding import DecodeSettings, decode
from orchestrator.media.sandbox import Sandbox
from orchestrator.vocabulary import Clip, DecodedClip, Split
from tests.media.hostile_corpus import LIMITS, Film, Place, Table, complaint, place, verdict
from tests.media.hostile_films import FILMS
from tests.media.hostile_tables import TABLES


@pytest.fixture(scope="module")
def where() -> Iterator[Place]:
    av.logging.set_level(None)
    with place() as found:
        yield found


@pytest.fixture(scope="module")
def pyav(where: Place) -> Iterator[Sandbox]:
    with Sandbox(DecodeSettings(decoder="pyav", **LIMITS), where.root) as box:
        yield box


@pytest.fixture(scope="module")
def decord(where: Place) -> Iterator[Sandbox]:
    with Sandbox(DecodeSettings(decoder="decord", **LIMITS), where.root) as box:
        yield box


def test_the_corpus_has_two_hundred_items_and_no_name_twice() -> None:
    names = [item.name for item in (*FILMS, *TABLES)]
    assert len(names) == len(set(names)) >= 200


@pytest.mark.parametrize("film", [pytest.param(film, id=film.name) for film in FILMS])
def test_a_film_comes_out_as_it_must(film: Film, pyav: Sandbox, where: Place) -> None:
    assert verdict(film, pyav, where) is None


def test_a_good_film_is_decoded_after_all_of_them_as_before_them(pyav: Sandbox, where: Place) -> None:
    path = where.root / "good.mp4"
    path.write_bytes(where.films["mp4"])
    clip = Clip("good", str(path), Split.UNLABELLED)
    after, before = pyav.decode(clip), decode(clip, DecodeSettings())
    assert isinstance(after, DecodedClip)
    assert after.frames.tobytes() == before.frames.tobytes()
    assert after.waveform.tobytes() == before.waveform.tobytes()


# decord shows the neighbours of damaged pictures and says nothing: class E is not asked of it
@pytest.mark.corpus
@pytest.mark.parametrize("film", [pytest.param(film, id=film.name) for film in FILMS if not film.name.startswith("E")])
def test_and_so_it_does_by_decord(film: Film, decord: Sandbox, where: Place) -> None:
    assert verdict(film, decord, where) is None


@pytest.mark.parametrize("table", [pytest.param(table, id=table.name) for table in TABLES])
def test_a_manifest_is_read_or_refused_as_it_must(table: Table, where: Place) -> None:
    assert complaint(table, where) is None
