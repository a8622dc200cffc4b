"""Write encode, decode or score as one graph with its weights, for torch or ONNX Runtime alone.

$ ppl-vae export runs/first encoder.pt2
$ ppl-vae export runs/first decoder.onnx --what decode

Before it is written, the graph has to give the run's own numbers for rows of its data.
torch.export.load("encoder.pt2").module() takes the inputs by name, any number of rows.
"""

from argparse import SUPPRESS
from pathlib import Path

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    parser.add_argument("file", nargs="?", type=str, default=SUPPRESS, help="ends in .pt2 or .onnx")
    parser.add_argument("--what", type=str, default="encode", help="encode, decode or score")
    arguments.place(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    return parser


def main(options):
    """Write the graph, and tell its inputs and outputs."""
    from ppl_vae import export
    from ppl_vae.api.exporting import check_export
    from ppl_vae.cli import opened, output
    from ppl_vae.errors import UsageError
    from ppl_vae.store import disk

    if options.get("file") is None:
        raise UsageError("name the run and the file to write: ppl-vae export RUN FILE.pt2")
    disk.refuse_place(options.file, options.overwrite)
    run = opened.run(options)
    check_export(run, Path(options.file), options.what)
    data = opened.data(run, options)
    made = export(run, options.file, options.what, data=data, overwrite=options.overwrite, seed=options.seed)
    return output.about(run) | made


if __name__ == "__main__":
    script(parser, main)
