"""``zoo list``: the models and data sets there are."""


def list_models() -> None:
    """List the models, their recipes, and the data sets."""
    from rich.console import Console

    from zoo.cli.report import plain_table
    from zoo.data import DESCRIPTIONS
    from zoo.flows.flow import Flow
    from zoo.registry import MODELS, model_class

    models = plain_table("model", "what it is", "density", "recipes for")
    for name in MODELS:
        cls = model_class(name)
        summary = (cls.__doc__ or "").strip().splitlines()[0]
        density = "exact, or a bound on levels" if issubclass(cls, Flow) else cls.density
        models.add_row(name, summary, density, ", ".join(cls.recipes))
    data = plain_table("data", "what it is")
    models.columns[0].no_wrap = data.columns[0].no_wrap = True  # names are to be copied
    for name, description in DESCRIPTIONS.items():
        data.add_row(name, description)

    console = Console(highlight=False)
    console.print(models, data)
    console.print("Train one: zoo train MODEL --data DATA")
