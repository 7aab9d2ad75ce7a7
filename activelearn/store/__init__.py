"""The campaign folder is the single source of truth: products, sealed results, the label ledger, claims and the lease.

The FireWorks LaunchPad only schedules: if it is lost, no data are lost. The rules that make a kill harmless are
implemented here.
"""

from __future__ import annotations

from activelearn.store.campaign import Store
from activelearn.store.consent import Consent
from activelearn.store.files import disk_errors, read_npz
from activelearn.store.folder import Folder
from activelearn.store.ledger import Ledger, LedgerWriter
from activelearn.store.locks import Claim, Lease
from activelearn.store.study import StudyStore
from activelearn.store.verifying import Verified, verify

__all__ = [
    "Claim",
    "Consent",
    "Folder",
    "Lease",
    "Ledger",
    "LedgerWriter",
    "Store",
    "StudyStore",
    "Verified",
    "disk_errors",
    "read_npz",
    "verify",
]
