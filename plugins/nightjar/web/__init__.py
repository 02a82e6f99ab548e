"""The pages in Airflow's API server: the runs of the lake, and the files and logs of runs."""
