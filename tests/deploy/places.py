"""Where things are, and the programs that the tests ask."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/sluice"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
GATEWAY = TARGET / "debug/sluice-gateway"
SLUICE = TARGET / "debug/sluice"


def clean_environment(**more):
    """The environment without what the programs take for settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")} | more


def gateway_says(*arguments):
    """What the built gateway prints; it must be built before."""
    return subprocess.run(
        [GATEWAY, *arguments], env=clean_environment(), check=True, capture_output=True, text=True, timeout=20
    ).stdout
