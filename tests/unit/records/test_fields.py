"""JSON from outside, and its members: whatever it says, the answer is a value or one kind of error."""

from __future__ import annotations

import pytest

from rootless.errors import InvalidInput
from rootless.records.fields import Fields, parse_json


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "", "{", b"\xff\xfe{", "9" * 100_000])
def test_what_is_no_json_is_one_kind_of_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1" + "0" * 400, "18446744073709551616"])
def test_numbers_that_no_call_takes_are_refused(number: str) -> None:
    fields = Fields(parse_json(f'{{"n": {number}}}'), "f")
    with pytest.raises(InvalidInput, match="'n' in 'f' is not a number"):
        fields.number("n")
    with pytest.raises(InvalidInput, match="'n' in 'f' is not a whole number"):
        fields.integer("n")
