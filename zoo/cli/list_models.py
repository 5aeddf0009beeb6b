"""``zoo list``: the models and data sets there are."""


def list_models() -> None:
    """List the models, the data sets, and which recipes there are."""
    from rich.console import Console
    from rich.table import Table

    from zoo.data import DESCRIPTIONS
    from zoo.registry import MODELS, model_class

    console = Console()
    models = Table("model", "what it is", "density", "recipes for", title="Models", title_justify="left")
    for name in MODELS:
        cls = model_class(name)
        summary = (cls.__doc__ or "").strip().splitlines()[0]
        models.add_row(name, summary, cls.density, ", ".join(cls.recipes))
    console.print(models)

    data = Table("data", "what it is", title="Data sets", title_justify="left")
    for name, description in DESCRIPTIONS.items():
        data.add_row(name, description)
    console.print(data)
    console.print("Train one: zoo train MODEL --data DATA", highlight=False)
