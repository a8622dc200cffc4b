"""The tables of results, from the committed numbers of the recipes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "inference" / "recipes"


def cell(metric: str, test: dict) -> str:
    """Return the measured numbers of a row, with their unit and standard error."""
    if metric == "mse_over_variance":
        use = f"perplexity {test['perplexity_per_batch']:.0f}, {test['usage']:.0%} of codes in use"
        return f"**{test[metric]:.3f}** of the variance; {use}"
    error = f"± {test['iw_stderr']:.2f} nats (IW-{test['k']})"
    if metric == "iw_nats":
        return f"**{-test['iw_nats']:.2f}** {error}; ELBO {-test['elbo_nats']:.2f}"
    return f"**{test['bits_per_dim']:.3f}** bits/dim; {-test['iw_nats']:.2f} {error}"


def minutes(result: dict) -> str:
    """Return the minutes that training and evaluation took."""
    return f"{result['train']['seconds'] / 60:.0f} + {result['test']['seconds'] / 60:.0f} min"


def found() -> Iterator[tuple[dict, dict]]:
    """Yield what was published beside every result that is there."""
    for name, about in yaml.safe_load((ROOT / "benchmarks" / "published.yaml").read_text()).items():
        path = RECIPES / f"{name}.json"
        if path.exists():
            yield about, json.loads(path.read_text())


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table() -> str:
    """Return the whole table, a row for every result."""
    return markdown(
        ("program", "data", "test result", "published", "protocol", "train, evaluate", "commands"),
        (
            (
                about["program"],
                about["data"],
                cell(about["metric"], result["test"]),
                about["published"],
                about["protocol"],
                minutes(result),
                "; ".join(f"`{command}`" for command in result["commands"]),
            )
            for about, result in found()
        ),
    )


def short() -> str:
    """Return the README's table: what was measured beside what was published."""
    return markdown(
        ("program", "data", "on test rows", "published"),
        (
            (
                about["program"],
                about["data"].partition(",")[0],
                cell(about["metric"], result["test"]).partition(";")[0],
                about["published"].partition(" (")[0],
            )
            for about, result in found()
            if about.get("first", True)
        ),
    )
