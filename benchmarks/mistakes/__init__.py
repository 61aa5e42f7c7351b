"""What users do by mistake, as cases for `benchmarks/bad_inputs.py`."""
