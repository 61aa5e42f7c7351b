"""What is here needs torch and runs in processes of its own: pytest has nothing to import."""

collect_ignore_glob = ["*.py"]
