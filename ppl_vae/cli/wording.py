"""How a message of the library is worded on the command line."""

import re
from collections.abc import Collection

# How a message names an option: as Python writes it. Those of a call, `ELBO(beta=...)`, stay.
_OPTION = re.compile(r"(?<!\w\()\b(\w+)=(?:\.\.\.|(True|False)\b|'([^']*)')")


class Command:
    """The command at hand."""

    options: Collection[str] = ()  # their names, as Python writes them


def in_options(text: str) -> str:
    """Return a message that names options as Python writes them (`data=...`, `mask='nan'`, `resume=True`),
    with those that the command at hand has as they are written there.
    """

    def written(found: re.Match[str]) -> str:
        name, truth, value = found.groups()
        if name not in Command.options:
            return found[0]
        option = "--" + name.replace("_", "-")
        return f"{option} false" if truth == "False" else option if value is None else f"{option} {value}"

    return _OPTION.sub(written, text)
