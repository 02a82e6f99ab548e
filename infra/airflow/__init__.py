"""A local Airflow: with its UI and the embedded EMR (`standalone`), or one DAG run without servers (`headless`)."""
