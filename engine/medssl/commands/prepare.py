"""Any readable scans -> a training cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssl.config.prepare import PrepareConfig
from medssl.config.resume import under_way
from medssl.data.cache import make_folder
from medssl.data.preparation import Summary, prepare_cache
from medssl.data.table import read_data
from medssl.jobs.progress import Steps

if TYPE_CHECKING:
    from medssl.commands.workspace import Workspace


def run(config: PrepareConfig, workspace: Workspace | None = None) -> Steps[Summary]:
    """Prepare every row of the data; run again, it goes on where it stopped.

    Args:
        config: data, cache folder and cache settings.
        workspace: not needed by this command.
    """
    rows = read_data(config.data)
    make_folder(config.out, config.cache())
    with under_way(config):
        return (
            yield from prepare_cache(
                rows, config.out, config.cache(), max_mb=config.max_mb, workers=config.workers
            )
        )
