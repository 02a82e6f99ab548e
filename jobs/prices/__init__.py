"""What a run costs: prices, the bill of a run, the estimate before it, and its budget.

Airflow's scheduler and its API server load these modules, so they import neither numpy nor torch, pyarrow or pyspark.
"""
