"""How an artefact shows itself: in a line, in a notebook, as a data frame."""

from __future__ import annotations

import html
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from affectlens.core.extras import needed

if TYPE_CHECKING:
    import pandas as pd


class Displayed:
    """A one-line ``repr``, a small table in notebooks, and its rows for pandas.

    Figures are drawn by `affectlens.plot`, which knows the artefacts; they do not know of figures,
    because servers and clusters load them where nothing is drawn.
    """

    @abstractmethod
    def brief(self) -> Mapping[str, object]:
        """What it is, name by name, each value a few words."""

    @abstractmethod
    def table_rows(self) -> Sequence[Mapping[str, object]]:
        """What it holds that fits a table, one mapping a row."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.brief().items())})"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
            for name, value in self.brief().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{cells}</table>"

    def to_pandas(self) -> pd.DataFrame:
        """Its rows as a data frame.

        Raises:
            ModelError: If pandas is not installed.
        """
        return data_frame(self.table_rows())


def data_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a data frame.

    Raises:
        ModelError: If pandas is not installed.
    """
    frame: pd.DataFrame = needed("pandas", "to_pandas").DataFrame(list(rows))
    return frame
