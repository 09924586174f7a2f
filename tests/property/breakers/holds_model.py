"""A plain model of breakers with several holds, written from their description: dicts, exact fractions, no shared code.

Times are microseconds. Only the jitter of cooldowns is learned from the machine, after a check of its range.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

SECOND = 1_000_000
GRACE = 5 * SECOND
HOUR = 3600 * SECOND
LEVELS = ["INFO", "TICKET", "PAGE", "CRITICAL"]

Row = dict[str, Any]
Said = tuple[Any, ...]


def up(time: int) -> int:
    """To the next whole second."""
    return time + -time % SECOND


def may(actions: list[str], state: str) -> frozenset[str]:
    """What is permitted while these actions are asked for."""
    everything = {"slow model", "fast model", "read", "write", "write with approval"}
    if state in ("CLOSED", "FORCED_CLOSED"):
        return frozenset(everything)
    forbidden: dict[str, set[str]] = {
        "NONE": set(),
        "FAST_MODEL_ONLY": {"slow model"},
        "REQUIRE_APPROVAL": {"write"},
        "READ_ONLY": {"write", "write with approval"},
        "DISABLE_TOOL": {"read", "write", "write with approval"},
        "HALT": everything,
    }
    return frozenset(everything.difference(*(forbidden[action] for action in actions)))


class Model:
    """All breakers, and everything that they publish, in ``said``."""

    def __init__(self, soonest: int, wave: int, forget: int, limit: int, empty: int) -> None:
        self.soonest, self.wave, self.forget, self.limit, self.empty = soonest, wave, forget, limit, empty
        self.rows: dict[str, Row] = {}
        self.said: list[Said] = []

    # --- what is enforced

    def state(self, row: Row) -> str:
        if row["order"]:
            return "FORCED_OPEN" if row["order"]["kind"] == "open" else "FORCED_CLOSED"
        if not row["holds"]:
            return "CLOSED"
        return "HALF_OPEN" if row["half"] else "OPEN"

    def asked(self, row: Row) -> list[str]:
        """Every action of every rung climbed, and the order's."""
        climbed = [action for h in row["holds"].values() for action, _, _ in h["ladder"][: h["step"] + 1]]
        return climbed + (row["order"]["actions"] if row["order"] else [])

    def permits(self, row: Row) -> frozenset[str]:
        return may(self.asked(row), self.state(row))

    @staticmethod
    def needs(h: Row) -> str:
        """What it takes to let go."""
        return "PERSON" if h["ladder"][h["step"]][1] == "CRITICAL" else str(h["by"])

    def probed(self, row: Row) -> bool:
        return bool(row["holds"]) and {self.needs(h) for h in row["holds"].values()} == {"PROBE"}

    # --- telling

    def tell(self, key: str, now: int, cause: str, who: str | None = None) -> None:
        """Something changed: a new epoch, and everybody hears of it. Whatever was half-open is so no longer."""
        row = self.rows[key]
        row["epoch"] = max(row["epoch"] + 1, now // 1000)
        row["at"] = now
        self.said.append((key, self.state(row), cause, row["epoch"], self.permits(row), self.listed(row), who))

    def listed(self, row: Row) -> Said:
        return tuple((name, h["ladder"][h["step"]][0], h["began"], self.needs(h)) for name, h in row["holds"].items())

    def by_order(self, row: Row) -> str | None:
        return row["order"]["person"] if row["order"] else None

    # --- firing

    def fire(
        self, key: str, rule: str, how: Row, now: int, p0: float | None, until: int | None, made: int | None = None
    ) -> str:
        row = self.rows.setdefault(
            key,
            {"epoch": 0, "holds": {}, "order": None, "half": None, "twice": 0, "calm": 0, "again": 0, "at": 0},
        )
        h = row["holds"].get(rule)
        if h is None:
            if not row["holds"] and not row["order"]:
                row.update(again=0, knows=None)
            h = {"ladder": how["ladder"], "by": how["by"], "base": how["base"], "top": how["top"]}
            h |= {"size": how["size"], "quiet": how["quiet"], "p0": 0.005 if p0 is None else p0}
            h |= {
                "step": 0,
                "began": now,
                "seen": "fired",
                "on": now,
                "twice": row["twice"] if now < row["calm"] else 0,
            }
            h["window"] = None if until is None else self.timer(now, until - now)
            h["session"] = self.timer(now, HOUR) if key.startswith("SESSION:") else None
            row["holds"][rule] = h
            row["half"] = None
            self.enter(row, h, now)
            self.tell(key, now, "TRIP", self.by_order(row))
            return "TRIPPED"
        under_it = h["counts"] < (now if made is None else made)
        climbs = under_it and self.higher(h) and self.higher(h)[2] is None
        if climbs and not (row["order"] and row["order"]["kind"] == "closed"):
            if h["seen"] == "off":
                h["seen"] = "fired"
            h["on"] = now
            h["p0"] = 0.005 if p0 is None else p0
            self.climb(key, h, now)
            return "CLIMBED"
        if h["seen"] == "off":
            self.again_on(h, now, "fired")
        if self.needs(h) == "CLEAR" and h["seen"] == "fired":
            h["on"] = now
        if self.needs(h) == "WINDOW" and until is not None:
            h["window"] = max(h["window"] or 0, self.timer(now, until - now))
        return "NOTHING"

    def higher(self, h: Row) -> Any:
        """The rung above, if there is one."""
        here = h["ladder"][h["step"]][0]
        return (
            None
            if here in ("DISABLE_TOOL", "HALT") or len(h["ladder"]) == h["step"] + 1
            else h["ladder"][h["step"] + 1]
        )

    def timer(self, now: int, wait: int) -> int:
        return up(now + max(wait, self.soonest))

    def enter(self, row: Row, h: Row, now: int) -> None:
        """A hold has come to another rung, or into force again on the same."""
        h["brought"] = max(row["epoch"] + 1, now // 1000)
        h["counts"] = now + GRACE
        next_one = self.higher(h)
        h["climbs"] = self.timer(now, next_one[2]) if next_one and next_one[2] is not None else None
        self.cool(h, now)

    def cool(self, h: Row, now: int) -> None:
        h["ready"] = None
        h["unknown"] = (now, self.length(h)) if self.needs(h) == "PROBE" else None

    @staticmethod
    def length(h: Row) -> int:
        return int(min(h["base"] * 2 ** h["twice"], h["top"]))

    def took(self, key: str, rule: str, ready: int | None) -> None:
        """Learn a jittered cooldown: half to all of it, on a whole second, never too soon."""
        h = self.rows[key]["holds"][rule]
        if h["unknown"] is None:
            assert ready == h["ready"]
            return
        (start, full), h["unknown"] = h["unknown"], None
        assert ready is not None
        assert self.timer(start, full // 2) <= ready <= self.timer(start, full)
        h["ready"] = ready

    def climb(self, key: str, h: Row, now: int) -> None:
        row = self.rows[key]
        h["step"] += 1
        row["half"] = None
        self.enter(row, h, now)
        self.tell(key, now, "TRIP", self.by_order(row))

    def again_on(self, h: Row, now: int, seen: str) -> None:
        if h["seen"] == "off" and h["climbs"] is not None:
            h["climbs"] = max(h["climbs"], self.timer(now, 0))
        h["seen"], h["on"] = seen, max(h["on"], now)

    def burning(self, key: str, rule: str, now: int) -> None:
        h = self.rows.get(key, {"holds": {}})["holds"].get(rule)
        if h and h["seen"] != "on":
            self.again_on(h, now, "on")

    def cleared(self, key: str, rule: str, now: int) -> None:
        h = self.rows.get(key, {"holds": {}})["holds"].get(rule)
        if h and h["seen"] == "on":
            h["on"] = now
        if h:
            h["seen"] = "off"

    def acknowledge(self, key: str, epoch: int, now: int) -> None:
        row = self.rows.get(key)
        if row and epoch <= row["epoch"]:
            for h in row["holds"].values():
                if epoch >= h["brought"]:
                    h["counts"] = min(h["counts"], now)

    # --- letting go

    def drop(self, key: str, rule: str, now: int, cause: str, who: str | None = None) -> None:
        row = self.rows[key]
        del row["holds"][rule]
        row["half"] = None
        self.tell(key, now, cause, who or self.by_order(row))

    def down(self, row: Row, h: Row, now: int) -> None:
        h.update(step=h["step"] - 1, seen="off", on=now, twice=0)
        self.enter(row, h, now)

    def remove_rule(self, rule: str, now: int) -> None:
        for key in sorted(self.rows):
            h = self.rows[key]["holds"].get(rule)
            if h and self.needs(h) != "PERSON":
                self.drop(key, rule, now, "RULE_REMOVED")

    def order(self, key: str, kind: str, action: str, person: str, end: int | None, rule: str | None,
              epoch: int | None, now: int) -> bool:  # fmt: skip
        """An order; returns whether it was accepted."""
        row = self.rows.get(key) or {
            "epoch": 0, "holds": {}, "order": None, "half": None, "twice": 0, "calm": 0, "again": 0, "at": 0,
        }  # fmt: skip
        state = self.state(row)
        if epoch is not None and epoch != row["epoch"]:
            return False
        if kind in ("HOLD", "ACKNOWLEDGE") and (state == "CLOSED" or (kind == "HOLD" and state == "FORCED_CLOSED")):
            return False
        if kind == "ACKNOWLEDGE":
            row["knows"] = person
            return True
        if kind == "HOLD" and state == "FORCED_OPEN" and not self.lasts_as_long(end, row["order"]["end"]):
            return False
        if kind == "RESET":
            return self.reset(key, row, rule, person, state, now)
        self.rows[key] = row
        if state == "CLOSED":
            row.update(again=0, knows=None)
        actions = [action] * (action != "NONE") + (self.asked(row) if kind == "HOLD" else [])
        lifted = state == "FORCED_CLOSED" and kind != "BYPASS"
        row["order"] = {
            "kind": "closed" if kind == "BYPASS" else "open",
            "actions": actions,
            "person": person,
            "end": end,
        }
        row["half"] = None
        self.settle(row, now, lifted)
        self.tell(key, now, "OVERRIDE", person)
        return True

    @staticmethod
    def lasts_as_long(end: int | None, other: int | None) -> bool:
        """Whoever wants a breaker kept open must not let it go by that."""
        return end is None or (other is not None and end >= other)

    def reset(self, key: str, row: Row, rule: str | None, person: str, state: str, now: int) -> bool:
        if rule is not None:
            if rule not in row["holds"]:
                return False
            self.drop(key, rule, now, "OVERRIDE", person)
        elif state != "CLOSED":
            row.update(holds={}, order=None, half=None)
            self.tell(key, now, "OVERRIDE", person)
        return True

    def settle(self, row: Row, now: int, lifted: bool) -> None:
        """After a bypass every rung is in force anew; cooldowns have run on."""
        for h in row["holds"].values() if lifted else ():
            ready, unknown = h["ready"], h["unknown"]
            self.enter(row, h, now)
            h["ready"], h["unknown"] = ready, unknown

    # --- probes

    def probe(self, key: str, epoch: int, ok: bool, now: int) -> None:
        row = self.rows.get(key)
        if not row or self.state(row) != "HALF_OPEN" or epoch not in row["half"]["epochs"]:
            return
        half = row["half"]
        half["good" if ok else "bad"] += 1
        half["came"] += 1
        odds = Fraction(half["p0"]) * 16 / (1 - Fraction(half["p0"]))
        p0, p1 = Fraction(half["p0"]), max(Fraction(3, 10), odds / (1 + odds))
        likelier = (p1 / p0) ** half["bad"] * ((1 - p1) / (1 - p0)) ** half["good"]
        if likelier <= Fraction(1, 99):
            self.passed(key, now)
        elif likelier >= 99:
            self.reopen(key, now, "PROBES_FAILED")
        elif half["good"] + half["bad"] >= self.limit:
            self.reopen(key, now, "PROBES_UNDECIDED")
        elif half["came"] >= half["quota"] * half["clients"]:
            self.begin_wave(key, now, half["clients"], 0, "NEXT_WAVE")

    def passed(self, key: str, now: int) -> None:
        row = self.rows[key]
        row["twice"] = 1 + max(h["twice"] for h in row["holds"].values())
        row["calm"] = now + 2 * max(self.length(h) for h in row["holds"].values())
        row["half"] = None
        row["holds"] = {rule: h for rule, h in row["holds"].items() if h["step"]}
        for h in row["holds"].values():
            self.down(row, h, now)
        self.tell(key, now, "PROBES_PASSED")

    def reopen(self, key: str, now: int, cause: str) -> None:
        row = self.rows[key]
        row["half"] = None
        row["again"] += 1
        for h in row["holds"].values():
            if h["seen"] == "off" and cause != "NO_PROBES":
                self.again_on(h, now, "fired")
            h["twice"] += 1
            self.cool(h, now)
        self.tell(key, now, cause)

    def begin_wave(self, key: str, now: int, clients: int, empty: int, cause: str) -> None:
        row = self.rows[key]
        if cause == "COOLDOWN_OVER":
            row["half"] = {"good": 0, "bad": 0, "epochs": [], "p0": max(h["p0"] for h in row["holds"].values())}
        half = row["half"]
        share = min(h["size"] for h in row["holds"].values()) // max(clients, 1)
        half.update(came=0, clients=max(clients, 1), quota=max(share, 1), empty=empty, ends=up(now + self.wave))
        self.tell(key, now, cause)
        half["epochs"].append(row["epoch"])

    # --- time

    def agenda(self, row: Row) -> list[tuple[int, int, str]]:
        """What time will do: when, in which order if at once, and about which rule."""
        state = self.state(row)
        if state == "CLOSED":
            return [(up(row["at"] + self.forget), 0, "")]
        plans = []
        if row["order"] and row["order"]["end"] is not None:
            plans.append((up(row["order"]["end"]), 1, ""))
        for rule, h in row["holds"].items():
            for end in (h["session"], self.quiet_end(h)):
                if end is not None:
                    plans.append((end, 2, rule))
            if h["climbs"] is not None and h["seen"] != "off" and state != "FORCED_CLOSED":
                plans.append((h["climbs"], 3, rule))
        if state == "HALF_OPEN":
            plans.append((row["half"]["ends"], 4, ""))
        elif state == "OPEN" and self.probed(row) and all(h["ready"] for h in row["holds"].values()):
            # One whose cooldown is not known yet has only just begun to cool down.
            plans.append((max([up(row["at"]), *(h["ready"] for h in row["holds"].values())]), 4, ""))
        return plans

    def quiet_end(self, h: Row) -> int | None:
        if self.needs(h) == "WINDOW":
            return h["window"] if h["window"] is None else int(h["window"])
        if self.needs(h) == "CLEAR" and h["seen"] != "on":
            return self.timer(h["on"], h["quiet"])
        return None

    def next_time(self) -> int | None:
        return min((plan[0] for row in self.rows.values() for plan in self.agenda(row)), default=None)

    def one_at(self, now: int, clients: int) -> bool:
        """Do the first thing that is due at a second; returns whether there was one."""
        for key in sorted(self.rows):
            row = self.rows[key]
            order = list(row["holds"])
            plans = sorted(
                (what, order.index(rule) if rule else -1, rule) for at, what, rule in self.agenda(row) if at <= now
            )
            if plans:
                what, _, rule = plans[0]
                self.act(key, row, what, rule, now, clients)
                return True
        return False

    def act(self, key: str, row: Row, what: int, rule: str, now: int, clients: int) -> None:
        if what == 0:
            del self.rows[key]
            self.said.append((key, "FORGOTTEN"))
        elif what == 1:
            ended, row["order"] = row["order"], None
            self.settle(row, now, ended["kind"] == "closed")
            self.tell(key, now, "EXPIRED", ended["person"])
        elif what == 2:
            h = row["holds"][rule]
            if h["session"] is not None and h["session"] <= now:
                self.drop(key, rule, now, "EXPIRED")
            elif self.needs(h) == "WINDOW" or h["step"] == 0:
                self.drop(key, rule, now, "CONDITION_CLEARED")
            else:
                row["half"] = None
                self.down(row, h, now)
                self.tell(key, now, "CONDITION_CLEARED", self.by_order(row))
        elif what == 3:
            self.climb(key, row["holds"][rule], now)
        elif row["half"] is None:
            self.begin_wave(key, now, clients, 0, "COOLDOWN_OVER")
        else:
            empty = 0 if row["half"]["came"] else row["half"]["empty"] + 1
            if empty == self.empty:
                self.reopen(key, now, "NO_PROBES")
            else:
                self.begin_wave(key, now, clients, empty, "NEXT_WAVE")
