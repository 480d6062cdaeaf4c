"""The front door: ``tidewarden COMMAND``. Each command's module is imported only when it runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

# command → (module, function, the line that `tidewarden --help` shows without importing the module)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": (
        "tidewarden_cli.local.command",
        "demo",
        "Replay real incidents and a simulated fleet; open the live page.",
    ),
    "up": ("tidewarden_cli.local.command", "up", "Run the resources of a file in this one process."),
    "run": ("tidewarden_cli.run.command", "run", "Run one room of the pipeline over Kafka, as a pod does."),
    "operator": ("tidewarden_operator.main", "operator", "Turn the resources of a Kubernetes cluster into pods."),
    "score": ("tidewarden_cli.offline.score", "score", "Score a CSV or Parquet file."),
    "evaluate": ("tidewarden_cli.offline.evaluate", "evaluate", "Measure scores against labels."),
    "train": ("tidewarden_cli.training.train", "train", "Train a version of a detector's model on history."),
    "models": ("tidewarden_cli.training.models", "models", "List, compare, promote and roll back trained versions."),
    "generate": ("tidewarden_simulator.generate", "generate", "Write labelled, synthetic metrics to files."),
    "play": ("tidewarden_simulator.playback", "play", "Play a file into a Kafka topic in time order."),
}


class LazyGroup(TyperGroup):
    """A command group that knows its commands by name and imports one only when it is needed.

    Typed with Any: typer brings its own copy of click in some versions and uses the shared one in others.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - typer's signature
        """Names in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - typer's signature
        """Import the command's module and make the command of its function."""
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        run: Any = getattr(import_module(module), function)
        single.command(cmd_name)(run)
        return get_command(single)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer's signature
        """The overview, from the lines above: no command is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Tidewarden watches metrics for the unusual: readings in, calibrated anomalies and few, good alerts out.",
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"tidewarden {version_of('tidewarden')}")
        raise typer.Exit


def main() -> None:
    """Entry point of the ``tidewarden`` program."""
    app()


if __name__ == "__main__":
    main()
