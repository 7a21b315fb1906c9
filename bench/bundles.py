"""Bundles made to do harm, of every kind: how many of them are refused as they should be."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # where the bundles are made

from hostile_bundles import measure_hostile_bundles as measure_bundles

__all__ = ["measure_bundles"]

if __name__ == "__main__":
    print(json.dumps(measure_bundles(), indent=1))
