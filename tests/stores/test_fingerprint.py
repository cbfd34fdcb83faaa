"""Equal content has one name; whatever can change a result changes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.stores.fingerprint import array_digest, file_digest, fingerprint, identity_of, tree_digest

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON))
def test_the_order_of_keys_does_not_matter(told: dict[str, object]) -> None:
    backwards = dict(reversed(told.items()))
    assert fingerprint(told) == fingerprint(backwards)  # type: ignore[arg-type]


def test_a_fingerprint_stays_the_same_between_versions() -> None:
    canonical = b'["features",{"dropout":0.1,"names":["a","\\u00e9"],"rate_hz":16000},null,true]'
    expected = hashlib.sha256(canonical).hexdigest()[:16]
    assert fingerprint("features", {"rate_hz": 16000, "dropout": 0.1, "names": ("a", "é")}, None, True) == expected


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, "1"), (True, 1), (None, ""), ([], {}), ([1, [2]], [1, 2]), (0.1 + 0.2, 0.3), ("a", ["a"])]
)
def test_what_differs_has_another_name(one: object, other: object) -> None:
    assert fingerprint(one) != fingerprint(other)  # type: ignore[arg-type]


def test_parts_are_not_run_together() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_tuples_count_as_lists() -> None:
    assert fingerprint((1, (2, 3))) == fingerprint([1, [2, 3]])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
def test_a_number_that_is_not_finite_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        fingerprint(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [Path("a"), b"a", {1: "a"}, {"a": {2, 3}}, np.zeros(2), object()])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        fingerprint(value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Inner:
    rate: float


@dataclass(frozen=True)
class One:
    inner: Inner
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Two:
    inner: Inner
    names: tuple[str, ...] = ()


def test_settings_differ_by_class_and_by_nested_value() -> None:
    names = [fingerprint(identity_of(it)) for it in (One(Inner(0.1)), One(Inner(0.2)), Two(Inner(0.1)))]
    assert len(set(names)) == 3
    assert fingerprint(identity_of(One(Inner(0.1), ("a",)))) == fingerprint(identity_of(One(Inner(0.1), ("a",))))


def test_a_tree_is_its_names_and_bytes(tmp_path: Path) -> None:
    for directory, name in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / directory / "deep").mkdir(parents=True)
        (tmp_path / directory / "deep" / name).write_bytes(b"1")
    digests = [tree_digest(tmp_path / directory) for directory in "abc"]
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "b" / "deep" / "x").write_bytes(b"2")
    assert tree_digest(tmp_path / "b") != digests[0]
    with pytest.raises(NotADirectoryError):
        tree_digest(tmp_path / "absent")


def test_a_file_is_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_digest(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_an_array_is_its_type_shape_and_bytes() -> None:
    rows = np.arange(6, dtype=np.float32)
    digests = [array_digest(rows), array_digest(rows.reshape(2, 3)), array_digest(rows.reshape(3, 2))]
    digests += [array_digest(rows.astype(np.float64)), array_digest(rows.reshape(3, 2).T.copy())]
    assert len(set(digests)) == 5
    assert array_digest(rows.reshape(2, 3)[:, ::-1]) == array_digest(rows.reshape(2, 3)[:, ::-1].copy())
