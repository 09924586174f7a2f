"""A plain model of the breakers, written from their description alone: one dict per breaker, one loop per second."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

SECOND = 1_000_000


class Model:
    """Shares no code with the machine: the test statistic is exact, timers are found by looking at every breaker."""

    def __init__(self, params: Any) -> None:
        self.p = params
        self.rows: dict[str, dict[str, Any]] = {}

    def trip(self, key: str, now: int, p0: float) -> bool:
        row = self.rows.get(key)
        if row and row["state"] != "CLOSED":
            return False
        flapping = row is not None and now < row["calm"]
        doubled = row["doubled"] + 1 if row and flapping else 0
        self.rows[key] = {
            "state": "OPEN", "epoch": row["epoch"] if row else 0, "p0": p0, "n": 0, "doubled": doubled, "since": now,
        }  # fmt: skip
        self._opened(key, now)
        return True

    def probe(self, key: str, epoch: int, ok: bool, now: int) -> list[tuple[str, str]]:
        row = self.rows.get(key)
        if not row or row["state"] != "HALF_OPEN":
            return []
        if epoch != row["epoch"] and not (self.p.late_results and epoch in row["epochs"]):
            return []
        row["ok" if ok else "failed"] += 1
        row["in_wave"] += 1
        total = row["ok"] + row["failed"]
        ratio = self._ratio(row)
        if ratio <= Fraction(1, 99):
            self._change(row, now)
            row.update(state="CLOSED", n=0, due=self._ceil(now + self.p.forget_after_us))
            row["calm"] = now + 2 * self._cooldown(row)
        elif ratio >= 99 or total >= self.p.max_probes:
            self._reopened(key, now)
        elif row["in_wave"] >= row["quota"] * row["clients"]:
            self._wave(row, now, row["clients"], 0)
        else:
            return []
        return [(key, row["state"])]

    def second(self, now: int, clients: int) -> list[tuple[str, str]]:
        """Everything that time does at one whole second."""
        done = []
        for key in sorted(k for k, r in self.rows.items() if r["due"] == now):
            row = self.rows[key]
            if row["state"] == "CLOSED":
                del self.rows[key]
                done.append((key, "FORGOTTEN"))
                continue
            if row["state"] == "OPEN":
                row.update(ok=0, failed=0, epochs=[], number=0)
                self._wave(row, now, clients, 0)
            else:
                empty = 0 if row["in_wave"] else row["empty"] + 1
                if empty == self.p.empty_waves:
                    self._reopened(key, now)
                else:
                    self._wave(row, now, clients, empty)
            done.append((key, row["state"]))
        return done

    def _wave(self, row: dict[str, Any], now: int, clients: int, empty: int) -> None:
        self._change(row, now)
        row["epochs"].append(row["epoch"])
        quota = self.p.probes if clients < 1 else min(max(self.p.probes // clients, 1), self.p.probes)
        row.update(state="HALF_OPEN", in_wave=0, clients=max(clients, 1), quota=quota, empty=empty)
        row.update(number=row["number"] + 1, due=self._ceil(now + self.p.wave_us))

    def _reopened(self, key: str, now: int) -> None:
        self.rows[key]["n"] += 1
        self.rows[key]["doubled"] += 1
        self._opened(key, now)

    def _opened(self, key: str, now: int) -> None:
        row = self.rows[key]
        self._change(row, now)
        row.update(state="OPEN", quota=0, due=None, at=now)

    def took(self, key: str, due: int) -> None:
        """Learn the jittered end of a cooldown, after checking its range: half to all of it, on a whole second."""
        row = self.rows[key]
        full = self._cooldown(row)
        assert due % SECOND == 0
        assert row["at"] + full // 2 <= due <= self._ceil(row["at"] + full)
        row["due"] = due

    def _cooldown(self, row: dict[str, Any]) -> int:
        return int(min(self.p.base_cooldown_us * 2 ** row["doubled"], self.p.max_cooldown_us))

    def _change(self, row: dict[str, Any], now: int) -> None:
        row["epoch"] = max(row["epoch"] + 1, now // 1000)

    def _ratio(self, row: dict[str, Any]) -> Fraction:
        p0 = Fraction(row["p0"])
        odds = 16 * p0 / (1 - p0)
        p1 = max(Fraction(3, 10), odds / (1 + odds))
        return Fraction((p1 / p0) ** row["failed"] * ((1 - p1) / (1 - p0)) ** row["ok"])

    @staticmethod
    def _ceil(time: int) -> int:
        return time if time % SECOND == 0 else time - time % SECOND + SECOND
