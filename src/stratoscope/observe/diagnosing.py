"""The end of every measurement: diagnoses derive what follows from it, and everybody judges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stratoscope.diagnoses.base import Diagnosis
from stratoscope.diagnoses.registry import available as every_diagnosis
from stratoscope.diagnoses.registry import choose as choose_diagnoses
from stratoscope.errors import SettingError
from stratoscope.instruments.base import Instrument, Judge
from stratoscope.instruments.registry import available as every_instrument
from stratoscope.instruments.registry import choose as choose_instruments
from stratoscope.observe.deriving import derive, write
from stratoscope.observe.entries import describe, group_of, labels_of
from stratoscope.observe.judging import diagnoses_of, judge, said_of
from stratoscope.observe.settings import Settings
from stratoscope.record.record import Record
from stratoscope.record.writer import RecordWriter


@dataclass(frozen=True)
class Chosen:
    """Who takes part in a measurement.

    Attributes:
        instruments: who measures.
        diagnoses: who derives something from that.
    """

    instruments: list[Instrument]
    diagnoses: list[Diagnosis]

    @classmethod
    def of(
        cls,
        given: Sequence[Judge] | None = None,
        only: Iterable[str] = (),
        skip: Iterable[str] = (),
        settings: Settings | None = None,
    ) -> Chosen:
        """Those that were given, else those that keys and a settings file say.

        Where `only` names no diagnosis there is none; a diagnosis that it names brings the instruments that it reads.

        Args:
            given: instruments and diagnoses with their settings; exactly these take part.
            only: keys of instruments and diagnoses, or one; all where it is empty.
            skip: keys to leave out, or one.
            settings: values for their fields.

        Raises:
            SettingError: if a key or a setting does not exist, or no instrument is left.
        """
        if given is not None:
            strange = [one for one in given if not isinstance(one, Instrument | Diagnosis)]
            if strange:
                raise SettingError(f"{strange[0]!r:.80} is neither an instrument nor a diagnosis.")
            instruments = [one for one in given if isinstance(one, Instrument)]
            return cls(instruments, [one for one in given if isinstance(one, Diagnosis)])
        only, skip = ((keys,) if isinstance(keys, str) else tuple(keys) for keys in (only, skip))
        settings = settings or Settings()
        diagnoses = every_diagnosis()
        _check(only, skip)
        named = [key for key in only if key in diagnoses]
        read = sorted({key for name in named for key in diagnoses[name].reads} & every_instrument().keys())
        instruments = choose_instruments(
            [*(key for key in only if key not in named), *read],
            [key for key in skip if key not in diagnoses],
            settings.instruments,
        )
        without = [key for key in skip if key in diagnoses]
        return cls(instruments, choose_diagnoses(named if only else None, without, settings.diagnoses))

    @property
    def judges(self) -> list[Judge]:
        """Everybody."""
        return [*self.instruments, *self.diagnoses]

    def without_training(self) -> Chosen:
        """The same without the instruments that measure each step of a training."""
        return replace(self, instruments=[one for one in self.instruments if not one.every_step])

    def meta(self) -> dict[str, Any]:
        """What a record says of them."""
        about: Mapping[str, Any] = describe(self.judges)
        names = [group_of(one, label) for one, label in labels_of(self.diagnoses).items()]
        return {"instruments": about, "diagnoses": names}


def _check(only: Iterable[str], skip: Iterable[str]) -> None:
    known = [*every_instrument(), *every_diagnosis()]
    for key in (*only, *skip):
        if key not in known:
            raise SettingError(f"There is no instrument {key!r}, nor a diagnosis; there are {', '.join(known)}.")


def conclude(writer: RecordWriter, chosen: Chosen, settings: Settings) -> None:
    """Derive what follows from what was measured, and judge everything; in place of what an earlier call concluded.

    Args:
        writer: of the record; it stays open.
        chosen: who takes part.
        settings: what is muted.
    """
    record = Record.from_writer(writer)
    steps = record.steps
    derived = derive(record, chosen.diagnoses)
    if steps and derived:
        write(writer, derived, steps[-1])
        record.refresh()
    writer.replace_findings(judge(record, chosen.judges, settings, said_of(record, derived)))


def diagnose(record: Record, diagnoses: Sequence[Diagnosis] | None = None, settings: Settings | None = None) -> Record:
    """What follows from a record of any age: of a training that goes on, or of a finished one, from disk.

    ```python
    diagnose(Record.open("runs/mlp"))["depth"]
    ```

    Args:
        record: any record; it stays as it is.
        diagnoses: with their settings; by default those that the record was made with, else all.
        settings: thresholds and muted codes.

    Returns:
        A record in memory with the derived groups, coverage, and what the diagnoses find.
    """
    settings = settings or Settings()
    chosen = Chosen([], diagnoses_of(record, settings) if diagnoses is None else list(diagnoses))
    derived = derive(record, chosen.diagnoses)
    about = {key: record.meta[key] for key in ("name", "watched") if key in record.meta}
    writer = RecordWriter.create(None, about | chosen.meta())
    write(writer, derived, max(record.steps, default=0))
    found = Record.from_writer(writer)
    writer.replace_findings(judge(found, chosen.judges, settings, said_of(record, derived)))
    writer.write_meta("status", "finished")
    return found.refresh()
