"""The ranks of a job: topology, communicators, ledger, ranks that agree, ranks as threads."""
