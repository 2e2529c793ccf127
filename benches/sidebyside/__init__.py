"""The parts of `benches/compare`."""

import sys

REFERENCE = "bare"  # ratios are against this proxy in the same round


class Failure(Exception):
    """The comparison cannot be made, or is not worth anything."""


def note(text):
    print(text, file=sys.stderr, flush=True)
