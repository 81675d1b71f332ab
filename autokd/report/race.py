"""The race of the finalists as sentences, rows of tables and a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autokd.report.style import AMBER, BLUE, GRAY, GREEN, escape, plain_figure, say_instead
from autokd.report.tables import ABSENT
from autokd.storage import FinalistResult, Race

if TYPE_CHECKING:
    import plotly.graph_objects as go

EXPECTED = (
    "Expected: the reward that is expected with a new seed. The rewards are shrunk to the mean of all trials in "
    "proportion to their noise (normal-normal empirical Bayes); ± is the posterior standard deviation."
)


@dataclass(frozen=True, slots=True)
class FinalistRow:
    """A finalist as text; ``first`` is the reward of its trial."""

    name: str
    first: str
    mean: str
    expected: str
    fate: str
    formula: str
    is_winner: bool


@dataclass(frozen=True, slots=True)
class RoundRow:
    """A round as text."""

    number: int
    seed: int
    entered: str
    leader: str
    fell: str
    noise: str


def race_words(race: Race | None) -> str:
    """Return how the winner of the search was found, and which reward is expected of it."""
    if race is None or not race.finalists:
        return "The finalists of the search have not raced yet."
    best = race.finalists[0]
    if race.in_full:
        return _words_in_full(race)
    words = f"{_count(len(race.finalists), 'finalist')}, {_count(len(race.rounds), 'round')} "
    words += f"({_count(race.trainings, 'proxy training')}): {race.verdict}. "
    words += f"The winner's trial had the reward {best.rewards[0]:+.3f}, which is biased upwards: it was selected by it"
    if len(best.rewards) > 1:
        words += f"; the mean over {len(best.rewards)} seeds is {best.mean:+.3f}"
    if best.expected is None or best.expected_deviation is None:
        return f"{words}. No seed was repeated, so the noise of the reward is not known."
    words += f"; the reward expected with a new seed is {best.expected:+.3f} ± {best.expected_deviation:.3f}."
    noise = next((ended.noise for ended in reversed(race.rounds) if ended.noise is not None), None)
    if noise is not None and race.between is not None:
        words += f" Standard deviations: {noise:.3f} for the noise of a reward, {race.between:.3f} between distillers."
    return words


def _words_in_full(race: Race) -> str:
    best = race.finalists[0]
    words = f"A race of {_count(race.trainings, 'full training')}, {_count(len(race.rounds), 'seed')}, beside none: "
    words += f"{race.verdict}. Rewards are gains over none in val AP with the same seed"
    if best.mean is not None:
        words += f"; the first has {best.mean:+.4f} over {_count(len(best.seeds), 'seed')}"
    if best.expected is not None and best.expected_deviation is not None:
        words += f", {best.expected:+.4f} ± {best.expected_deviation:.4f} expected with a new seed"
    return f"{words}."


def finalist_rows(race: Race | None) -> list[FinalistRow]:
    """Return a row for each finalist, the winner first."""
    if race is None:
        return []
    return [_finalist_row(each, is_winner=i == 0) for i, each in enumerate(race.finalists)]


def round_rows(race: Race | None) -> list[RoundRow]:
    """Return the leader and the eliminated finalists of each round."""
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


def race_figure(race: Race | None, value_meaning: str = "reward") -> go.Figure:
    """Return each finalist's rewards, a dot a seed (that of its trial is open), and the expected one as a diamond."""
    import plotly.graph_objects as go

    if race is None or not race.finalists:
        return say_instead("There are no finalists yet.")
    shown = list(reversed(race.finalists))
    names = [_short(each.digest) for each in shown]
    figure = plain_figure(height=120 + 44 * len(shown))
    for name, each in zip(names, shown, strict=True):
        is_winner = each is race.finalists[0]
        color = GREEN if is_winner else BLUE if each.fell_in is None else GRAY
        figure.add_trace(
            go.Scatter(
                x=list(each.rewards), y=[name] * len(each.rewards), mode="markers", showlegend=False,
                hovertext=[f"{name}, seed {seed}: {r:+.4f}" for seed, r in zip(each.seeds, each.rewards, strict=False)],
                hoverinfo="text",
                marker={"color": color, "size": 9, "opacity": 0.7,
                        "symbol": ["circle-open"] + ["circle"] * (len(each.rewards) - 1)},
            )
        )  # fmt: skip
        if each.expected is not None:
            figure.add_trace(
                go.Scatter(
                    x=[each.expected], y=[name], mode="markers", showlegend=False, hoverinfo="text",
                    hovertext=[f"{name}: {each.expected:+.4f} expected"],
                    error_x={"type": "data", "array": [each.expected_deviation or 0.0], "thickness": 2, "width": 6},
                    marker={"color": color, "size": 13, "symbol": "diamond"},
                )
            )  # fmt: skip
    if race.prior_mean is not None:
        figure.add_vline(
            x=race.prior_mean, line={"color": AMBER, "dash": "dot", "width": 1.5}, annotation_text="mean of all trials"
        )
    figure.update_xaxes(title_text=escape(value_meaning))
    figure.update_yaxes(showgrid=False, type="category", range=[-0.6, len(shown) - 0.35])
    return figure


def _finalist_row(each: FinalistResult, *, is_winner: bool) -> FinalistRow:
    expected = ABSENT if each.expected is None else f"{each.expected:+.3f}"
    if each.expected is not None and each.expected_deviation is not None:
        expected += f" ± {each.expected_deviation:.3f}"
    fate = "never eliminated" if each.fell_in is None else f"eliminated in round {each.fell_in}: {each.reason}"
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
    """Return the first digits of a digest, and those of the promoted student's if one taught too."""
    return "+".join(part[:8] for part in digest.split("+"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
