"""Code in this process whose stdout and stderr are a pseudo-terminal."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading


@contextlib.contextmanager
def terminal(monkeypatch, columns=80, kind="xterm-256color"):
    """Let stdout and stderr be a terminal; hands out a function that returns what was written there."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", kind)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    written = io.BytesIO()

    def read():
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(master, 65536):
                written.write(part)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with (
            os.fdopen(slave, "w") as stream,
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
        ):
            yield lambda: written.getvalue().decode().replace("\r\n", "\n")
    finally:
        reader.join()
        os.close(master)


def plain(text):
    """Return text without colours and the like."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def screen(text):
    """Return the lines that are left on a screen that is long enough."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif part == "\r":
            column = 0
        elif part.endswith("A"):
            row -= int(part[2:-1])
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] != "\x1b":
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]
