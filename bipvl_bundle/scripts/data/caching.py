"""Cache of preprocessed cases that ends in order at a case that cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from monai.data import CacheDataset
from tqdm import tqdm

__all__ = ["SafeCacheDataset"]


class SafeCacheDataset(CacheDataset):
    """Data set like MONAI's `CacheDataset` that leaves no thread behind when a case fails.

    MONAI's own raises the error while its threads go on with the next cases. If the process ends in the middle of their
    work, it is aborted (SIGABRT) in place of ending with the error. Here the others end the case that they are at
    before the error is raised. Arguments and result are those of `CacheDataset`.
    """

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        indices = range(self.cache_num) if indices is None else indices
        if not indices:
            return []
        pool = ThreadPoolExecutor(self.num_workers)
        try:
            loaded: Iterable[Any] = pool.map(self._load_cache_item, indices)
            return list(tqdm(loaded, total=len(indices), desc="Loading dataset", disable=not self.progress))
        finally:
            pool.shutdown(cancel_futures=True)
