"""Every metric that a run writes: its unit, its meaning and where it is shown.

A row, or the statistics of a step, is a ``TypedDict`` whose fields carry a `Metric`. All lists of names are read from
these classes: the columns of ``metrics.csv``, the tables of ``stats.txt``, the model card, Airflow's summary, the
checker, TensorBoard and the reference in ``docs/``.

To add a column to ``metrics.csv``, add a field to `jobs.metrics.training.EvaluationRow`.

These modules import nothing but the standard library, since Airflow's scheduler loads them too.
"""
