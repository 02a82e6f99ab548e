"""Pictures of the pages in Airflow, of a real Airflow with real runs."""
