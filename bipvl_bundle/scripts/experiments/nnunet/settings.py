"""Settings of a row of a set that is nnU-Net itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.trust.parsing import check_keys

NNUNET: dict[str, type] = {
    "epochs": int,
    "iterations": int,
    "mirror": bool,
    "environment": str,
    "install": bool,
    "device": str,
}
"""As of the command `nnunet`; `install` makes the environment."""
WANTED = {int: "a whole number from 1", bool: "true or false", str: "a text"}


def nnunet_settings(where: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the settings under `nnunet` of an experiment's fields; None where it is not nnU-Net.

    Args:
        where: names the experiment in errors.
        fields: of the experiment; `nnunet` in them may be empty.

    Raises:
        ValueError: a setting that there is not, or of another kind; or the experiment trains nothing.
    """
    if "nnunet" not in fields:
        return None
    given = fields["nnunet"] if fields["nnunet"] is not None else {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: 'nnunet' is {given!r}; expected a mapping with some of {', '.join(NNUNET)}.")
    check_keys(given, known=tuple(NNUNET), where=f"{where}, nnunet")
    for name, value in given.items():
        if type(value) is not NNUNET[name] or (isinstance(value, int) and value < 1 and NNUNET[name] is int):
            raise ValueError(f"{where}, nnunet: {name} is {value!r}; expected {WANTED[NNUNET[name]]}.")
    if fields.get("evaluates") is not None:
        raise ValueError(f"{where}: 'nnunet' trains and 'evaluates' does not; leave one out.")
    return dict(given)
