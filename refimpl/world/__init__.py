"""The ranks of a job: topology, communicators, events and who hears them, ranks as threads."""
