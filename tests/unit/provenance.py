"""What records in tests have in common: where they come from, and how they were made."""

from rlaif.records import Status

PROVENANCE = {
    "source_file": "f",
    "source_row": 1,
    "status": Status.OK,
    "error": None,
    "seconds": 0.0,
    "seed": 0,
    "model_version": "m",
}
