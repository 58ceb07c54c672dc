"""Samples of a row, and what they come to."""
import json, statistics, time

PEERS = ('kafka', 'mm2', 'null')  # whose number stands beside an absolute goal, where it was measured


def out(**fields):
    print(json.dumps(fields), flush=True)


class Row:
    def __init__(self, name, rounds, peer):
        self.name, self.rounds, self.peer = name, rounds, peer
        self.samples, self.missed, self.began, self.goals = {}, 0, time.monotonic(), []

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
        relative = of or of_what
        unit = self.median(of or side, of_what or what, metric) if relative else 1
        line = dict(row=self.name, goal=what, metric=metric)
        if ours:
            line |= {side: statistics.median(ours), 'spread': [min(ours), max(ours)], 'n': len(ours)}
        if relative:
            theirs = self.samples.get((of or side, of_what or what, metric))
            line |= {relative: unit, 'of_spread': [min(theirs), max(theirs)] if theirs else None}
        beside = (relative, unit) if relative else next(
            ((p, self.median(p, what, metric)) for p in PEERS if self.median(p, what, metric) is not None), None)
        wanted = f'<= {most}' if most is not None else f'>= {least}'
        met = value = None
        if ours and unit:  # else that side was not there
            value = statistics.median(ours) / unit
            met = value <= most if most is not None else value >= least
            self.missed += not met
            line |= dict(wanted=wanted, **({'ratio': round(value, 3)} if relative else {}))
        ratio = line[side] / beside[1] if ours and beside and beside[1] else None
        self.goals.append((f'{self.name}: {what}' + ('' if side == 'sundog' else f' ({side})'), metric, beside, line.get(side), ratio,
                           wanted + (' x' if relative else ''), met))
        out(**line, met=met)

    def close(self, error=None):
        out(row=self.name, seconds=round(time.monotonic() - self.began), goals_missed=self.missed,
            **({'error': error} if error else {}))


def number(value):
    if value is None:
        return '-'
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'


def table(rows):
    """What all goals came to, for people."""
    head = ('what', 'metric', 'peer', 'ours', 'ratio', 'goal', '')
    lines = [head]
    for row in rows:
        for what, metric, beside, ours, ratio, wanted, met in row.goals:
            lines.append((what, metric, f'{beside[0]} {number(beside[1])}' if beside and beside[1] is not None else '-', number(ours),
                          number(ratio), wanted, {True: 'met', False: 'MISSED', None: 'not measured'}[met]))
    wide = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print('  '.join(cell.ljust(w) for cell, w in zip(line, wide)).rstrip(), flush=True)
