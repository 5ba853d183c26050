"""What the command line says of a set of labels: statuses, quality with intervals, cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.evaluation.findings import Findings

if TYPE_CHECKING:
    from rich.table import Table

TITLES = {
    "flip_rate": "winner changes with the order",
    "flips_to_slot_a": "... in favour of slot A",
    "slot_bias": "slot bias, log-odds to A",
    "order_gap": "|p1 - p2|",
    "order_correlation": "correlation of both orders",
    "longer_preferred": "longer answer preferred",
    "gold_accuracy_first": "right by the file, first order alone",
    "gold_accuracy_second": "right by the file, second order alone",
    "gold_accuracy": "right by the file, both orders",
}

FORMS = {"slot_bias": "{:+.2f}", "order_correlation": "{:.2f}"}


def label_table(run_dir: Path) -> Table:
    """Counts, measures, cost. ``run_dir`` holds a ``label_quality.json``."""
    from rich.table import Table

    quality = json.loads((run_dir / "label_quality.json").read_text(encoding="utf-8"))
    table = Table("labels", "", "95% interval")
    for status, num in quality["statuses"].items():
        table.add_row(status, f"{num:,}", "")
    quarantined = Findings(run_dir).rows.get("pairs", {}).get("quarantined", 0)
    table.add_row("quarantined rows", f"{quarantined:,}", "")
    for name, title in TITLES.items():
        if name in quality["overall"]:
            table.add_row(title, *_shown(name, quality["overall"][name]))
    for name, value in Findings(run_dir).last("label/cost/").items():
        table.add_row(name.rpartition("/")[2].replace("_", " "), f"{value:,.4g}", "")
    return table


def _shown(name: str, measure: dict[str, Any]) -> tuple[str, str]:
    form = FORMS.get(name, "{:.1%}")
    return form.format(measure["value"]), f"{form.format(measure['low'])} to {form.format(measure['high'])}"
