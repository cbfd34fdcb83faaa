"""Modality dropout: how much is hidden, and that something always stays."""

import pytest
import torch

from orchestrator.models.modality_dropout import ModalityDropout

STREAMS = ("audio", "video", "text")


def everything(clips: int = 4000, streams: int = 3) -> torch.Tensor:
    return torch.ones(clips, streams, dtype=torch.bool)


def keep(dropout: ModalityDropout, present: torch.Tensor, streams: tuple[str, ...] = STREAMS, members: int = 5) -> torch.Tensor:
    torch.manual_seed(0)
    return dropout.keep(present, streams, members)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_independent_keeps_each_of_three_modalities_as_often_as_the_formula_says(rate: float) -> None:
    share = keep(ModalityDropout("independent", rate), everything()).float().mean(dim=(0, 1))
    assert share == pytest.approx([1 - rate + rate**3 / 3] * 3, abs=0.015)


def test_rates_by_modality_hide_only_what_they_name() -> None:
    share = keep(ModalityDropout("independent", {"text": 0.4}), everything()).float().mean(dim=(0, 1))
    assert share == pytest.approx([1.0, 1.0, 0.6], abs=0.015)


def test_one_of_hides_at_most_one_modality_at_the_given_rate() -> None:
    hidden = (~keep(ModalityDropout("one_of", 0.3), everything())).sum(dim=-1)
    assert hidden.max() == 1
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.015)


@pytest.mark.parametrize("mode", ["independent", "one_of"])
def test_no_clip_ever_loses_all_it_has(mode: str) -> None:
    present = torch.tensor([[True, False, False], [False, True, True], [True, True, True]]).repeat(300, 1)
    kept = keep(ModalityDropout(mode, 1.0), present)  # type: ignore[arg-type]
    assert kept.any(dim=-1).all()
    assert not (kept & ~present).any()


def test_a_clip_without_any_modality_stays_without() -> None:
    assert not keep(ModalityDropout(rate=0.5), torch.zeros(50, 3, dtype=torch.bool)).any()


def test_streams_of_one_modality_fall_together() -> None:
    kept = keep(ModalityDropout(rate=0.5), everything(), ("audio", "audio.whisper", "video"))
    assert torch.equal(kept[..., 0], kept[..., 1])
    assert not torch.equal(kept[..., 0], kept[..., 2])


def test_each_member_draws_its_own() -> None:
    kept = keep(ModalityDropout(rate=0.5), everything(100))
    assert not torch.equal(kept[0], kept[1])


def test_rate_zero_hides_nothing() -> None:
    assert keep(ModalityDropout(rate=0.0), everything()).all()


@pytest.mark.parametrize(
    ("mode", "rate", "complaint"),
    [
        ("all", 0.2, "mode"),
        ("independent", 1.2, "rate"),
        ("independent", {"smell": 0.1}, "smell"),
        ("one_of", {"audio": 0.7, "text": 0.6}, "adds up"),
    ],
)
def test_wrong_settings_are_refused(mode: str, rate: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ModalityDropout(mode, rate)  # type: ignore[arg-type]
