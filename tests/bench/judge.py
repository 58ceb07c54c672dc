"""Samples of a row, and what they come to."""
import json, statistics, time


def out(**fields):
    print(json.dumps(fields), flush=True)


class Row:
    def __init__(self, name, rounds, peer):
        self.name, self.rounds, self.peer = name, rounds, peer
        self.samples, self.missed, self.began = {}, 0, time.monotonic()

    def add(self, side, what, **metrics):
        """One measurement of `what` at `side`."""
        out(row=self.name, side=side, what=what, **metrics)
        for metric, value in metrics.items():
            self.samples.setdefault((side, what, metric), []).append(value)

    def median(self, side, what, metric):
        values = self.samples.get((side, what, metric))
        return statistics.median(values) if values else None

    def goal(self, what, metric, most=None, least=None, of=None, side='sundog', of_what=None):
        """`most` or `least`: times the median of side `of`, or of `of_what` at the same side; else the number itself."""
        ours = self.samples.get((side, what, metric))
        unit = self.median(of or side, of_what or what, metric) if of or of_what else 1
        line = dict(row=self.name, goal=what, metric=metric)
        if ours:
            line |= {side: statistics.median(ours), 'spread': [min(ours), max(ours)], 'n': len(ours)}
        if of or of_what:
            theirs = self.samples.get((of or side, of_what or what, metric))
            line |= {of or of_what: unit, 'of_spread': [min(theirs), max(theirs)] if theirs else None}
        if not ours or not unit:
            out(**line, met=None)  # that side was not there
            return
        value = statistics.median(ours) / unit
        met = value <= most if most is not None else value >= least
        self.missed += not met
        out(**line, ratio=round(value, 3), wanted=f'<= {most}' if most is not None else f'>= {least}', met=met)

    def close(self):
        out(row=self.name, seconds=round(time.monotonic() - self.began), goals_missed=self.missed)
