"""The race of the finalists, in words, rows and a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autokd.report.style import AMBER, BLUE, GREEN, GREY, escape, plain_figure, say_instead
from autokd.report.tables import ABSENT
from autokd.report.view import FinalistView, RaceView

if TYPE_CHECKING:
    import plotly.graph_objects as go

EXPECTED = (
    "Expected: what a further seed is expected to give, the rewards shrunken to the mean of all trials by what is "
    "noise in them (normal-normal empirical Bayes), ± the posterior's standard deviation."
)


@dataclass(frozen=True, slots=True)
class FinalistRow:
    """A finalist as words; ``first`` is the reward that made it one."""

    name: str
    first: str
    mean: str
    expected: str
    fate: str
    formula: str
    is_winner: bool


@dataclass(frozen=True, slots=True)
class RoundRow:
    number: int
    seed: int
    entered: str
    leader: str
    fell: str
    noise: str


def race_words(race: RaceView | None) -> str:
    """Return how the winner of the search was found, and what it is worth beside its luckiest run."""
    if race is None or not race.finalists:
        return "The finalists of the search have not been tried again yet."
    best = race.finalists[0]
    words = f"{_count(len(race.finalists), 'finalist')}, {_count(len(race.rounds), 'round')} "
    words += f"({_count(race.trainings, 'proxy training')}): {race.verdict}. "
    words += f"The winner's trial gave {best.rewards[0]:+.3f}, a lucky number, as it was chosen for it"
    if len(best.rewards) > 1:
        words += f"; its mean over {len(best.rewards)} seeds is {best.mean:+.3f}"
    if best.expected is None or best.deviation is None:
        return f"{words}. No seed was repeated, so that nothing is known of its noise."
    words += f"; {best.expected:+.3f} ± {best.deviation:.3f} is to be expected of a further one."
    noise = next((ended.noise for ended in reversed(race.rounds) if ended.noise is not None), None)
    if noise is not None and race.between is not None:
        words += f" A reward's noise (standard deviation) is {noise:.3f}, distillers differ by {race.between:.3f}."
    return words


def finalist_rows(race: RaceView | None) -> list[FinalistRow]:
    """Return a row for each finalist, the winner first."""
    if race is None:
        return []
    return [_finalist_row(each, is_winner=i == 0) for i, each in enumerate(race.finalists)]


def round_rows(race: RaceView | None) -> list[RoundRow]:
    """Return who led and who fell, round by round."""
    if race is None:
        return []
    return [
        RoundRow(
            number=number,
            seed=ended.seed,
            entered=str(len(ended.entered)),
            leader=_short(ended.leader) if ended.leader else ABSENT,
            fell=", ".join(map(_short, ended.fell)) or ABSENT,
            noise=ABSENT if ended.noise is None else f"{ended.noise:.3f} ({ended.freedom} df)",
        )
        for number, ended in enumerate(race.rounds, 1)
    ]


def race_figure(race: RaceView | None, value_meaning: str = "reward") -> go.Figure:
    """Return each finalist's rewards, a dot a seed (that of its trial open), and its expectation as a diamond."""
    import plotly.graph_objects as go

    if race is None or not race.finalists:
        return say_instead("There are no finalists yet.")
    shown = list(reversed(race.finalists))
    names = [_short(each.digest) for each in shown]
    figure = plain_figure(height=120 + 44 * len(shown))
    for name, each in zip(names, shown, strict=True):
        is_winner = each is race.finalists[0]
        colour = GREEN if is_winner else BLUE if each.fell_in is None else GREY
        figure.add_trace(
            go.Scatter(
                x=list(each.rewards), y=[name] * len(each.rewards), mode="markers", showlegend=False,
                hovertext=[f"{name}, seed {seed}: {r:+.4f}" for seed, r in zip(each.seeds, each.rewards, strict=False)],
                hoverinfo="text",
                marker={"color": colour, "size": 9, "opacity": 0.7,
                        "symbol": ["circle-open"] + ["circle"] * (len(each.rewards) - 1)},
            )
        )  # fmt: skip
        if each.expected is not None:
            figure.add_trace(
                go.Scatter(
                    x=[each.expected], y=[name], mode="markers", showlegend=False, hoverinfo="text",
                    hovertext=[f"{name}: {each.expected:+.4f} expected"],
                    error_x={"type": "data", "array": [each.deviation or 0.0], "thickness": 2, "width": 6},
                    marker={"color": colour, "size": 13, "symbol": "diamond"},
                )
            )  # fmt: skip
    if race.prior_mean is not None:
        figure.add_vline(
            x=race.prior_mean, line={"color": AMBER, "dash": "dot", "width": 1.5}, annotation_text="mean of all trials"
        )
    figure.update_xaxes(title_text=escape(value_meaning))
    figure.update_yaxes(showgrid=False, type="category", range=[-0.6, len(shown) - 0.35])
    return figure


def _finalist_row(each: FinalistView, *, is_winner: bool) -> FinalistRow:
    expected = ABSENT if each.expected is None else f"{each.expected:+.3f}"
    if each.expected is not None and each.deviation is not None:
        expected += f" ± {each.deviation:.3f}"
    fate = "stood to the end" if each.fell_in is None else f"fell in round {each.fell_in}: {each.reason}"
    if each.full_val_ap is not None:
        fate += f"; trained in full: val AP {each.full_val_ap:.4f}"
    return FinalistRow(
        name=_short(each.digest),
        first=f"{each.rewards[0]:+.3f}" if each.rewards else ABSENT,
        mean=ABSENT if each.mean is None else f"{each.mean:+.3f} ({_count(len(each.rewards), 'seed')})",
        expected=expected,
        fate=fate,
        formula=each.formula,
        is_winner=is_winner,
    )


def _short(digest: str) -> str:
    """The first of a digest's digits, of both where a promoted student taught too."""
    return "+".join(part[:8] for part in digest.split("+"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
