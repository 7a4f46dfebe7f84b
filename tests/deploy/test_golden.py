"""What the chart makes with no values set, as a whole: a change to it is to be seen in review.

`pytest tests/deploy/test_golden.py --write-golden` writes it anew.
"""

import re

from chart import Release
from places import ROOT

GOLDEN = ROOT / "tests/deploy/golden"


def text_of(release):
    parts = [f"# {name}\n{text.strip()}\n" for name, text in sorted(release.files.items()) if text.strip("-\n ")]
    text = "\n".join(parts)
    # Made by chance each time.
    return re.sub(r"^  (signing\.key|password): \S+$", r"  \1: (by chance)", text, flags=re.MULTILINE)


def test_default_values(default, request):
    golden = GOLDEN / "default.yaml"
    if request.config.getoption("--write-golden"):
        golden.write_text(text_of(default))
    assert text_of(default) == golden.read_text()


def test_keys_are_by_chance_and_long_enough(default):
    key = default.secret("sluice-signing-key", "signing.key")
    assert len(key) >= 48 and re.fullmatch(rb"[A-Za-z0-9]+", key)
    assert key != Release().secret("sluice-signing-key", "signing.key")
    assert len(set(key)) > 20, key
