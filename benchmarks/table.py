"""Print the README's table of results from the committed numbers of the recipes.

python benchmarks/table.py
"""

import json
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "inference" / "recipes"
COLUMNS = ("program", "data", "test result", "published", "protocol", "train, evaluate", "commands")
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"


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


def table() -> str:
    """Return the table in Markdown, a row for every result that is there."""
    rows = []
    for name, about in yaml.safe_load((ROOT / "benchmarks" / "published.yaml").read_text()).items():
        path = RECIPES / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        cells = (
            about["program"],
            about["data"],
            cell(about["metric"], result["test"]),
            about["published"],
            about["protocol"],
        )
        commands = "; ".join(f"`{command}`" for command in result["commands"])
        rows.append(f"| {' | '.join(cells)} | {minutes(result)} | {commands} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(table(), end="")
