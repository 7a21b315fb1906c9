"""Writing results of the benches; what a run was made with comes from `rcccodec.comparison.provenance`."""

import json
from pathlib import Path
from typing import Any

from rcccodec.comparison.provenance import checkout, describe_run

__all__ = ["RESULTS", "checkout", "describe_run", "write_result"]

RESULTS = Path(__file__).resolve().parent / "results"


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, its folder made if missing; a NaN is a bug of the bench and refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
