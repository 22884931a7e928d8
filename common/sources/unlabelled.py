"""A folder of films without labels, of which students learn what their teachers say -> source films.

A case table in the folder lists them; else every file under it is one, in the order of the paths.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.command_line import Rules
from common.sources import case_table
from common.sources.folder_files import list_input
from common.sources.source_film import SourceFilm


def source_films(folder: Path, rules: Rules) -> list[SourceFilm]:
    """List the films, none of which has a label or an annotation.

    Args:
        folder: Folder of the films, with or without a case table.
        rules: Rules of inclusion, of which `allow_chest_tube` is applied here.

    Raises:
        Refusal: There is no film, or the table cannot be read or has unknown columns.
    """
    if case_table.find_table(folder):
        films = case_table.unlabelled_films(folder, rules)
    else:
        films = [
            SourceFilm(
                identifier=entry.path.relative_to(folder).as_posix(),
                path=None if entry.fault else entry.path,
                origin=f"file {number}, by path",
                annotation=None,
                report=None,
                fault=entry.fault or None,
            )
            for number, entry in enumerate(list_input(folder).entries, start=1)
        ]
    # Two folders may number their films alike: where no patient is known, that makes them no patient's.
    return [replace(film, identifier=f"unlabelled {film.identifier}") for film in films]
