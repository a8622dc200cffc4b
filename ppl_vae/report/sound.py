"""Sound [N, T] or [N, C, T]: waveform, spectrogram and a player per row."""

import io
import wave

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.report import plots, tags
from ppl_vae.report.contents import Contents, Row

MOST = 4
RATE = 16_000
_FRAME = 512
_SECONDS = 10
_POINTS = 1500
_FRAMES = 400
_NOTE = tags.note(f"{RATE:,} samples a second are assumed; at most {_SECONDS} seconds are played.")


def samples(x, data, about: Contents) -> str:
    """The first samples, each with its picture and a player."""
    shown = (_player(row, f"Sample {i}") for i, row in enumerate(_mono(x)[:MOST]))
    return _NOTE + tags.side_by_side(*shown)


def reconstructions(x, data, about: Contents) -> str:
    """Originals beside their reconstructions."""
    pairs = zip(_mono(data)[:MOST], _mono(x)[:MOST], strict=False)
    shown = (
        shown
        for i, (original, made) in enumerate(pairs)
        for shown in (_player(original, f"Original {i}", plots.DATA), _player(made, f"Reconstruction {i}"))
    )
    return _NOTE + tags.side_by_side(*shown)


def pair(row: Row, about: Contents) -> str:
    """A player of a row and one of its reconstruction."""
    both = (("original", row.original), ("reconstruction", row.reconstruction))
    return "".join(
        tags.audio(wav(_mono(one[None])[0]), f"Row {row.number}, {name}")
        for name, one in both
        if one is not None
    )


def spectrogram(row: np.ndarray) -> np.ndarray:
    """Level in decibels below the loudest bin, [frequencies, frames], down to -80."""
    frame = min(_FRAME, len(row))
    starts = range(0, len(row) - frame + 1, max(1, frame // 4, len(row) // _FRAMES))
    frames = np.stack([row[start : start + frame] for start in starts]) * np.hanning(frame + 2)[1:-1]
    level = np.abs(np.fft.rfft(frames, axis=1)).T
    return 20 * np.log10(np.maximum(level / max(level.max(), 1e-12), 1e-4))


def wav(row: np.ndarray) -> bytes:
    """A mono WAV file of 16 bits of the first seconds; louder than 1 is turned down, never clipped."""
    row = row[: _SECONDS * RATE]
    row = row / max(1.0, float(np.abs(row).max()))
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(row * 32767).astype("<i2").tobytes())
    return out.getvalue()


def _player(row: np.ndarray, name: str, colour: str = plots.MODEL) -> str:
    """One row [T]: waveform above spectrogram, and what it sounds like."""
    seconds, at = len(row) / RATE, plots.spread(len(row), _POINTS)
    figure, ax = plots.axes(width=5.6, height=1.6)
    ax.plot(at / RATE, row[at], linewidth=0.6, color=colour)
    plots.label(ax, y="amplitude")
    shown = plots.svg(figure, f"Waveform of {name}, {tags.words(seconds)} seconds")
    figure, ax = plots.axes(width=5.6, height=1.9)
    extent = (0, seconds, 0, RATE / 2000)
    ax.imshow(spectrogram(row), origin="lower", aspect="auto", cmap="magma", extent=extent)
    ax.grid(False)
    plots.label(ax, "seconds", "kHz")
    shown += plots.svg(figure, f"Spectrogram of {name}")
    return tags.figure(shown + tags.audio(wav(row), name), name)


def _mono(x) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 3:
        x = x.mean(1)
    if x.ndim != 2 or x.size == 0:
        raise DataError(f"sound has the shape {x.shape}: give [N, T] or [N, C, T] with at least one row")
    if np.isinf(x).any() or np.isnan(x).all(1).any():
        raise DataError("sound holds values that are not finite: look for the step where training diverged")
    return np.nan_to_num(x)
