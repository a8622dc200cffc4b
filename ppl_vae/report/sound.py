"""Sound [N, T] or [N, C, T]: waveform, spectrogram and a player per row."""

import io
import wave

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.report import plots, tags

MOST = 6
RATE = 16_000
_FRAME = 512


def samples(x, data, summary) -> str:
    """The first samples, each with its picture and a player."""
    rate = _rate(summary)
    shown = enumerate(_mono(x)[:MOST])
    return _rate_note(rate) + "".join(player(row, f"sample {i}", rate[0]) for i, row in shown)


def reconstructions(x, data, summary) -> str:
    """Originals beside their reconstructions."""
    rate, pairs = _rate(summary), zip(_mono(data)[:MOST], _mono(x)[:MOST], strict=False)
    return _rate_note(rate) + "".join(
        tags.side_by_side(player(a, f"original {i}", rate[0]), player(b, f"reconstruction {i}", rate[0]))
        for i, (a, b) in enumerate(pairs)
    )


def player(row: np.ndarray, name: str, rate: int) -> str:
    """One row [T]: waveform above spectrogram, and what it sounds like."""
    figure, (above, below) = plots.axes(2, 1, width=6, height=1.9)
    seconds = len(row) / rate
    above.plot(np.arange(len(row)) / rate, row, linewidth=0.6, color=plots.BLUE)
    plots.label(above, name, y="amplitude")
    below.imshow(
        spectrogram(row), origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, rate / 2000)
    )
    below.grid(False)
    plots.label(below, x="seconds", y="kHz")
    alt = f"Waveform and spectrogram of {name}, {tags.words(seconds)} seconds"
    return f"<div>{tags.picture(plots.png(figure), alt, name)}{tags.audio(wav(row, rate), name)}</div>"


def spectrogram(row: np.ndarray) -> np.ndarray:
    """Level in decibels below the loudest bin, [frequencies, frames], down to -80."""
    frame = min(_FRAME, len(row))
    starts = range(0, len(row) - frame + 1, max(1, frame // 4))
    frames = np.stack([row[start : start + frame] for start in starts]) * np.hanning(frame + 2)[1:-1]
    level = np.abs(np.fft.rfft(frames, axis=1)).T
    return 20 * np.log10(np.maximum(level / max(level.max(), 1e-12), 1e-4))


def wav(row: np.ndarray, rate: int) -> bytes:
    """A mono WAV file of 16 bits; louder than 1 is turned down, never clipped."""
    row = row / max(1.0, float(np.abs(row).max()))
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(row * 32767).astype("<i2").tobytes())
    return out.getvalue()


def _mono(x) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    if x.ndim == 3:
        x = x.mean(1)
    if x.ndim != 2 or x.size == 0:
        raise DataError(f"sound has the shape {x.shape}: give [N, T] or [N, C, T] with at least one row")
    if not np.isfinite(x).all():
        raise DataError("sound holds values that are not finite: look for the step where training diverged")
    return x


def _rate(summary) -> tuple[int, bool]:
    data = summary.get("data")
    known = summary.get("sample_rate") or (data.get("sample_rate") if isinstance(data, dict) else None)
    return (int(known), True) if known else (RATE, False)


def _rate_note(rate: tuple[int, bool]) -> str:
    if rate[1]:
        return ""
    return tags.paragraph(f"The data name no sample_rate; {rate[0]} samples a second are assumed.", note=True)
