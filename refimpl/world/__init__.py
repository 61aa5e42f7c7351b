"""The ranks of a job: topology, communicators, ledger."""
