"""The longest of the last minutes, without keeping them."""

SLOT_NS = 10_000_000_000
KEPT_NS = 300_000_000_000


class Worst:
    """The largest value of each key that was told in the last `KEPT_NS`, within `SLOT_NS`."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[str, int]] = {}

    def tell(self, key: str, value: int, now_ns: int) -> None:
        """Note a value."""
        slot = self._slots.setdefault(now_ns // SLOT_NS, {})
        slot[key] = max(value, slot.get(key, 0))
        self._forget(now_ns)

    def of(self, key: str, now_ns: int) -> int:
        """Return the largest value, 0 for none."""
        self._forget(now_ns)
        return max((slot.get(key, 0) for slot in self._slots.values()), default=0)

    def _forget(self, now_ns: int) -> None:
        for slot in [each for each in self._slots if each < (now_ns - KEPT_NS) // SLOT_NS]:
            del self._slots[slot]
