"""Texts on the command line: drawn and continued, and what a character of them costs."""

from typing import TYPE_CHECKING, Any

from zoo.cli.errors import UsageFault

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from zoo.data import Dataset
    from zoo.model import GenerativeModel

TEXTS = ("names", "shakespeare")
"""Data sets whose entries stand for characters."""

LENGTH = 1000
"""Characters of a text that is drawn, where nobody says how many."""

JUDGED = 1000
"""Drawn names of which the figures say how many occur in training."""

ORDERS = {"unigram": 1, "bigram": 2, "5-gram": 5}
"""Counts that stand beside the model's figure."""


def refuse_text_options(prefix: str | None, length: int | None, data: str) -> None:
    """Refuses, for a run on images or vectors, what only a text can be asked for.

    Raises:
        UsageFault: If one of the two was asked for.
    """
    for name, asked in (("prefix", prefix), ("length", length)):
        if asked is not None:
            raise UsageFault(
                f"--{name} expects a run on one of {', '.join(TEXTS)}, and this is one on {data}"
            )


def refuse_other_texts(before: dict[str, Any], dataset: "Dataset", where: "Path") -> None:
    """Refuses to evaluate a run on other texts than it was trained on: some it may have learnt from.

    Raises:
        UsageFault: If the run's figures say that it learnt from more characters, or from fewer.
    """
    if dataset.alphabet is None or "characters" not in before:
        return
    learnt, there = before["characters"]["training"], _length(dataset.train)
    if learnt != there:
        raise UsageFault(
            f"{where} learnt from {learnt:,} characters of {dataset.name}, and here are {there:,}: set "
            "ZOO_DATA_DIR as it was in the training"
        )


def write(
    run: "Path", num: int | None, *, prefix: str | None, length: int | None, seed: int, out: "Path | None"
) -> None:
    """Draws texts from a run, prints them, and writes them to a file where there is one.

    Args:
        run: The run folder.
        num: How many; None is 1 text, or 20 names.
        prefix: What they go on from.
        length: Characters of each after the prefix; None is 1,000, or a whole name.
        seed: Seed of the draw.
        out: A file that ends in ``.txt`` or in ``.npy``.

    Raises:
        UsageFault: If the file is no such, or the model does not write.
    """
    if out is not None and (out.suffix not in (".txt", ".npy") or out.is_dir()):
        raise UsageFault(f"--out expects a file that ends in .txt or .npy for a text, got {out}")

    import torch

    from inference.checkpoint import write_atomically
    from zoo.cli.pictures import to_npy
    from zoo.cli.report import counted, say
    from zoo.cli.run_folder import RunFolder
    from zoo.data import load

    folder = RunFolder(run)
    dataset, model = load(folder.config()["data"]), folder.load_model()
    if out is not None and not out.parent.is_dir():
        raise UsageFault(f"--out expects a file in a folder that is there, got {out}")
    begun = dataset.encode(prefix or "")
    if _ends(model):
        items = names_drawn(model, num or 20, begun, length, seed)
        names = [name_of(item, dataset) for item in items]
        known = known_names(dataset)
        text = "".join(f"{name}{_place(name, known)}\n" for name in names)
        note = _share_in_training(names, known)
    else:
        drawn = model.generate(num or 1, length or LENGTH, prefix=begun, seed=seed)
        items = torch.cat([begun.expand(len(drawn), -1), drawn], -1)
        text = f"\n{'-' * 20}\n".join(map(dataset.decode, items)) + "\n"
        note = ""
    if out is None:
        print(text, end="", flush=True)
    else:
        write_atomically(out, text.encode() if out.suffix == ".txt" else to_npy(items))
        say(f"wrote {counted(len(items), 'name' if _ends(model) else 'text')} to {out}")
    if note:
        say(note)


def sample_text(model: "GenerativeModel", dataset: "Dataset") -> str:
    """What a run folder shows of a model of texts: some names, or a text drawn from its beginning."""
    if _ends(model):
        known = known_names(dataset)
        names = [name_of(item, dataset) for item in model.sample(100, seed=0)]
        return "".join(f"{name}{_place(name, known)}\n" for name in names)
    return dataset.decode(model.generate(1, 2 * LENGTH, seed=0)[0]) + "\n"


def character_figures(model: Any, dataset: "Dataset") -> dict[str, Any]:
    """What a character of the test part costs, in nats: by the model, and by counts of the characters before.

    Of texts, every character counts, and the model reads each from its beginning. Of names, the end symbol
    counts once.
    """
    from zoo.data.ngrams import NGrams

    if not hasattr(dataset.test, "sequences"):
        end = dataset.encode("\n").item()
        train, valid, test = (_one_after_the_other(part, end) for part in _parts(dataset))
        size = len(test[0])
        nats = -model.log_prob(dataset.test.x).detach().double().sum().item() / size
    else:
        train, valid, test = (part.sequences for part in _parts(dataset))
        size = sum(map(len, test))
        nats = -sum(model.log_prob_of(text).double().sum().item() for text in test) / size
    ngrams = NGrams(train, valid, len(dataset.alphabet), max(ORDERS.values()))
    by_counts = ngrams.nats_per_symbol(test)
    return {
        "nats_per_character": nats,
        **{name: by_counts[order - 1] for name, order in ORDERS.items()},
        "characters": size,
        "training": _length(dataset.train),
    }


def drawn_figures(model: Any, dataset: "Dataset", seed: int) -> dict[str, Any]:
    """How many drawn names occur in training, and how many among those held out."""
    items = model.sample(JUDGED, seed=seed)
    known = known_names(dataset)
    places = [known.get(name_of(item, dataset)) for item in items]
    return {
        "names": JUDGED,
        "in_training": places.count("training") / JUDGED,
        "held_out": places.count("held out") / JUDGED,
    }


def text_figures(model: Any, dataset: "Dataset", seed: int) -> dict[str, Any]:
    """Everything that ``metrics.json`` holds of a model of texts alone."""
    figures = {"characters": character_figures(model, dataset)}
    return figures | ({"drawn": drawn_figures(model, dataset, seed)} if _ends(model) else {})


def text_rows(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The same as rows of the printed table: what, how much, how."""
    of = metrics["characters"]
    rows = [
        (
            "-log p, nats per character",
            f"{of['nats_per_character']:.3f}",
            f"of {of['characters']:,} test characters, each after all before it in its text",
        ),
        *(
            (
                f"the same by {name}s",
                f"{of[name]:.3f}",
                f"counts of {of['training']:,} characters, interpolated and discounted",
            )
            for name in ORDERS
        ),
    ]
    if "drawn" in metrics:
        drawn = metrics["drawn"]
        rows.append(
            (
                "drawn names, in training",
                f"{drawn['in_training']:.1%}",
                f"of {drawn['names']:,}; {drawn['held_out']:.1%} are held-out names, the others are new",
            )
        )
    return rows


def names_drawn(model: Any, num: int, begun: "Tensor", length: int | None, seed: int) -> "Tensor":
    """Whole items ``(num, T)`` of a model whose items end, drawn after what they begin with."""
    import torch

    room = model.num_variables - len(begun)
    if room < 1:
        raise UsageFault(
            f"--prefix expects fewer characters than the context, {model.num_variables}, got {len(begun)}"
        )
    drawn = model.generate(num, room if length is None else length, prefix=begun, seed=seed)
    return torch.cat([begun.expand(num, -1), drawn], -1)


def name_of(item: "Tensor", dataset: "Dataset") -> str:
    """A name without the symbols that end it."""
    return dataset.decode(item).partition("\n")[0]


def known_names(dataset: "Dataset") -> dict[str, str]:
    """The names of the data set, and where each is: ``"training"`` or ``"held out"``."""
    train, *held_out = _parts(dataset)
    known = {name_of(item, dataset): "held out" for part in held_out for item in part.x}
    return known | {name_of(item, dataset): "training" for item in train.x}


def _place(name: str, known: dict[str, str]) -> str:
    return (
        f"  (in {known[name]})"
        if known.get(name) == "training"
        else ("  (held out)" if name in known else "")
    )


def _share_in_training(names: list[str], known: dict[str, str]) -> str:
    places = [known.get(name) for name in names]
    return (
        f"{places.count('training')} of {len(names)} occur in training, {places.count('held out')} among the "
        f"names held out, {places.count(None)} in neither"
    )


def _ends(model: Any) -> bool:
    return getattr(model, "end", None) is not None


def _parts(dataset: "Dataset") -> tuple[Any, Any, Any]:
    return dataset.train, dataset.valid, dataset.test


def _one_after_the_other(part: Any, end: int) -> "list[Tensor]":
    """Items that end as one sequence, an end symbol after each."""
    x = part.x
    return [x[((x == end).cumsum(-1) <= 1)]]


def _length(part: Any) -> int:
    """Characters of a part."""
    if hasattr(part, "sequences"):
        return sum(map(len, part.sequences))
    return int((part.x != 0).sum()) + len(part)
