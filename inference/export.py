"""Write encoder, decoder or bound of a run as a file that runs without this library.

$ ppl-vae export runs/first encoder.pt2
$ ppl-vae export runs/first decoder.onnx --what decode

A .pt2 is for torch, a .onnx (extra `onnx`) for ONNX Runtime. Both are compared with the run's program on real
rows before they are written.
"""

from ppl_vae.cli import arguments, script


def parser():
    """Return the options."""
    parser = arguments.new(__doc__)
    arguments.run(parser)
    parser.add_argument("file", nargs="?", type=str, default=None, help="FILE.pt2 or FILE.onnx")
    parser.add_argument("--what", type=str, default="encode", help="encode, decode or score")
    parser.add_argument(
        "--split", type=str, default="test", help="the rows to compare on: train, valid or test"
    )
    parser.add_argument(
        "--data", type=str | None, default=None, help="other rows to compare on, or where the run's now lie"
    )
    arguments.offline(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    return parser


def main(options):
    """Write the file and tell what it takes and returns."""
    from ppl_vae.api.exporting import ROWS, export
    from ppl_vae.cli import opened, output
    from ppl_vae.errors import UsageError

    run = opened.run(options)
    if options.file is None:
        raise UsageError("name the file to write, such as encoder.pt2")
    output.refuse(options.file, options.overwrite)
    options["rows"] = ROWS
    rows = opened.rows(run, options)
    return export(run, options.file, options.what, data=rows, overwrite=options.overwrite) | output.about(run)


if __name__ == "__main__":
    script(parser, main)
