"""What a linear probe gets out of each representation: one table for all models of a comparison."""

from typing import TYPE_CHECKING, Any

from zoo.cli.report import probe_accuracies

if TYPE_CHECKING:
    from zoo.data import Dataset

DIRECTIONS = 10
"""Of the principal components that stand beside the models: as many as most codes are long."""


def probe_table(rows: list[dict[str, Any]], dataset: "Dataset") -> list[dict[str, Any]]:
    """Test accuracy of a logistic regression on each model's features, best first.

    Beside the models stand the raw entries, and the codes of a PPCA. As a density it has no business among
    binary pixels, and so it is fitted here for its features alone.

    Args:
        rows: As in ``comparison.json``; those without a probe are passed over.
        dataset: What was compared on.

    Returns:
        For each representation ``name``, ``accuracy`` and its ``standard_error`` over the test items; nothing
        where no row has a probe.
    """
    accuracies = {row["name"]: row["probe"]["features"] for row in rows if row.get("probe")}
    if not accuracies:
        return []
    if "ppca" not in accuracies and len(dataset.event_shape) > 1:
        accuracies[f"ppca, {DIRECTIONS} directions"] = _of_principal_components(dataset)
    accuracies["raw entries"] = next(row["probe"]["raw"] for row in rows if row.get("probe"))
    items = len(dataset.test)
    return [
        {"name": name, "accuracy": share, "standard_error": (share * (1 - share) / items) ** 0.5}
        for name, share in sorted(accuracies.items(), key=lambda entry: -entry[1])
    ]


def _of_principal_components(dataset: "Dataset") -> float:
    from zoo.latent import PPCA

    ppca = PPCA(tuple(dataset.event_shape), latent_dim=DIRECTIONS)
    ppca.closed_form(dataset.train.x)
    return probe_accuracies(lambda x: ppca.features(x.float()), dataset)["features"]
