"""Every option of a resumed run is refused, or taken and said, or has no part in the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.training.resuming import TAKEN, UNSAID, WORDS, require_same_settings

THEN = {"amp": "false", "learning_rate": "0.002", "amp_kwargs#dtype": '"$torch.bfloat16"', WORDS: '"abc"'}


def test_same_settings_pass_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    require_same_settings(THEN, dict(THEN), Path("last.pt"))
    assert not caplog.messages


def test_what_is_taken_anew_is_said(caplog: pytest.LogCaptureFixture) -> None:
    require_same_settings(THEN, {**THEN, "amp": "true", "amp_kwargs#dtype": '"$torch.float16"'}, Path("last.pt"))
    said = 'amp = false, now true, amp_kwargs#dtype = "$torch.bfloat16", now "$torch.float16".'
    assert caplog.messages == [f"The rest of the run has {said}"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": "0.001"}, "learning_rate = 0.002, now 0.001"),
        ({"amp": "true", "learning_rate": "0.001"}, "with learning_rate = 0.002, now 0.001. A run"),
        ({WORDS: '"def"'}, 'the words\' digest = "abc", now "def"'),
        ({"further": "1"}, "further = nothing, now 1"),
    ],
)
def test_anything_else_is_refused(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_same_settings(THEN, {**THEN, **changed}, Path("last.pt"))


def test_state_that_does_not_tell_what_is_taken_or_the_words_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    require_same_settings({"learning_rate": "0.002"}, THEN, Path("last.pt"))
    assert not caplog.messages


def test_start_is_not_taken_anew_without_effect() -> None:
    """The weights of a resumed run are those of its state, whatever it was to start from."""
    assert "start_from" not in {*TAKEN, *UNSAID}
