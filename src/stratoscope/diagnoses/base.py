"""What a diagnosis is: a rule over the groups of several instruments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from stratoscope.errors import NotApplicable
from stratoscope.instruments.base import Judge

if TYPE_CHECKING:
    from stratoscope.record.group import Group
    from stratoscope.record.quantity import Quantity
    from stratoscope.record.record import Record


class Diagnosis(Judge):
    """A rule over what several instruments measured. Subclass it as a frozen dataclass, whose fields are its settings.

    It sees no network and no data, so it works on any record: while a training writes it, when it is finished, and years
    later from disk. What it derives is a group of its own in the record, under its `key`, and it judges that group alone:
    findings can be computed again with other settings.

    Attributes:
        reads: keys of the instruments whose groups it looks at.
        optional: those of them that may be missing.
        any_of: of the optional ones, those of which one has to be there.
    """

    reads: ClassVar[frozenset[str]]
    optional: ClassVar[frozenset[str]] = frozenset()
    any_of: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def derive(self, record: Record) -> Mapping[str, Quantity]:
        """What follows from the numbers of several instruments, for all steps that they measured.

        A quantity that varies with time has the dim `step`, labelled by the steps at which it is known; without that
        dim it speaks of the run as a whole and is kept at its last step. One that varies with the data has the dim
        `split`. NaN is kept as not known.

        Args:
            record: finished or still being written; `self.groups(record)` gives what to read.

        Raises:
            NotApplicable: if the question makes no sense here; the message is the reason.
        """

    def groups(self, record: Record) -> dict[str, Group]:
        """The groups to read, by the instrument's key.

        Where an instrument measured in several settings, its first group is taken; derived variables name the groups
        that they were derived from in their attribute `reads`.

        Args:
            record: any record.

        Raises:
            NotApplicable: if one that is needed was not measured.
        """
        found: dict[str, Group] = {}
        for name in record:
            key = name.partition(":")[0]
            if key in self.reads and len(record[name]):
                found.setdefault(key, record[name])
        missing = sorted(self.reads - self.optional - set(found))
        if missing:
            verb = "was" if len(missing) == 1 else "were"
            raise NotApplicable(f"it needs {_listed(missing, 'and')}, which {verb} not measured")
        one_of = self.any_of or self.reads
        if not one_of & set(found):
            none = "none of which was measured" if len(one_of) > 1 else "which was not measured"
            raise NotApplicable(f"it needs {_listed(sorted(one_of), 'or')}, {none}")
        return found


def _listed(names: list[str], link: str) -> str:
    return f" {link} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
